/** The types that users of the package see. */
import type { BuildName } from "./features.js";
import type { DownloadOptions } from "./request.js";

/** One file of a model: an address (relative ones resolve against the page), or a file that the user picked. */
export type SourceFile = string | URL | File | Blob;

/**
 * Where a model comes from: an address, a file, bytes in memory, or a stream of bytes.
 *
 * Of a model in several files, the address of any shard (`name-00001-of-00003.gguf`) or of the index
 * (`model.safetensors.index.json`) stands for all of them; a list gives them one by one, in order.
 * `hf:owner/repository/file` (with a revision: `hf:owner/repository@revision/file`) is a file of Hugging Face's
 * hub, whose SHA-256 is checked where the hub tells it.
 */
export type Source = SourceFile | readonly SourceFile[] | ArrayBuffer | ReadableStream<Uint8Array>;

/**
 * A tensor type into which F32, F16 and BF16 weights can be quantized while loading. The
 * runtime knows which there are and names them when it is given another.
 */
export type QuantizeType = "Q8_0" | "Q4_0" | (string & {});

/** Bytes on their way, of all files of the source together; no `total` where it is not known. */
export interface Transfer {
  /** Bytes taken in. */
  loaded: number;
  total?: number;
  /** How many of them were in the cache. */
  cached: number;
  /** Bytes per second, over the last seconds. */
  bytesPerSecond: number;
  /** Seconds until the last byte, as far as can be said. */
  secondsLeft?: number;
  /** Which file of how many. */
  file: number;
  files: number;
}

/** What a load is doing. */
export type Progress =
  /** Bytes arrive, from the network or from the cache. */
  | ({ status: "download" } & Transfer)
  /** Another load, in this tab or another, downloads the same file: this one waits and then reads what it kept. */
  | { status: "wait"; url: string }
  /** A connection broke off or the server is busy: another attempt follows in `waitMs`. */
  | { status: "retry"; url: string; attempt: number; attempts: number; waitMs: number; reason: string }
  /** The file has been checked against its SHA-256. */
  | { status: "verify"; url?: string; sha256: string }
  | { status: "quantize"; tensorsDone: number; tensorsTotal: number }
  | { status: "repack"; tensorsDone: number; tensorsTotal: number }
  /** Something that does not keep the model from loading, such as a full disk: it is not cached then. */
  | { status: "warning"; message: string; url?: string }
  | { status: "ready"; loadMs: number };

/** How downloads are kept for the next visit. */
export interface CacheOptions {
  /** Most bytes that all kept models may take together; the last used ones stay. By default what the browser allows. */
  maxBytes?: number;
  /**
   * Asks the server whether a kept file is still what it has, before it is used. Default true; without a
   * connection, and for files whose `sha256` is given, the kept file is used as it is.
   */
  revalidate?: boolean;
  /**
   * Also keeps the weights as they are held in memory, beside the file: the next load with the same `quantize` reads
   * them instead of quantizing or laying out the file's again. They are the first to go where space is short. Models
   * in one file, in browsers with a private file system. By default with `quantize` only, where it saves the most.
   */
  packed?: boolean;
}

/** Options of every load. */
export interface LoadOptions {
  /**
   * Threads to compute with, 1 to 16. "auto", the default, starts as many as the processor is guessed
   * to have cores, at most 8, and keeps fewer where more turn out not to be faster. Several threads
   * need a page that is cross-origin isolated, or Node; elsewhere there is one. `info.backend` says how many
   * there are and why. Results are the same.
   */
  threads?: "auto" | number;
  /**
   * The build of the runtime; by default the best that runs here. Rejects with
   * `RuntimeUnavailable` where it does not run. For tests and measurements: results are the same.
   */
  build?: BuildName;
  /** Quantizes float weights to this type, tensor by tensor, while they arrive. */
  quantize?: QuantizeType;
  /**
   * Keeps downloaded files for the next visit, and goes on with downloads that ended early. Default true.
   * See {@link cache} for what is kept.
   */
  cache?: boolean | CacheOptions;
  /** How to download. */
  download?: DownloadOptions;
  /**
   * The SHA-256 of the file in hexadecimal; any other content rejects with `IntegrityError`. Of several files
   * a list in their order, or an object from file names to hashes.
   */
  sha256?: string | readonly string[] | Readonly<Record<string, string>>;
  /**
   * The address of a list of hashes, for files that are not named in advance: what `sha256sum` prints, or a JSON object
   * from file names to hashes. A file that it does not list is refused. Not together with `sha256`.
   */
  manifest?: string | URL;
  /** The host of `hf:` addresses. Default "https://huggingface.co". */
  hub?: string;
  /**
   * Bytes of memory that the model may take. A model that would take more rejects with `OutOfMemory` before its
   * weights are downloaded, and says what would fit. By default what the device has, as far as it tells, 8 GiB where
   * it does not; 4 GiB where the engine has no 64-bit memories, 1 GiB on iOS, which ends pages that take more. No
   * engine gives more than 16 GiB.
   */
  memoryLimit?: number;
  /** Aborts the load, which then rejects with an `AbortError`. */
  signal?: AbortSignal;
  /** Hears what the load is doing. Exceptions from it are reported and do not disturb the load. */
  onProgress?: (progress: Progress) => void;
}

