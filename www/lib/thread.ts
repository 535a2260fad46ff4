/** The script of every thread but the first: an instance of its own on the shared memory. */
import { loadGlue, type Glue, type Parts } from "./builds.js";
import type { ThreadOrder, ThreadReport } from "./threads.js";
import { VERSION } from "./version.js";

/** Kernels keep little on the stack; a multiple of the page size. */
const STACK_BYTES = 4 * 65_536;

let started: { glue: Glue; exports: Exports; memory: WebAssembly.Memory } | undefined;

/** What wasm-bindgen adds for threads and leaves out of its types. */
interface Exports {
  /** Frees the stack and the local storage of the thread that calls it. */
  __wbindgen_thread_destroy: () => void;
}

self.onmessage = ({ data }: MessageEvent<ThreadOrder>) => {
  if ("parts" in data) void start(data.parts);
  else work(data.index);
};

async function start({ name, module, memory }: Parts): Promise<void> {
  let report: ThreadReport = { version: VERSION };
  try {
    const glue = await loadGlue(name);
    const exports = glue.initSync({ module, memory, thread_stack_size: STACK_BYTES }) as Exports;
    started = { glue, exports, memory };
  } catch (error) {
    report = { failed: String(error) };
  }
  self.postMessage(report);
}

function work(index: number): void {
  if (!started) return;
  const { glue, exports, memory } = started;
  const brokenAt = glue.poolBrokenAt();
  try {
    glue.poolWork(index); // until the model's worker ends, or sends this one home
    exports.__wbindgen_thread_destroy();
  } catch {
    // A trap. Whoever waits for this thread's work must not wait for ever.
    Atomics.store(new Int32Array(memory.buffer), brokenAt / 4, 1);
  }
  self.close();
}
