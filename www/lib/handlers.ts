/** What the worker does for each call. */
import { isFull, type Glue, type WasmEncoder, type WasmText, type WasmValues, type WasmVision } from "./builds.js";
import { BitpaneError } from "./errors.js";
import { readPixels } from "./image.js";
import type { BuildChoice } from "./features.js";
import { loadModel, readHeader, type LoadContext } from "./loading.js";
import type { Calls, Op, Timed, WireImage, WireLoadOptions, WirePixels, WireSource } from "./protocol.js";
import { surveyWeights, writeQuantized } from "./quantizing.js";
import { runEmbedding, runGeneration, runPerplexity, runReranking, wallClock } from "./stepping.js";
import { settleThreads, startAlone, startRuntime, type Threads } from "./threads.js";
import type { QuantizationPlan, Resizing, Tensor, TextModelInfo, VisionModelInfo } from "./types.js";
import type { Context } from "./worker.js";
import { release } from "./release.js";

let glue: Glue | undefined;
let memory: WebAssembly.Memory | undefined;
/** Threads of a runtime that only quantizes. */
let settled: Threads = { n: 1, reason: "" };
let textModel: WasmText | undefined;
let encoder: WasmEncoder | undefined;
let visionModel: WasmVision | undefined;
/** How the vision model's images are resized. */
let resizing: Resizing;

/** 16 MiB. */
const GROWTH_PAGES = 256;

/** Bytes of WebAssembly memory. */
export function wasmBytes(): number {
  return memory?.buffer.byteLength ?? 0;
}

/** Whether the memory cannot grow by what a buffer takes. Nothing runs in the instance for this. */
export function isMemoryFull(): boolean {
  return memory === undefined || isFull(memory, GROWTH_PAGES);
}

/** Frees what is loaded, where the thread goes on without it. */
export function forget(): void {
  for (const model of [textModel, encoder, visionModel]) model?.free();
  textModel = encoder = visionModel = undefined;
}

function text(): WasmText {
  if (textModel) return textModel;
  if (encoder) throw new BitpaneError("UnsupportedArch", "the model is an encoder: it makes vectors and writes no text");
  throw new BitpaneError("BadArgument", "no language model is loaded");
}

/** Whatever reads texts. */
function reader(): WasmText | WasmEncoder {
  return encoder ?? text();
}

function ranker(): WasmEncoder {
  if (encoder) return encoder;
  throw new BitpaneError("UnsupportedArch", "the model is no encoder: documents are scored by one with a classification head");
}

function vision(): WasmVision {
  if (visionModel) return visionModel;
  throw new BitpaneError("BadArgument", "no vision model is loaded");
}

function timed<T>(work: () => T): Timed<T> {
  const start = performance.now();
  const value = work();
  return { value, ms: performance.now() - start };
}

/** Pixels as the runtime takes them: the bytes, and the size with the part that they are of. */
type Pixels = [data: Uint8Array, size: Uint32Array];

async function onPixels<T>(image: WireImage, work: (...pixels: Pixels) => T): Promise<Timed<T>> {
  vision(); // without a model, fail before an image is decoded for nothing
  const pixels = pixelsOf(await readPixels(image, resizing));
  return timed(() => work(...pixels));
}

/** `ImageData` clamps its bytes; the runtime reads them as they are. */
function pixelsOf({ data: { buffer, byteOffset, byteLength }, width, height, part }: WirePixels): Pixels {
  const size = part ? [width, height, part.x, part.y, part.width, part.height] : [width, height];
  return [new Uint8Array(buffer, byteOffset, byteLength), Uint32Array.from(size)];
}

function running(): Glue {
  if (glue) return glue;
  throw new BitpaneError("BadArgument", "no runtime has been started");
}

/** A runtime that only quantizes. */
async function ready(build: BuildChoice): Promise<Glue> {
  const started = await startRuntime(build);
  ({ glue, memory } = started);
  settled = await settleThreads(started);
  return started.glue;
}

/** A tensor as plain data; the runtime's own is freed. */
function tensorOf(values: WasmValues): Tensor {
  try {
    return { shape: Array.from(values.shape), values: values.takeValues() };
  } finally {
    release(values);
  }
}

