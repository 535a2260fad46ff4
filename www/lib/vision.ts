import { forgotten, type Engine } from "./engine.js";
import { badArgument } from "./errors.js";
import { postableImage } from "./image.js";
import { loadInto, LOAD_RULES } from "./load.js";
import * as rule from "./options.js";
import { jsonText } from "./json.js";
import type { Timed } from "./protocol.js";
import type {
  AttentionOptions, Classification, ImageSource, JsonSource, Source, Tensor, VisionLoadOptions, VisionModelInfo,
  VisionStats, ZeroShotOptions,
} from "./types.js";

const asGiven: rule.Rule<JsonSource> = (_, value) => value as JsonSource;

const VISION_LOAD_RULES: rule.Rules<VisionLoadOptions> = {
  ...LOAD_RULES, labels: rule.texts, config: asGiven, preprocessor: asGiven, tokenizer: asGiven, overrides: rule.overrides,
};

/** Options of {@link VisionModel.classify}. */
export interface ClassifyOptions {
  /** How many classes to return, the likeliest first. Default 5. */
  topK?: number;
}

/** Options of {@link VisionModel.logits}. */
export interface ImageLogitsOptions {
  /** Shape of the pixels: `[1, 3, height, width]`. */
  shape: readonly number[];
}

/**
 * How alike two vectors are: the cosine of their angle, -1 to 1; 0 where one of them is zero. Of vectors that
 * {@link VisionModel.embedImage} and {@link VisionModel.embedText} made.
 */
export function similarity(a: Float32Array, b: Float32Array): number {
  if (!(a instanceof Float32Array && b instanceof Float32Array) || a.length !== b.length) {
    throw badArgument("b", "similarity takes two Float32Arrays of one length");
  }
  let [ab, aa, bb] = [0, 0, 0];
  a.forEach((x, i) => {
    const y = b[i] as number;
    ab += x * y;
    aa += x * x;
    bb += y * y;
  });
  return aa * bb > 0 ? ab / Math.sqrt(aa * bb) : 0;
}

/** A vision model in a worker of its own. */
export class VisionModel {
  readonly #engine: Engine;
  /** What was loaded. */
  readonly info: VisionModelInfo;
  #imageMs = 0;

  private constructor(engine: Engine, info: VisionModelInfo) {
    this.#engine = engine;
    this.info = info;
    forgotten.register(this, engine, this);
  }

  /**
   * Loads a vision model from a safetensors or GGUF file. A safetensors file of Hugging Face or timm wants the
   * `config.json` that belongs to it; a model that reads texts too wants its `tokenizer.json`.
   *
   * @throws {BitpaneError} with the code of what is wrong with the source, the file or the options.
   */
  static async load(source: Source, options: VisionLoadOptions = {}): Promise<VisionModel> {
    const given = rule.readOptions<VisionLoadOptions>(options, VISION_LOAD_RULES);
    const { quantize, labels } = given;
    const [config, preprocessor, tokenizer] = await Promise.all([
      jsonText("config", given.config), jsonText("preprocessor", given.preprocessor), jsonText("tokenizer", given.tokenizer),
    ]);
    const overrides = Object.entries(given.overrides ?? {}).map(([pattern, type]) => `${pattern}=${type}`);
    const { engine, loaded } = await loadInto("vision", source, given, { quantize, labels, config, preprocessor, tokenizer, overrides });
    return new VisionModel(engine, loaded.info as VisionModelInfo);
  }

