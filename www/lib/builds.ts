/** Where each build of the runtime lies in the package. Only the worker loads this. */
import { BitpaneError } from "./errors.js";
import type { BuildName } from "./features.js";
import { VERSION } from "./version.js";

type Exports = typeof import("./simd128/bitpane.js");
/** The functions and classes that a build exports: the same for every build. */
export type Glue = Omit<Exports, "default" | "initSync"> & {
  /** Instantiates the module: for every thread with the memory that they share. */
  initSync: (given: { module: WebAssembly.Module; memory?: WebAssembly.Memory; thread_stack_size?: number }) => object;
};
export type {
  Adapter as WasmAdapter, EncoderModel as WasmEncoder, Generation as WasmGeneration, Loaded as WasmLoaded, Loader as WasmLoader,
  Hasher as WasmHasher, ShardIndex as WasmShardIndex, TextModel as WasmText, Values as WasmValues, VisionModel as WasmVision,
} from "./simd128/bitpane.js";

// Literal specifiers and literal URLs: bundlers find the files by reading them.
const FILES: Record<BuildName, { glue: () => Promise<Glue>; wasm: () => URL }> = {
  relaxed: {
    glue: () => import("./relaxed/bitpane.js"),
    wasm: () => new URL("./relaxed/bitpane_bg.wasm.gz", import.meta.url),
  },
  "relaxed-threads": {
    glue: () => import("./relaxed-threads/bitpane.js"),
    wasm: () => new URL("./relaxed-threads/bitpane_bg.wasm.gz", import.meta.url),
  },
  "simd128-threads": {
    glue: () => import("./simd128-threads/bitpane.js"),
    wasm: () => new URL("./simd128-threads/bitpane_bg.wasm.gz", import.meta.url),
  },
  simd128: {
    glue: () => import("./simd128/bitpane.js"),
    wasm: () => new URL("./simd128/bitpane_bg.wasm.gz", import.meta.url),
  },
};

/** What the thread of a build, the first or a further one, is made of. */
export interface Parts {
  name: BuildName;
  module: WebAssembly.Module;
  /** The memory of all threads, for builds with several. */
  memory: WebAssembly.Memory | undefined;
}

/** Fetches, compiles and starts a build. */
export async function startBuild(
  name: BuildName, shared?: WebAssembly.Memory,
): Promise<{ glue: Glue; parts: Parts; memory: WebAssembly.Memory }> {
  const url = FILES[name].wasm();
  const [glue, module] = await Promise.all([glueOf(name), compile(url)]);
  let exports: { memory?: WebAssembly.Memory };
  try {
    exports = glue.initSync({ module, ...(shared && { memory: shared }) });
  } catch (cause) {
    if (!(cause instanceof WebAssembly.LinkError)) throw unavailable(url, "does not start", cause);
    const message = "the WebAssembly file belongs to another version of this package";
    throw new BitpaneError("VersionMismatch", message, { url: url.href, cause });
  }
  if (glue.version() !== VERSION) {
    const message = `the WebAssembly file is of version ${glue.version()}, the JavaScript of ${VERSION}`;
    throw new BitpaneError("VersionMismatch", message, { url: url.href });
  }
  const memory = shared ?? exports.memory!;
  return { glue, parts: { name, module, memory: shared }, memory };
}

/** The JavaScript of a build. */
export function glueOf(name: BuildName): Promise<Glue> {
  return FILES[name].glue();
}

async function compile(url: URL): Promise<WebAssembly.Module> {
  const response = await fetchWasm(url);
  try {
    return await WebAssembly.compile(await unpacked(await response.arrayBuffer()));
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
