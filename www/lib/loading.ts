/** The worker's loops over the bytes of a model. */
import type { Glue, WasmAdapter, WasmLoaded, WasmLoader } from "./builds.js";
import { BitpaneError } from "./errors.js";
import { openSource, type Opened } from "./fetcher.js";
import type { WireExtras, WireLoadOptions, WireSource } from "./protocol.js";
import type { Inspection, Progress } from "./types.js";
import type { Context } from "./worker.js";

/** Progress is told at most this often. */
const PROGRESS_MS = 50;

/** Reads a source to its end into a model, after the adapters that change it. */
export async function loadModel(
  glue: Glue, source: WireSource, options: WireLoadOptions, extras: WireExtras, context: Context,
): Promise<WasmLoaded> {
  const adapters: { adapter: WasmAdapter; scale: number }[] = [];
  for (const { source, scale } of extras.lora) {
    adapters.push({ adapter: await readInto(glue, source, {}, context, (loader) => loader.finishAdapter()), scale });
  }
  return readInto(glue, source, options, context, (loader) => {
    for (const { adapter, scale } of adapters) loader.adapt(adapter, scale);
    return loader.finish();
  });
}

async function readInto<T>(
  glue: Glue, source: WireSource, options: WireLoadOptions, context: Context, finish: (loader: WasmLoader) => T,
): Promise<T> {
  const { quantize, contextLength, kvType, sha256 } = options;
  // The page ends the whole worker to abort a load, so nothing here listens for it.
  const opened = await openSource(source, new AbortController().signal);
  const loader = new glue.Loader({ quantize, contextLength, kvType }, opened.length, sha256);
  const report = reporter(loader, opened, quantize === undefined ? "repack" : "quantize", context);
  try {
    for await (const chunk of opened.chunks) {
      loader.push(chunk);
      report(chunk.length, false);
    }
    report(0, true);
    return finish(loader);
  } catch (error) {
    throw located(error, opened.url);
  }
}

/** Names the address in an error that the runtime found in its bytes. */
function located(error: unknown, url: string | undefined): unknown {
  if (url !== undefined && typeof error === "object" && error !== null && !(error instanceof Error)) {
    return { ...error, url };
  }
  return error;
}

function reporter(
  loader: WasmLoader, opened: Opened, tensorStatus: "repack" | "quantize", context: Context,
): (bytes: number, last: boolean) => void {
  let loaded = 0;
  let told = 0;
  return (bytes, last) => {
    loaded += bytes;
    const now = performance.now();
    if (!last && now - told < PROGRESS_MS) return;
    told = now;
    const download: Progress = { status: "download", loaded };
    const { expected } = opened;
    if (expected !== undefined && expected >= loaded) download.total = expected;
    context.send({ kind: "progress", progress: download });
    const { tensorsDone, tensorsTotal } = loader.progress() as LoaderProgress;
    if (tensorsTotal > 0) {
      context.send({ kind: "progress", progress: { status: tensorStatus, tensorsDone, tensorsTotal } });
    }
  };
}

interface LoaderProgress {
  tensorsDone: number;
  tensorsTotal: number;
}

/** Reads a source until its header is complete, and no further. */
export async function readHeader(glue: Glue, source: WireSource): Promise<Inspection> {
  const stop = new AbortController();
  const opened = await openSource(source, stop.signal);
  const inspector = new glue.Inspector(opened.length);
  try {
    for await (const chunk of opened.chunks) {
      const found = inspector.push(chunk) as Inspection | undefined;
      if (found) return found;
    }
    inspector.finish();
    throw new BitpaneError("Truncated", "the file ends before its header");
  } catch (error) {
    throw located(error, opened.url);
  } finally {
    stop.abort();
  }
}