  /** Figures of the last image. */
  get stats(): VisionStats {
    return { imageMs: this.#imageMs, wasmBytes: this.#engine.wasmBytes };
  }

  /** The likeliest classes of an image, the likeliest first; of several images a list for each, in their order. */
  async classify(image: ImageSource, options?: ClassifyOptions): Promise<Classification[]>;
  async classify(images: readonly ImageSource[], options?: ClassifyOptions): Promise<Classification[][]>;
  async classify(
    image: ImageSource | readonly ImageSource[], options: ClassifyOptions = {},
  ): Promise<Classification[] | Classification[][]> {
    const { topK = 5 } = rule.readOptions<ClassifyOptions>(options, { topK: rule.positive });
    return this.#each(image, async (one) => {
      const { image: pixels, transfer } = await postableImage(one, this.info.resizing);
      return this.#timed(this.#engine.call("classify", { image: pixels, topK }, transfer));
    });
  }

  /**
   * Which of some labels fits an image: all of them, the likeliest first; of several images a list for each. For
   * models that read texts. Scores are probabilities: together 1 (CLIP), or each by itself (SigLIP).
   */
  async zeroShot(image: ImageSource, labels: readonly string[], options?: ZeroShotOptions): Promise<Classification[]>;
  async zeroShot(
    images: readonly ImageSource[], labels: readonly string[], options?: ZeroShotOptions,
  ): Promise<Classification[][]>;
  async zeroShot(
    image: ImageSource | readonly ImageSource[], labels: readonly string[], options: ZeroShotOptions = {},
  ): Promise<Classification[] | Classification[][]> {
    const names = rule.texts("labels", labels);
    const given = rule.readOptions<ZeroShotOptions>(options, { template: rule.text });
    return this.#each(image, async (one) => {
      const { image: pixels, transfer } = await postableImage(one, this.info.resizing);
      return this.#timed(this.#engine.call("zeroShot", { image: pixels, labels: names, options: given }, transfer));
    });
  }

  /** One vector of an image: what the classifier's last layer would see. */
  async features(image: ImageSource): Promise<Float32Array> {
    const { image: pixels, transfer } = await postableImage(image, this.info.resizing);
    return this.#timed(this.#engine.call("features", { image: pixels }, transfer));
  }

  /** A vector for each patch of an image (or place of the last feature map): `[rows, columns, length]`. */
  async patches(image: ImageSource): Promise<Tensor> {
    const { image: pixels, transfer } = await postableImage(image, this.info.resizing);
    return this.#timed(this.#engine.call("patches", { image: pixels }, transfer));
  }

  /**
   * How much the model attends to each patch of an image, `[rows, columns]`: of one layer and head, or of all layers
   * together. For transformers in which every patch sees every other (not Swin); see `info.nLayer`.
   */
  async attention(image: ImageSource, options: AttentionOptions = {}): Promise<Tensor> {
    const given = rule.readOptions<AttentionOptions>(options, { layer: rule.count, head: rule.count });
    const { image: pixels, transfer } = await postableImage(image, this.info.resizing);
    return this.#timed(this.#engine.call("attention", { image: pixels, options: given }, transfer));
  }

  /** The vector of an image, of length 1, for {@link similarity}; of several images a list in their order. */
  async embedImage(image: ImageSource): Promise<Float32Array>;
  async embedImage(images: readonly ImageSource[]): Promise<Float32Array[]>;
  async embedImage(image: ImageSource | readonly ImageSource[]): Promise<Float32Array | Float32Array[]> {
    return this.#each(image, async (one) => {
      const { image: pixels, transfer } = await postableImage(one, this.info.resizing);
      return this.#timed(this.#engine.call("embedImage", { image: pixels }, transfer));
    });
  }

  /** The vector of a text, of length 1, for {@link similarity} with images; of several texts a list in their order. */
  async embedText(text: string): Promise<Float32Array>;
  async embedText(texts: readonly string[]): Promise<Float32Array[]>;
  async embedText(text: string | readonly string[]): Promise<Float32Array | Float32Array[]> {
    const texts = rule.textOrTexts("text", text);
    const vectors = await Promise.all(texts.map((one) => this.#timed(this.#engine.call("embedText", { text: one }))));
    return typeof text === "string" ? (vectors[0] as Float32Array) : vectors;
  }

  /** The logits for pixels that are already resized and normalised, channels outermost. */
  async logits(pixels: Float32Array, options: ImageLogitsOptions): Promise<Float32Array> {
    const given = rule.readOptions<ImageLogitsOptions>(options, {
      shape: (key, value) => Array.from(value as readonly number[], (side) => rule.positive(key, side)),
    });
    if (!(pixels instanceof Float32Array)) throw badArgument("pixels", "pixels must be a Float32Array");
    if (!given.shape) throw badArgument("shape", `"shape" is missing: [1, 3, height, width]`);
    // Given away, a copy is posted in half the time that the pixels themselves would take.
    const copy = pixels.slice();
    return this.#timed(this.#engine.call("imageLogits", { pixels: copy, shape: [...given.shape] }, [copy.buffer]));
  }

  /** One result, or one for each of a list. They are asked for one after another: decoded images are large. */
  async #each<T>(given: ImageSource | readonly ImageSource[], work: (image: ImageSource) => Promise<T>): Promise<T | T[]> {
    if (!Array.isArray(given)) return work(given as ImageSource);
    const results: T[] = [];
    for (const image of given as readonly ImageSource[]) results.push(await work(image));
    return results;
  }

  async #timed<T>(call: Promise<Timed<T>>): Promise<T> {
    const { value, ms } = await call;
    this.#imageMs = ms;
    return value;
  }

  /** Ends the worker and frees its memory. Calls under way, and later ones, reject with `Disposed`. */
  async dispose(): Promise<void> {
    forgotten.unregister(this);
    this.#engine.dispose();
  }
}
