/** Every message that passes between the page and its worker. */
import type { WireError } from "./errors.js";
import type { BuildChoice, OneThreadBuild } from "./features.js";
import type { DownloadOptions } from "./request.js";
import type {
  AttentionOptions, Classification, CurvePoint, EmbedOptions, FinishReason, GenerateOptions, Inspection, ModelFiles, Perplexity, PerplexityOptions, Piece, PixelData,
  Progress, QuantizationBudget, QuantizationPlan, QuantizationReport, SpeculationOptions, Tensor, TextModelInfo, VisionModelInfo,
  WeightSurvey, ZeroShotOptions,
} from "./types.js";

/** A file in a form that can be posted. */
export type WirePart =
  | { type: "url"; url: string }
  /** A file of the hub: `owner/repository/path`, or `owner/repository@revision/path`. */
  | { type: "hub"; path: string }
  | { type: "blob"; blob: Blob; name: string }
  /** A stream that stays in the page: the worker asks for each chunk (see {@link PullRequest}). */
  | { type: "port"; port: MessagePort };

/** A source in a form that can be posted. One file that is no list may stand for others of its name. */
export interface WireSource {
  parts: WirePart[];
  isList: boolean;
}

/** How to keep what is downloaded. */
export interface WireCache {
  /** Most bytes of all files together. */
  maxBytes?: number | undefined;
  /** Whether to ask the server if a kept file is still what it has. */
  revalidate: boolean;
  /** Whether to keep the weights as they are held, too. */
  packed: boolean;
}

/** How to get bytes. */
export interface WireTransfer {
  /** Undefined: nothing is kept. */
  cache: WireCache | undefined;
  download: Required<DownloadOptions>;
  /** Of one file, of each file of a list, or by name. */
  sha256: string | string[] | Record<string, string> | undefined;
  /** Where the hashes by name are. */
  manifest?: string | undefined;
  /** Where `hf:` addresses lead. */
  hub: string;
}

/** Worker to page, over the port of a stream. */
export type PullRequest = "pull" | "cancel";
/** Page to worker, over the port of a stream: one answer to each `pull`. */
export type PullReply = { bytes: Uint8Array } | { done: true } | { failed: string };