/** How a language model's keys and values are held. */
export type KvType = "F32" | "F16" | "Q8_0" | "Q4_0" | (string & {});

/** Options of {@link TextModel.load}. */
export interface TextLoadOptions extends LoadOptions {
  /** Tokens that prompt and answer may have together. Default 2048, or the model's own length if less. */
  contextLength?: number;
  /**
   * How keys and values are held: fewer bits take less memory and are quicker to read in a long context, at a small
   * cost in exactness. Default "F32" where that takes at most 16 MiB, "Q8_0" otherwise.
   */
  kvType?: KvType;
  /** Adapters that change the model: LoRA in GGUF, for the same architecture. */
  lora?: readonly LoraOption[];
  /**
   * A smaller model of the same vocabulary, which guesses tokens ahead where `generate` is asked to be
   * `speculative`. It takes memory beside the model.
   */
  draft?: Source;
}

/** One adapter and how much of it. */
export interface LoraOption {
  source: Source;
  /** Times the adapter's own scale. Default 1. */
  scale?: number;
}

/** A JSON document: an object, an address (relative ones resolve against the page), or a file. */
export type JsonSource = object | string | URL | Blob;

/** Options of {@link VisionModel.load}. */
export interface VisionLoadOptions extends LoadOptions {
  /** Names of the classes, in the order of the model's outputs. Overrides those in the file. */
  labels?: readonly string[];
  /**
   * The `config.json` that belongs to a safetensors file, of Hugging Face or timm: its content, its address, or the
   * file. It says what the tensors do not show: heads, activations, class names. A GGUF file needs none.
   */
  config?: JsonSource;
  /**
   * The `preprocessor_config.json` that belongs to it: how images are resized, cropped and normalised. Without one,
   * what the config says of it (timm), or timm's recipe for ImageNet.
   */
  preprocessor?: JsonSource;
  /** The `tokenizer.json` of a model that reads texts too (CLIP, SigLIP): its content, its address, or the file. */
  tokenizer?: JsonSource;
  /**
   * Types for float tensors whose names fit a pattern, in which `*` stands for any text: the first that fits holds,
   * whatever `quantize` says. Without one, the first and last layers keep at least 8 bits.
   */
  overrides?: Readonly<Record<string, QuantizeType>>;
}

/** What computes. */
export interface Backend {
  /** The build of the runtime. */
  build: BuildName;
  /** Why that build, for people. */
  buildReason: string;
  /** The instruction set that it was compiled for. */
  isa: "simd128" | "relaxed-simd" | (string & {});
  /**
   * How products are formed, as measured on this device when the model was loaded: "p16"
   * and "x16" (plain SIMD), "d16", "d32u" and "d32s" (relaxed dot products), and where they
   * differ, for which weights, and for prompts. Results are the same.
   */
  kernel: string;
  /** Why that way, for people. */
  kernelReason: string;
  threads: number;
  /** Why this many threads, for people. */
  threadsReason: string;
}

/** What a loaded model is. */
export interface ModelInfo {
  architecture: string;
  /** The model's own name, where the file has one. Comes from the file: treat it as hostile text. */
  name?: string;
  /** Number of weights. */
  parameters: number;
  /** Mean bits per weight, as held in memory. */
  bitsPerWeight: number;
  /** Bytes of all weights, as held in memory. */
  weightBytes: number;
  /** Entries of the output: tokens of the vocabulary, or classes. */
  nOutput: number;
  backend: Backend;
  /** How the matrices of each of the file's tensor types are held in memory, such as `{ IQ4_NL: "8-bit codes, a scale per 32" }`. */
  formats: Record<string, string>;
  /** What a user should know: tensors that were ignored or kept in another type. */
  notes: string[];
}

