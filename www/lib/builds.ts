/** Where each build of the runtime lies in the package. Only the worker loads this. */
import { BitpaneError } from "./errors.js";
import { isWide, withoutThreads, type BuildName, type OneThreadBuild } from "./features.js";
import { withOwnMemory } from "./own-memory.js";
import { VERSION } from "./version.js";

type Exports = typeof import("./runtime/bitpane.js");
/** The functions and classes that every build exports. */
export type Glue = Omit<Exports, "default" | "initSync"> & {
  /** Instantiates the module: for every thread with the memory that they share. */
  initSync: (given: { module: WebAssembly.Module; memory?: WebAssembly.Memory; thread_stack_size?: number }) => object;
};
export type {
  Adapter as WasmAdapter, EncoderModel as WasmEncoder, Generation as WasmGeneration, Loaded as WasmLoaded, Loader as WasmLoader,
  Hasher as WasmHasher, Headers as WasmHeaders, ShardIndex as WasmShardIndex, TextModel as WasmText, Values as WasmValues, VisionModel as WasmVision,
} from "./runtime/bitpane.js";

// Literal URLs: bundlers find the files by reading them. A file serves two builds, for one thread and for
// several: see own-memory.ts.
const FILES: Record<OneThreadBuild, () => URL> = {
  relaxed: () => new URL("./runtime/relaxed.wasm.gz", import.meta.url),
  simd128: () => new URL("./runtime/simd128.wasm.gz", import.meta.url),
  relaxed64: () => new URL("./runtime/relaxed64.wasm.gz", import.meta.url),
};

/** What the thread of a build, the first or a further one, is made of. */
export interface Parts {
  name: BuildName;
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
}

/** What runs in this thread: the JavaScript around a module can start it once. By the size of addresses. */
const started = new Map<boolean, Parts>();

/**
 * Fetches, compiles and starts a build, with a memory that is shared where the build is for several threads. Where
 * models follow each other in one thread the build runs already, with the memory that it got then.
 */
export async function startBuild(name: BuildName, memory: WebAssembly.Memory): Promise<{ glue: Glue; parts: Parts }> {
  const before = started.get(isWide(name));
  if (before) {
    if (before.name === name) return { glue: await loadGlue(name), parts: before };
    throw new BitpaneError("BadArgument", `this thread runs the build ${before.name}, which ${name} cannot replace`, { key: "build" });
  }
  const url = FILES[withoutThreads(name)]();
  const [glue, module] = await Promise.all([loadGlue(name), compile(url, name)]);
  try {
    glue.initSync({ module, memory });
  } catch (cause) {
    if (!(cause instanceof WebAssembly.LinkError)) throw isFull(memory) ? noMemory(memory, cause) : unavailable(url, "does not start", cause);
    const message = "the WebAssembly file belongs to another version of this package";
    throw new BitpaneError("VersionMismatch", message, { url: url.href, cause });
  }
  if (glue.version() !== VERSION) {
    const message = `the WebAssembly file is of version ${glue.version()}, the JavaScript of ${VERSION}`;
    throw new BitpaneError("VersionMismatch", message, { url: url.href });
  }
  const parts = { name, module, memory };
  started.set(isWide(name), parts);
  return { glue, parts };
}

/** Whether a memory cannot grow by so many pages; by default not even by one. */
export function isFull(memory: WebAssembly.Memory, pages = 1): boolean {
  // A 64-bit memory takes what TypeScript's own types do not know yet, and nothing else.
  for (const delta of [pages, BigInt(pages) as unknown as number]) {
    try {
      memory.grow(delta);
      return false;
    } catch (error) {
      if (!(error instanceof TypeError)) return true;
    }
  }
  return true;
}

function noMemory(memory: WebAssembly.Memory, cause: unknown): BitpaneError {
  const available = memory.buffer.byteLength;
  return new BitpaneError("OutOfMemory", `the runtime needs more than the ${available} bytes that it gets to start`, { available, cause });
}

/** The JavaScript around the WebAssembly: one for each size of addresses. */
export function loadGlue(name: BuildName): Promise<Glue> {
  return isWide(name) ? import("./runtime/bitpane64.js") : import("./runtime/bitpane.js");
}

async function compile(url: URL, name: BuildName): Promise<WebAssembly.Module> {
  const response = await fetchWasm(url);
  try {
    const wasm = new Uint8Array(await unpacked(await response.arrayBuffer()));
    return await WebAssembly.compile(name === withoutThreads(name) ? withOwnMemory(wasm) : wasm);
  } catch (cause) {
    const served = response.headers.get("content-type") ?? "no type";
    throw unavailable(url, `does not compile (served as ${served})`, cause);
  }
}

/** The file is gzip; where the server said so in a header, the browser has unpacked it already. */
async function unpacked(bytes: ArrayBuffer): Promise<ArrayBuffer> {
  const [first, second] = new Uint8Array(bytes);
  if (first !== 0x1f || second !== 0x8b) return bytes;
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function fetchWasm(url: URL): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (cause) {
    throw unavailable(url, "cannot be fetched", cause);
  }
  if (!response.ok) throw unavailable(url, `cannot be fetched (HTTP ${response.status})`);
  return response;
}

function unavailable(url: URL, what: string, cause?: unknown): BitpaneError {
  return new BitpaneError("RuntimeUnavailable", `the WebAssembly file ${what}`, { url: url.href, cause });
}