/** A rectangle of an image, in pixels from its upper left corner. */
export interface Region {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Decoded pixels of an image of that size, or where there is a part, of that alone. */
export interface WirePixels extends PixelData {
  part?: Region;
}

/** An image in a form that can be posted: encoded, or decoded pixels. */
export type WireImage = Blob | ImageBitmap | WirePixels;

/** Load options as WebAssembly takes them, and those that the worker itself uses. */
export interface WireLoadOptions {
  quantize?: string | undefined;
  contextLength?: number | undefined;
  kvType?: string | undefined;
  /** Bytes that the model may take. */
  memoryLimit?: number | undefined;
  labels?: readonly string[] | undefined;
  config?: string | undefined;
  preprocessor?: string | undefined;
  tokenizer?: string | undefined;
  overrides?: string[] | undefined;
}

/** What is loaded beside a language model. */
export interface WireExtras {
  lora: { source: WireSource; scale: number }[];
  draft?: WireSource | undefined;
}

/** A text, token ids, or a conversation: the JSON that the runtime reads as `ChatRequest`. */
export type WirePrompt = string | Uint32Array | { chat: string };

/** Generation options without what stays in the page. */
export type WireGenerateOptions = Omit<GenerateOptions, "signal" | "stop" | "speculative"> & {
  stop?: string[];
  speculative?: SpeculationOptions | undefined;
};

/** What a generation reports when it ends. */
export interface GenerateResult {
  promptTokens: number;
  cachedTokens: number;
  forgottenTokens: number;
  promptMs: number;
  decodeTokens: number;
  decodeMs: number;
  seed: number | null;
  guessedTokens: number;
  acceptedTokens: number;
  finishReason: FinishReason;
}

/** A result together with the milliseconds of computing it took. */
export interface Timed<T> {
  value: T;
  ms: number;
}

/** What a pass over a file to quantize it needs to know. */
export interface WireSurveyOptions {
  files?: ModelFiles | undefined;
  allowNonfinite?: boolean | undefined;
  types?: string[] | undefined;
}

/** What is to be written, and how. */
export interface WireQuantizeOptions {
  type?: string | undefined;
  plan?: QuantizationPlan | undefined;
  allowRequantize?: boolean | undefined;
  nearest?: boolean | undefined;
  files?: ModelFiles | undefined;
  allowNonfinite?: boolean | undefined;
}

/** Every call: its arguments and its result. */
export interface Calls {
  load:
    | { args: {
          kind: "text" | "vision"; source: WireSource; build: BuildChoice; options: WireLoadOptions; extras: WireExtras;
          transfer: WireTransfer;
        };
        result: { info: TextModelInfo | VisionModelInfo; loadMs: number } };
  inspect: { args: { source: WireSource; build: OneThreadBuild; transfer: WireTransfer }; result: Inspection };
  survey: {
    args: { source: WireSource; build: BuildChoice; options: WireSurveyOptions; transfer: WireTransfer };
    result: { survey: WeightSurvey; curve: CurvePoint[] };
  };
  plan: { args: { survey: WeightSurvey; budget: QuantizationBudget }; result: QuantizationPlan };
  /** Without a build, in the runtime that runs already. */
  quantize: {
    args: { source: WireSource; build?: BuildChoice; options: WireQuantizeOptions; transfer: WireTransfer };
    result: { blob: Blob; report: QuantizationReport; threads: number; threadsReason: string };
  };
  generate: { args: { prompt: WirePrompt; options: WireGenerateOptions }; result: GenerateResult };
  saveSession: { args: Record<string, never>; result: Uint8Array };
  restoreSession: { args: { bytes: Uint8Array }; result: number };
  chatPrompt: { args: { request: string }; result: string };
  tokenize: { args: { text: string; addSpecial: boolean; parseSpecial: boolean }; result: number[] };
  detokenize: { args: { tokens: Uint32Array; removeSpecial: boolean; unparseSpecial: boolean }; result: string };
  logits: { args: { tokens: Uint32Array; last: number }; result: Float32Array[] };
  embed: { args: { texts: (string | Uint32Array)[]; options: EmbedOptions }; result: Float32Array[] };
  rerank: { args: { query: string; documents: string[] }; result: number[] };
  perplexity: { args: { text: string } & PerplexityOptions; result: Perplexity };
  classify: { args: { image: WireImage; topK: number }; result: Timed<Classification[]> };
  features: { args: { image: WireImage }; result: Timed<Float32Array> };
  patches: { args: { image: WireImage }; result: Timed<Tensor> };
  attention: { args: { image: WireImage; options: AttentionOptions }; result: Timed<Tensor> };
  embedImage: { args: { image: WireImage }; result: Timed<Float32Array> };
  embedText: { args: { text: string }; result: Timed<Float32Array> };
  zeroShot: {
    args: { image: WireImage; labels: string[]; options: ZeroShotOptions }; result: Timed<Classification[]>;
  };
  imageLogits: { args: { pixels: Float32Array; shape: number[] }; result: Timed<Float32Array> };
}

/** The name of a call. */
export type Op = keyof Calls;

/** Page to worker. */
export type Request = { [K in Op]: { op: K; id: number; args: Calls[K]["args"] } }[Op] | { op: "cancel"; id: number };

/** Worker to page. */
export type Reply =
  /** The first message of every worker: it runs, and of which version it is. */
  | { kind: "hello"; version: string; lock: string }
  /** It holds the lock now, which it gives up when it has nothing to do: or when it dies. */
  | { kind: "busy" }
  | { kind: "progress"; id: number; progress: Progress }
  | { kind: "pieces"; id: number; pieces: Piece[] }
  | { kind: "result"; id: number; value: Calls[Op]["result"]; wasmBytes: number }
  | { kind: "failed"; id: number; error: WireError };