/** What a loaded language model is. */
export interface TextModelInfo extends ModelInfo {
  /** "encoder" for models that make vectors and write no text. */
  kind: "text" | "encoder";
  /** How an encoder makes one vector of a text's, as its file says. */
  pooling?: Pooling;
  /** Tokens that prompt and answer may have together. */
  contextLength: number;
  /** How keys and values are held; empty for encoders. */
  kvType: KvType;
  /** Bytes of the cache of keys and values; 0 for encoders. */
  kvBytes: number;
  /** Where the template of conversations comes from: "model", or "chatml (the file has none)". */
  chatTemplate: string;
}

/** What a loaded classifier is. */
export interface VisionModelInfo extends ModelInfo {
  kind: "vision";
  /** Side of the square that an image is scaled to, in pixels. */
  imageSize: number;
  /** How that is done. */
  resizing: Resizing;
  /** Names of the classes; empty where they are not known, and for models without classes. */
  labels: string[];
  /** Layers whose attention can be shown, and heads of each; 0 where there is none. */
  nLayer: number;
  nHead: number;
  /** Whether pictures can be compared with texts: it has a text tower, and a tokenizer was given. */
  readsTexts: boolean;
}

/** How images are brought to a model's size: resized, then cut to a square around the centre. */
export interface Resizing {
  /** Pixels of the short side, or of both, after resizing. */
  resize: number;
  /** Whether both sides become that, whatever their ratio. */
  stretch: boolean;
  /** Side of the square, in pixels. */
  crop: number;
  /** How far the filter reaches: in pixels of the image where it is enlarged, of the result where it is reduced. */
  support: number;
}

/** Values with their shape, row by row. */
export interface Tensor {
  shape: number[];
  values: Float32Array;
}

/** The samplers, in the order in which they act unless told otherwise. */
export const SAMPLERS = [
  "penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature",
] as const;

/** One of {@link SAMPLERS}. */
export type SamplerName = (typeof SAMPLERS)[number];

