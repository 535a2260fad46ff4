/** Two precisions of a model side by side on the same input. */
import { badArgument } from "./errors.js";
import * as rule from "./options.js";
import { TextModel } from "./text.js";
import type { Classification, ImageSource, ModelInfo, Source, TextLoadOptions, VisionLoadOptions } from "./types.js";
import { VisionModel } from "./vision.js";

/** One of the two: a source, or a source with the options of its load, such as `{ source, options: { quantize: "Q4_0" } }`. */
export type Compared = Source | { source: Source; options?: TextLoadOptions | VisionLoadOptions };

/** What the two are compared on: a text for language models, or images for classifiers. */
export interface CompareOptions {
  /** A text that both predict, token by token. */
  text?: string;
  /** Tokens per piece of the text, as in {@link TextModel.perplexity}. */
  context?: number;
  /** Images that both classify. */
  images?: readonly ImageSource[];
  /** Aborts the comparison, which then rejects with an `AbortError`. */
  signal?: AbortSignal;
}

/** How far the second model is from the first. */
export interface Comparison {
  /** What each of the two is. */
  info: [ModelInfo, ModelInfo];
  /** Kullback-Leibler divergence of the second from the first, in nats: the mean over tokens or images. */
  meanDivergence: number;
  /** The same of each token of the text that was scored, or of each image. */
  divergence: number[];
  /** Share of tokens or images for which both find the same one likeliest. */
  sameTop: number;
  /** Of a text: both models' perplexities. */
  perplexity?: [number, number];
  /** Of images: both models' five likeliest classes of each. */
  classes?: [Classification[][], Classification[][]];
}

const RULES: rule.Rules<CompareOptions> = {
  text: rule.text,
  context: rule.positive,
  images: rule.listOf((_key, value) => value as ImageSource),
  signal: rule.abortSignal,
};

/** Classes that a comparison of images tells of each. */
const TOP = 5;

/**
 * Runs two precisions of a model on the same text or the same images, one after the other so that only one of them is
 * in memory, and says how far the second is from the first.
 *
 * @throws {BitpaneError} with the code of what is wrong with a source, a file or the options; `BadArgument` where the
 * two are not of one model.
 */
export async function compare(first: Compared, second: Compared, options: CompareOptions): Promise<Comparison> {
  const { text, context, images, signal } = rule.readOptions<CompareOptions>(options, RULES);
  if ((text === undefined) === (images === undefined)) {
    throw badArgument("text", `either "text" or "images" is needed`);
  }
  const sides = [sideOf(first, signal), sideOf(second, signal)] as const;
  return text === undefined ? ofImages(sides, images ?? []) : ofText(sides, text, context);
}

interface Side {
  source: Source;
  options: object;
}

function sideOf(given: Compared, signal: AbortSignal | undefined): Side {
  const isPair = typeof given === "object" && given !== null && "source" in given;
  const { source, options = {} } = isPair ? given : { source: given };
  return { source, options: signal ? { ...options, signal } : options };
}

/** Loads a model, uses it and lets it go. */
async function during<M extends { dispose: () => Promise<void> }, T>(load: Promise<M>, use: (model: M) => Promise<T>): Promise<T> {
  const model = await load;
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

async function ofText(sides: readonly [Side, Side], text: string, context: number | undefined): Promise<Comparison> {
  // Both are cut alike, by the first one's length unless told otherwise.
  const reference = await during(TextModel.load(sides[0].source, sides[0].options), async (model) => {
    const pieces = context ?? model.info.contextLength;
    return { info: model.info, pieces, found: await model.perplexity(text, { context: pieces, record: true }) };
  });
  const { record, perplexity } = reference.found;
  return during(TextModel.load(sides[1].source, sides[1].options), async (model) => {
    const found = await model.perplexity(text, { context: reference.pieces, ...(record && { against: record }) });
    const { mean = 0, each = [], sameTop = 0 } = found.divergence ?? {};
    return {
      info: [reference.info, model.info], meanDivergence: mean, divergence: each, sameTop,
      perplexity: [perplexity, found.perplexity],
    };
  });
}

async function ofImages(sides: readonly [Side, Side], images: readonly ImageSource[]): Promise<Comparison> {
  if (images.length === 0) throw badArgument("images", "the list of images is empty");
  const see = ({ source, options }: Side) => during(VisionModel.load(source, options), async (model) => {
    const seen: Classification[][] = [];
    for (const image of images) seen.push(await model.classify(image, { topK: model.info.nOutput }));
    return { info: model.info as ModelInfo, seen };
  });
  const [a, b] = [await see(sides[0]), await see(sides[1])];
  if (a.info.nOutput !== b.info.nOutput) {
    throw badArgument("source", `the two are not of one model: ${a.info.nOutput} and ${b.info.nOutput} classes`);
  }
  const divergence = a.seen.map((classes, i) => divergenceOf(classes, b.seen[i] ?? []));
  const same = a.seen.filter((classes, i) => classes[0]?.index === b.seen[i]?.[0]?.index).length;
  const likeliest = (seen: Classification[][]) => seen.map((classes) => classes.slice(0, TOP));
  return {
    info: [a.info, b.info],
    meanDivergence: divergence.reduce((sum, d) => sum + d, 0) / divergence.length,
    divergence, sameTop: same / images.length, classes: [likeliest(a.seen), likeliest(b.seen)],
  };
}

/** The divergence of two lists of all classes, from their logits. */
function divergenceOf(a: readonly Classification[], b: readonly Classification[]): number {
  const lnOf = (classes: readonly Classification[]): Map<number, number> => {
    const largest = Math.max(...classes.map(({ logit }) => logit));
    const sum = classes.reduce((total, { logit }) => total + Math.exp(logit - largest), 0);
    return new Map(classes.map(({ index, logit }) => [index, logit - largest - Math.log(sum)]));
  };
  const [p, q] = [lnOf(a), lnOf(b)];
  let total = 0;
  for (const [index, ln] of p) total += Math.exp(ln) * (ln - (q.get(index) ?? Number.NEGATIVE_INFINITY));
  return Math.max(0, total);
}
