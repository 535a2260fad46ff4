/** The worker's loops over the bytes of a model that is to be quantized. */
import type { WasmHeaders } from "./builds.js";
import { BitpaneError } from "./errors.js";
import { filesOf, type FilePart, type Files } from "./files.js";
import { contextOf, headerChunks, located, type LoadContext } from "./loading.js";
import type { Calls, WireQuantizeOptions, WireSource, WireSurveyOptions } from "./protocol.js";
import type { CurvePoint, QuantizationReport, WeightSurvey } from "./types.js";

/** Progress is told at most this often. */
const PROGRESS_MS = 50;

/** What takes the bytes of a pass. */
interface PassSink {
  progress: () => unknown;
  nextFile: (length: number | undefined) => unknown;
}

/** Reads the headers of all files, and no further. */
async function headersOf(shared: LoadContext, { parts, index }: Files): Promise<WasmHeaders> {
  const headers = new shared.glue.Headers(index);
  for (const part of parts) {
    const stop = new AbortController();
    try {
      headers.nextFile(lengthOf(part));
      let isComplete = false;
      for await (const chunk of await headerChunks(shared, part, stop.signal)) {
        isComplete = headers.push(chunk);
        if (isComplete) break;
      }
      if (!isComplete) headers.endFile();
    } catch (error) {
      throw located(error, addressOf(part));
    } finally {
      stop.abort();
    }
  }
  return headers;
}

function lengthOf(part: FilePart): number | undefined {
  return part.type === "blob" ? part.blob.size : undefined;
}

function addressOf(part: FilePart): string | undefined {
  return part.type === "url" ? part.url : undefined;
}

/**
 * Reads the files of a source; `take` gets their chunks from what `start` has made for one file of that length, or for
 * several with these headers, and `begin` what the start of another file gives.
 */
async function pass<S extends PassSink>(
  shared: LoadContext, source: WireSource, start: (length: number | undefined, headers?: WasmHeaders) => S,
  take: (sink: S, chunk: Uint8Array) => void, begin: (sink: S, length: number | undefined) => void,
): Promise<{ sink: S; url: string | undefined }> {
  const { signal } = new AbortController();
  const files = await filesOf(shared.glue, source, shared.transfer, (url) => contextOf(shared, url, signal, false));
  const [first, ...more] = files.parts;
  if (!first) throw new BitpaneError("BadArgument", "no file with weights is given", { key: "source" });
  const hasMore = more.length > 0;
  const headers = hasMore ? await headersOf(shared, files) : undefined;
  let url = addressOf(first);
  try {
    const sink = start(hasMore ? undefined : lengthOf(first), headers);
    let told = 0;
    for (const part of files.parts) {
      url = addressOf(part);
      if (hasMore) begin(sink, lengthOf(part));
      for await (const chunk of await headerChunks(shared, part, signal)) {
        take(sink, chunk);
        const now = performance.now();
        if (now - told < PROGRESS_MS) continue;
        told = now;
        const { tensorsDone, tensorsTotal } = sink.progress() as { tensorsDone: number; tensorsTotal: number };
        shared.context.send({ kind: "progress", progress: { status: "quantize", tensorsDone, tensorsTotal } });
      }
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
    shared, source, (length, headers) => new glue.Surveyor(given(options), length, headers),
    (surveyor, chunk) => surveyor.push(chunk), (surveyor, length) => surveyor.nextFile(length),
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
): Promise<Omit<Calls["quantize"]["result"], "threads" | "threadsReason">> {
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
    shared, source, (length, headers) => new glue.Quantizer(given(options), length, headers),
    (quantizer, chunk) => keep(quantizer.push(chunk), false), (quantizer, length) => keep(quantizer.nextFile(length), false),
  );
  try {
    const written = sink.finish();
    keep(written.takeBytes(), true);
    return { blob: new Blob(parts, { type: "application/octet-stream" }), report: written.report() as QuantizationReport };
  } catch (error) {
    throw located(error, url);
  }
}