/** How to continue a prompt. */
export interface GenerateOptions {
  /** At most so many tokens. Default 256. */
  maxTokens?: number;
  /**
   * Divides the scores; 0 always takes the likeliest token, higher is more varied. At most 100, default 0.8.
   *
   * This and all the samplers below have llama.cpp's meaning and default.
   */
  temperature?: number;
  /** The temperature varies by up to this much with the entropy of the choice. 0 (default) for none. */
  dynatempRange?: number;
  /** How strongly the entropy decides on the temperature. Default 1. */
  dynatempExponent?: number;
  /** Only the so many likeliest tokens; 0 for no limit. Default 40. */
  topK?: number;
  /** Only the likeliest tokens that together have this probability; 1 for no limit. Default 0.95. */
  topP?: number;
  /** Only tokens at least this fraction as likely as the likeliest; 0 for no limit. Default 0.05. */
  minP?: number;
  /** Only the tokens of the most typical surprise that together have this probability; 1 (default) for no limit. */
  typicalP?: number;
  /** Only tokens whose score is at most this many standard deviations below the highest; 0 (default) for no limit. */
  topNSigma?: number;
  /** How often the likeliest tokens are taken out (XTC), 0 to 1. Default 0. */
  xtcProbability?: number;
  /** XTC takes out all tokens of at least this probability but the least likely of them. Default 0.1. */
  xtcThreshold?: number;
  /** Divides the score of recent tokens; 1 (default) for none. */
  repeatPenalty?: number;
  /** How many recent tokens (prompt and text) the penalties look at; -1 for all. Default 64. */
  repeatLastN?: number;
  /** Taken from the score of every recent token. Default 0. */
  presencePenalty?: number;
  /** Taken from the score of a recent token for each time it occurs. Default 0. */
  frequencyPenalty?: number;
  /**
   * Added to the scores of tokens before anything else: an object from token ids to numbers, or a
   * list of pairs of a token id, or a text (which means each of its tokens), and a number, or
   * `false` to rule the token out.
   */
  logitBias?: Readonly<Record<number, number | false>> | readonly (readonly [number | string, number | false])[];
  /** Strength of the penalty for tokens that would extend a repetition (DRY). 0 (default) for none. */
  dryMultiplier?: number;
  /** How that penalty grows: multiplier * base ^ (length of the repetition - allowed length). Default 1.75. */
  dryBase?: number;
  /** Repetitions shorter than this cost nothing. Default 2. */
  dryAllowedLength?: number;
  /** How many recent tokens are searched for repetitions; -1 (default) for all, 0 for no such penalty. */
  dryPenaltyLastN?: number;
  /** Texts at which repetitions end. Default a line feed, ":", "\"" and "*". */
  drySequenceBreakers?: readonly string[];
  /** 2 for Mirostat 2, which replaces the other samplers but the temperature; 0 (default) for none. */
  mirostat?: 0 | 2;
  /** The surprise in bits that Mirostat keeps to. Default 5. */
  mirostatTau?: number;
  /** How fast Mirostat learns. Default 0.1. */
  mirostatEta?: number;
  /** The samplers in the order in which they act; one that is missing does not act. */
  samplers?: readonly SamplerName[];
  /** The same seed gives the same text. By default another one each time; `stats.seed` tells which. */
  seed?: number;
  /**
   * Gives ln of each token's probability, and of this many of the likeliest tokens at its place
   * (0 to 20): under the model's own distribution, before any of the samplers. By default neither.
   */
  logprobs?: number;
  /**
   * Where the context is full, forgets half of it and goes on instead of ending with the reason "context". A
   * prompt that is too long loses tokens in the same place instead of rejecting with `ContextOverflow`. Default false.
   */
  contextShift?: boolean;
  /** With `contextShift`: the first so many tokens are never forgotten; -1 for the whole prompt. Default 0. */
  nKeep?: number;
  /**
   * Guesses several tokens at a time and checks them in one pass: quicker where the text repeats what
   * was there, or with a `draft` model; the text is the same. Default false.
   */
  speculative?: boolean | SpeculationOptions;
  /**
   * A grammar in llama.cpp's format (GBNF) that the text follows: no token that it forbids is chosen,
   * and the text ends when nothing can follow. `maxTokens` may cut it off before.
   */
  grammar?: string;
  /**
   * A JSON Schema (draft 2020-12) that the text follows in the same way. A keyword that is not
   * supported rejects with `GrammarError` and is named in `key`. Not together with `grammar`.
   */
  jsonSchema?: object | boolean;
  /** Goes on after the model's end-of-text token. */
  ignoreEos?: boolean;
  /** Texts that end the answer; they are not part of it. */
  stop?: string | readonly string[];
  /** Puts the model's own start token first. Default true; only for prompts given as text. */
  addSpecial?: boolean;
  /** Reads the text forms of special tokens in the prompt as those tokens. Default false. */
  parseSpecial?: boolean;
  /** Stops the generation, which then throws an `AbortError`. */
  signal?: AbortSignal;
}

/** A token and how probable the model found it. */
export interface TokenLogprob {
  token: number;
  /** The bytes it stands for; not always whole characters. */
  bytes: number[];
  /** ln of its probability, in nats, before any sampler. */
  logprob: number;
}

/** The log-probabilities at one place. */
export interface PieceLogprobs extends TokenLogprob {
  /** The likeliest tokens, the likeliest first, whether or not the chosen one is among them. */
  top: TokenLogprob[];
}

/** How to guess tokens ahead. */
export interface SpeculationOptions {
  /** At most so many at a time, 1 to 16. Default 8. */
  maxDraft?: number;
  /** Without a draft model: look up what followed the last so many tokens, 2 to 16. Default 4. */
  ngram?: number;
  /** With a draft model: it stops at a token of which it is less sure than this. Default 0.4. */
  minP?: number;
}

/** A piece of generated text. */
export interface Piece {
  /**
   * Text to append: whole characters only, so it is empty while the bytes of a character are
   * still incomplete.
   */
  text: string;
  /** The token it came from. Null for text that was held back until the end. */
  token: number | null;
  /** With the option `logprobs`: those of the token. */
  logprobs?: PieceLogprobs;
}

