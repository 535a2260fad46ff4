/** The worker's loops over the bytes of a model that is to be quantized. */
import { BitpaneError } from "./errors.js";
import { filesOf } from "./files.js";
import { contextOf, headerChunks, located, type LoadContext } from "./loading.js";
import type { Calls, WireQuantizeOptions, WireSource, WireSurveyOptions } from "./protocol.js";
import type { CurvePoint, QuantizationReport, WeightSurvey } from "./types.js";

/** Progress is told at most this often. */
const PROGRESS_MS = 50;

/** Reads the one file of a source; `take` gets its chunks from what `start` has made for a file of that length. */
async function pass<S extends { progress: () => unknown }>(
  shared: LoadContext, source: WireSource, start: (length: number | undefined) => S, take: (sink: S, chunk: Uint8Array) => void,
): Promise<{ sink: S; url: string | undefined }> {
  const { signal } = new AbortController();
  const { parts } = await filesOf(shared.glue, source, shared.transfer, (url) => contextOf(shared, url, signal, false));
  const [part, ...more] = parts;
  if (!part || more.length > 0) {
    throw new BitpaneError("BadArgument", "models in several files are quantized by the command line only", { key: "source" });
  }
  const url = part.type === "url" ? part.url : undefined;
  try {
    const length = part.type === "blob" ? part.blob.size : undefined;
    const sink = start(length);
    let loaded = 0;
    let told = 0;
    for await (const chunk of await headerChunks(shared, part, signal)) {
      take(sink, chunk);
      loaded += chunk.length;
      const now = performance.now();
      if (now - told < PROGRESS_MS) continue;
      told = now;
      const { tensorsDone, tensorsTotal } = sink.progress() as { tensorsDone: number; tensorsTotal: number };
      shared.context.send({ kind: "progress", progress: { status: "quantize", tensorsDone, tensorsTotal } });
    }
    return { sink, url };
  } catch (error) {
    throw located(error, url);
  }
}

/** The options that were given: the runtime has its own defaults for those that are missing, not for undefined ones. */
function given(options: object): object {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

/** Measures what each type would cost each tensor of a source. */
export async function surveyWeights(
  shared: LoadContext, source: WireSource, options: WireSurveyOptions,
): Promise<Calls["survey"]["result"]> {
  const { glue } = shared;
  const { sink, url } = await pass(
    shared, source, (length) => new glue.Surveyor(given(options), length), (surveyor, chunk) => surveyor.push(chunk),
  );
  try {
    const survey = sink.finish() as WeightSurvey;
    return { survey, curve: glue.qualityCurve(survey) as CurvePoint[] };
  } catch (error) {
    throw located(error, url);
  }
}

/** Written bytes are gathered to pieces of this size before the browser takes them. */
const BLOB_BYTES = 4 << 20;

/** Writes a quantized file from a source. Finished parts are the browser's to keep, on disk if it likes. */
export async function writeQuantized(
  shared: LoadContext, source: WireSource, options: WireQuantizeOptions,
): Promise<Calls["quantize"]["result"]> {
  const { glue } = shared;
  const parts: Blob[] = [];
  let pieces: Uint8Array<ArrayBuffer>[] = [];
  let held = 0;
  const keep = (piece: Uint8Array, last: boolean): void => {
    if (piece.length > 0) pieces.push(piece as Uint8Array<ArrayBuffer>);
    held += piece.length;
    if (held < BLOB_BYTES && !last) return;
    parts.push(new Blob(pieces));
    pieces = [];
    held = 0;
  };
  const { sink, url } = await pass(
    shared, source, (length) => new glue.Quantizer(given(options), length), (quantizer, chunk) => keep(quantizer.push(chunk), false),
  );
  try {
    const written = sink.finish();
    keep(written.takeBytes(), true);
    return { blob: new Blob(parts, { type: "application/octet-stream" }), report: written.report() as QuantizationReport };
  } catch (error) {
    throw located(error, url);
  }
}