/** One handler for each call. */
export const HANDLERS: { [K in Op]: (args: Calls[K]["args"], context: Context) => Promise<Calls[K]["result"]> } = {
  async load({ kind, source, build, options, extras, transfer }, context) {
    const start = performance.now();
    const runtime = await startRuntime(build);
    ({ glue, memory } = runtime);
    const shared = { glue, memory: runtime.memory, transfer, maxBytes: runtime.maxBytes, context };
    const model = await loadModel(shared, source, options, extras);
    // By now the engine has replaced its first, quick code by the optimised one, which alone is worth measuring (and
    // which, in a faulty engine, computes otherwise).
    glue.selectPaths();
    const threads = await settleThreads(runtime);
    const loaded = model.kind() === "encoder" ? "text" : model.kind();
    if (loaded !== kind) throw wrongKind(loaded, kind);
    textModel = model.takeText();
    encoder = model.takeEncoder();
    visionModel = model.takeVision();
    if (textModel && extras.draft) await loadDraft(shared, textModel, extras.draft, options);
    if (options.labels) visionModel?.setLabels([...options.labels]);
    const info = (textModel ?? encoder ?? vision()).info() as TextModelInfo | VisionModelInfo;
    if (visionModel) ({ resizing } = info as VisionModelInfo);
    const { build: name, buildReason } = runtime;
    Object.assign(info.backend, { build: name, buildReason, threadsReason: threads.reason });
    const loadMs = performance.now() - start;
    context.send({ kind: "progress", progress: { status: "ready", loadMs } });
    return { info, loadMs };
  },

  async inspect({ source, build, transfer }, context) {
    ({ glue, memory } = await startAlone(build));
    return readHeader({ glue, memory, transfer, maxBytes: Infinity, context }, source);
  },

  async survey({ source, build, options, transfer }, context) {
    return surveyWeights({ glue: await ready(build), memory: memory!, transfer, maxBytes: Infinity, context }, source, options);
  },

  async plan({ survey, budget }) {
    return running().planQuantization(survey, budget) as QuantizationPlan;
  },

  async quantize({ source, build, options, transfer }, context) {
    const glue = build ? await ready(build) : running();
    const written = await writeQuantized({ glue, memory: memory!, transfer, maxBytes: Infinity, context }, source, options);
    return { ...written, threads: settled.n, threadsReason: settled.reason };
  },

  async generate({ prompt, options }, context) {
    return runGeneration(text(), prompt, options, context);
  },

  async saveSession() {
    return text().saveSession();
  },

  async restoreSession({ bytes }) {
    return text().restoreSession(bytes);
  },

  async chatPrompt({ request }) {
    return text().chatText(request, wallClock());
  },

  async tokenize({ text: given, addSpecial, parseSpecial }) {
    return Array.from(reader().tokenize(given, addSpecial, parseSpecial));
  },

  async detokenize({ tokens, removeSpecial, unparseSpecial }) {
    return new TextDecoder().decode(reader().detokenize(tokens, removeSpecial, unparseSpecial));
  },

  async logits({ tokens, last }) {
    const flat = text().logits(tokens, last);
    const n_vocab = flat.length / last;
    return Array.from({ length: last }, (_, row) => flat.slice(row * n_vocab, (row + 1) * n_vocab));
  },

  async embed(args) {
    return runEmbedding(reader(), args);
  },

  async rerank(args) {
    return runReranking(ranker(), args);
  },

  async perplexity(args) {
    return runPerplexity(text(), args);
  },

  async classify({ image, topK }) {
    return onPixels(image, (...pixels) => vision().classify(...pixels, topK));
  },

  async features({ image }) {
    return onPixels(image, (...pixels) => vision().features(...pixels));
  },

  async patches({ image }) {
    return onPixels(image, (...pixels) => tensorOf(vision().patches(...pixels)));
  },

  async attention({ image, options }) {
    return onPixels(image, (...pixels) => tensorOf(vision().attention(...pixels, options)));
  },

  async embedImage({ image }) {
    return onPixels(image, (...pixels) => vision().embedImage(...pixels));
  },

  async embedText({ text: given }) {
    return timed(() => vision().embedText(given));
  },

  async zeroShot({ image, labels, options }) {
    return onPixels(image, (...pixels) => vision().zeroShot(...pixels, labels, options));
  },

  async imageLogits({ pixels, shape }) {
    return timed(() => vision().logits(pixels, Uint32Array.from(shape)));
  },
};

/** Loads the model that guesses for `model`, with as much context. */
async function loadDraft(
  shared: LoadContext, model: WasmText, source: WireSource, options: WireLoadOptions,
): Promise<void> {
  const { contextLength } = model.info() as TextModelInfo;
  const wanted = { contextLength, quantize: options.quantize, kvType: options.kvType, memoryLimit: options.memoryLimit };
  const unhashed = { ...shared, transfer: { ...shared.transfer, sha256: undefined, manifest: undefined } };
  const loaded = await loadModel(unhashed, source, wanted, { lora: [] });
  const draft = loaded.takeText();
  if (!draft) throw wrongKind(loaded.kind(), "text");
  model.setDraft(draft);
}

function wrongKind(is: string, wanted: string): BitpaneError {
  const names: Record<string, string> = { text: "language model", vision: "vision model" };
  const loader = is === "text" ? "TextModel" : "VisionModel";
  const message = `the file holds a ${names[is]}, not a ${names[wanted]}: load it with ${loader}.load`;
  return new BitpaneError("UnsupportedArch", message);
}