/** Why a generation ended: by the model or a `stop` text, at `maxTokens`, with the context full, or aborted. */
export type FinishReason = "stop" | "length" | "context" | "abort";

/** Figures of the last generation. */
export interface TextStats {
  promptTokens: number;
  /** Tokens of the prompt that were still in the context from the last call and cost nothing. */
  cachedTokens: number;
  /** Tokens that a full context had to forget (`contextShift`). */
  forgottenTokens: number;
  /** Milliseconds from the prompt to the scores of the first new token. */
  promptMs: number;
  /** New tokens. The first of them needs no pass through the model beyond the prompt's. */
  decodeTokens: number;
  /** Milliseconds for all new tokens. */
  decodeMs: number;
  /** Tokens that were guessed ahead. */
  guessedTokens: number;
  /** Guesses that stood. */
  acceptedTokens: number;
  /** Bytes of WebAssembly memory that the model holds. */
  wasmBytes: number;
  /** Start of the random choices; the same seed gives the same text. Null before the first generation. */
  seed: number | null;
  /** Null before the first generation. */
  finishReason: FinishReason | null;
}

/** Figures of the last image. */
export interface VisionStats {
  /** Milliseconds from pixels to answer: resizing and the model, without decoding the file. */
  imageMs: number;
  /** Bytes of WebAssembly memory that the model holds. */
  wasmBytes: number;
}

/** One class and how likely it is. */
export interface Classification {
  index: number;
  /** Name of the class, or "class" and its number where the model has no names. */
  label: string;
  /** Probability, 0 to 1, over all classes. */
  score: number;
  logit: number;
}

/**
 * How the vectors of a text's tokens become one: their mean, that of the first or of the last
 * token, or the scores of a classification head. With "none" all follow one another.
 */
export type Pooling = "none" | "mean" | "cls" | "last" | "rank";

/** Options of {@link TextModel.embed}. */
export interface EmbedOptions {
  /** By default what the file says; else the mean for encoders, the last token for language models. */
  pooling?: Pooling;
  /** Scales vectors to length 1. Default true; scores are never scaled. */
  normalize?: boolean;
}

/** A document's place in what {@link TextModel.rerank} was given, and its score: higher is better. */
export interface Ranked {
  index: number;
  score: number;
}

/** Options of {@link TextModel.perplexity}. */
export interface PerplexityOptions {
  /** Tokens per piece, the start token included; the model's context by default. */
  context?: number;
  /** Keeps the distributions: two bytes per token and entry of the vocabulary. */
  record?: boolean;
  /** The `record` of another model, of the same text, vocabulary and context. */
  against?: Uint8Array;
}

/** What {@link TextModel.perplexity} measured; logarithms are natural. */
export interface Perplexity {
  /** Mean negative log-likelihood per token, in nats. */
  nll: number;
  /** exp(nll). */
  perplexity: number;
  /** Tokens that were scored. */
  tokens: number;
  /** Pieces that the text was cut into. */
  chunks: number;
  /** The distributions, where `record` asked for them. */
  record?: Uint8Array;
  /** How far the distributions are from those of `against`. */
  divergence?: Divergence;
}

/** The Kullback-Leibler divergence of a model's distributions from recorded ones, in nats per token. */
export interface Divergence {
  mean: number;
  standardError: number;
  median: number;
  p99: number;
  max: number;
  /** Share of tokens at which both find the same token likeliest. */
  sameTop: number;
  /** The recorded model's nll. */
  referenceNll: number;
  /** Of each scored token. */
  each: number[];
}

/** Pixels in rows from the top, four bytes each: red, green, blue, alpha. An `ImageData` is one. */
export interface PixelData {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
}

/** Options of {@link VisionModel.attention}. */
export interface AttentionOptions {
  /** The layer, from 0 on. By default all layers together: attention rollout (Abnar and Zuidema 2020). */
  layer?: number;
  /** The head of that layer, from 0 on. By default the mean of all heads. */
  head?: number;
}

/** Options of {@link VisionModel.zeroShot}. */
export interface ZeroShotOptions {
  /** The sentence around a label, in which `{}` stands for it. Default "This is a photo of {}." */
  template?: string;
}

/** Anything that shows an image. Pixels are read at full size and scaled by the runtime. */
export type ImageSource =
  | Blob
  | ImageBitmap
  | ImageData
  | PixelData
  | HTMLImageElement
  | HTMLCanvasElement
  | HTMLVideoElement
  | VideoFrame
  | OffscreenCanvas;

