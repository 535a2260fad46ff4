import { forgotten, type Engine } from "./engine.js";
import { badArgument } from "./errors.js";
import { postableImage } from "./image.js";
import { loadInto, LOAD_RULES } from "./load.js";
import * as rule from "./options.js";
import type { Timed } from "./protocol.js";
import type {
  Classification, ImageSource, Source, VisionLoadOptions, VisionModelInfo, VisionStats,
} from "./types.js";

const VISION_LOAD_RULES: rule.Rules<VisionLoadOptions> = { ...LOAD_RULES, labels: rule.texts };

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

/** A vision transformer in a worker of its own. */
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
   * Loads a vision transformer from a safetensors or GGUF file.
   *
   * @throws {BitpaneError} with the code of what is wrong with the source, the file or the options.
   */
  static async load(source: Source, options: VisionLoadOptions = {}): Promise<VisionModel> {
    const given = rule.readOptions<VisionLoadOptions>(options, VISION_LOAD_RULES);
    const { quantize, labels } = given;
    const { engine, loaded } = await loadInto("vision", source, given, { quantize, labels });
    return new VisionModel(engine, loaded.info as VisionModelInfo);
  }

  /** Figures of the last image. */
  get stats(): VisionStats {
    return { imageMs: this.#imageMs, wasmBytes: this.#engine.wasmBytes };
  }

  /** The likeliest classes of an image, the likeliest first. */
  async classify(image: ImageSource, options: ClassifyOptions = {}): Promise<Classification[]> {
    const { topK = 5 } = rule.readOptions<ClassifyOptions>(options, { topK: rule.positive });
    const { image: pixels, transfer } = await postableImage(image);
    return this.#timed(this.#engine.call("classify", { image: pixels, topK }, transfer));
  }

  /** The embedding of an image: what the classifier's last layer would see. */
  async features(image: ImageSource): Promise<Float32Array> {
    const { image: pixels, transfer } = await postableImage(image);
    return this.#timed(this.#engine.call("features", { image: pixels }, transfer));
  }

  /** The logits for pixels that are already resized and normalised, channels outermost. */
  async logits(pixels: Float32Array, options: ImageLogitsOptions): Promise<Float32Array> {
    const given = rule.readOptions<ImageLogitsOptions>(options, {
      shape: (key, value) => Array.from(value as readonly number[], (side) => rule.positive(key, side)),
    });
    if (!(pixels instanceof Float32Array)) throw badArgument("pixels", "pixels must be a Float32Array");
    if (!given.shape) throw badArgument("shape", `"shape" is missing: [1, 3, height, width]`);
    return this.#timed(this.#engine.call("imageLogits", { pixels, shape: [...given.shape] }));
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