/** A tensor in a model file. */
export interface TensorSummary {
  name: string;
  /** Tensor type, as GGUF names it. */
  type: string;
  /** Dimensions, outermost first. */
  shape: number[];
  bytes: number;
}

/** What the header of a model file says. All strings come from the file: treat them as hostile. */
export interface Inspection {
  container: "gguf" | "safetensors" | "tflite";
  /** What the file can be loaded as; absent where its architecture is not supported. */
  kind?: "text" | "encoder" | "vision";
  /** The architecture that the file names or that its tensors show. */
  architecture?: string;
  parameters: number;
  bitsPerWeight: number;
  weightBytes: number;
  tensors: TensorSummary[];
  /** Metadata; long arrays are given by their length only. */
  metadata: Record<string, unknown>;
}

/** What one type would cost a tensor. */
export interface TypeChoice {
  type: QuantizeType;
  /** Bytes of the tensor. */
  bytes: number;
  /** Bytes that the header takes to tell its shape, where GGUF cannot. */
  shapeBytes: number;
  /** Signal to noise ratio of the weights in dB; absent where nothing is lost. */
  sqnrDb?: number | null;
  /** Largest difference of a weight. */
  maxError: number;
  /** What it is expected to cost the model, in the survey's unit. */
  loss: number;
}

/** A tensor as measured. */
export interface SurveyedTensor {
  /** Its name in the written file. Comes from the file: treat it as hostile text. */
  name: string;
  shape: number[];
  /** Its type in the source. */
  type: string;
  /** Its bytes in the source. */
  bytes: number;
  /** Root mean square of its weights. */
  rms: number;
  /** Largest magnitude. */
  maxAbs: number;
  /** Input channels that stand out: [channel, its root mean square as a multiple of the median one]. */
  outliers: [number, number][];
  /** How much a given share of lost power costs the model, compared with other tensors. */
  sensitivity: number;
  /** What it could become, fewest bytes first; one entry for what is not quantized. */
  choices: TypeChoice[];
}

/** The weights of a file as measured. */
export interface WeightSurvey {
  architecture: string;
  /** Number of weights. */
  parameters: number;
  /** Bytes of the written file beside its tensors. */
  headerBytes: number;
  /** "relative": shares of lost power times sensitivities; "nats": divergence of the model's output. */
  lossUnit: "relative" | "nats";
  tensors: SurveyedTensor[];
}

/** What a plan may cost: one of these. */
export interface QuantizationBudget {
  /** Bytes of the written file, at most. */
  targetBytes?: number;
  /** Bits of all weights per weight, at most. */
  bitsPerWeight?: number;
  /** Expected loss, at most, in the survey's unit; as few bytes as that takes. */
  maxLoss?: number;
}

/** Types for the tensors of a model. May be edited and saved as JSON; tensors it does not name keep 16 bits. */
export interface QuantizationPlan {
  tensors: { name: string; type: QuantizeType; note?: string }[];
  /** Bytes of the file that comes of it. */
  bytes?: number;
  bitsPerWeight?: number;
  expectedLoss?: number;
}

/** A point of the curve of size against expected loss. */
export interface CurvePoint {
  /** Bytes of the file. */
  bytes: number;
  bitsPerWeight: number;
  loss: number;
}

/** What became of a file. */
export interface QuantizationReport {
  /** Bytes of weights in the source. */
  bytesBefore: number;
  /** Bytes of the written file. */
  bytesAfter: number;
  bitsPerWeight: number;
  perTensor: {
    name: string;
    type: QuantizeType;
    /** Its type in the source. */
    from: string;
    shape: number[];
    bytes: number;
    /** Absent where nothing was lost. */
    sqnrDb?: number | null;
    maxError: number;
    /** What is unusual about it. */
    note?: string | null;
  }[];
}

/** The text files that Hugging Face keeps beside a model's weights. */
export interface ModelFiles {
  /** `config.json`. */
  config?: string;
  /** `tokenizer.json`. */
  tokenizer?: string;
  /** `tokenizer_config.json`. */
  tokenizerConfig?: string;
  /** `chat_template.jinja`, where the template has a file of its own. */
  chatTemplate?: string;
  /** What the model is called. */
  name?: string;
}
