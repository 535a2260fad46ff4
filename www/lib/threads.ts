/**
 * The runtime with its threads, as the model's worker starts it: a worker for each thread but the
 * first, all with one memory. They end with the worker that started them.
 */
import { startBuild, type Glue, type Parts } from "./builds.js";
import { BitpaneError } from "./errors.js";
import { isWide, withoutThreads, type BuildChoice, type BuildName, type OneThreadBuild } from "./features.js";
import { foreignScript } from "./foreign.js";
import { host, type HostWorker } from "./host.js";
import { VERSION } from "./version.js";

/** A thread that has not said so for this long will not start. */
const START_MS = 10_000;
/**
 * Sizes of memory to ask for, in pages of 64 KiB: what the first pages are is a bit more than a build
 * needs, so that it links; 4 GiB at most, or what a browser grants that refuses to reserve so much. With 64-bit
 * addresses 16 GiB, the most that engines give; no more than 4 would be of no use.
 */
const FIRST_PAGES = 32;
const MAX_PAGES = [65_536, 32_768, 16_384];
const WIDE_MAX_PAGES = [262_144, 196_608, 131_072];
const PAGE_BYTES = 65_536;

/** A started runtime. Its threads start meanwhile: {@link settleThreads} waits for them. */
export interface Runtime {
  glue: Glue;
  memory: WebAssembly.Memory;
  build: BuildName;
  buildReason: string;
  threads: Promise<Threads>;
  isGuess: boolean;
  /** Bytes that the memory can have. */
  maxBytes: number;
}

/** How many threads there are, the first included, and why. */
export interface Threads {
  n: number;
  reason: string;
}

/** What a thread's worker hears: first what to start, then which thread it is. */
export type ThreadOrder = { parts: Parts } | { index: number };
/** What it says: that it has started, or why it did not. */
export type ThreadReport = { version: string } | { failed: string };

/** Starts a build and its threads. Where memory cannot be shared after all, one thread does it. */
export async function startRuntime(choice: BuildChoice): Promise<Runtime> {
  const { name, reason: buildReason, threads, isGuess, threadsReason: reason } = choice;
  const shared = name === withoutThreads(name) ? undefined : newMemory(true, isWide(name));
  if (shared) {
    const { maxBytes } = shared;
    const { glue, parts } = await startBuild(name, shared.memory);
    const { memory } = parts;
    return { glue, memory, build: name, buildReason, threads: startThreads(parts, threads, reason), isGuess, maxBytes };
  }
  const build = withoutThreads(name);
  const { glue, memory, maxBytes } = await startAlone(build);
  const refused = "one thread: this browser grants no shared memory";
  const alone = { n: 1, reason: build === name ? reason : refused };
  return { glue, memory, build, buildReason, threads: Promise.resolve(alone), isGuess: false, maxBytes };
}

/** Starts a build for one thread. */
export async function startAlone(build: OneThreadBuild): Promise<{ glue: Glue; memory: WebAssembly.Memory; maxBytes: number }> {
  const own = newMemory(false, isWide(build));
  if (!own) throw new BitpaneError("OutOfMemory", "the browser grants the runtime no memory: close other tabs");
  const { glue, parts } = await startBuild(build, own.memory);
  return { glue, memory: parts.memory, maxBytes: own.maxBytes };
}

function newMemory(shared: boolean, wide: boolean): { memory: WebAssembly.Memory; maxBytes: number } | undefined {
  for (const maximum of wide ? WIDE_MAX_PAGES : MAX_PAGES) {
    try {
      const memory = wide ? wideMemory(shared, maximum) : new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared });
      return { memory, maxBytes: maximum * PAGE_BYTES };
    } catch {
      // A RangeError: not so much.
    }
  }
  return undefined;
}

/** Waits for the threads and has the runtime use them, or as many of them as are worth while. */
export async function settleThreads({ glue, threads, isGuess }: Runtime): Promise<Threads> {
  const { n: started, reason } = await threads;
  if (started === 1) return { n: 1, reason };
  const n = isGuess ? glue.chooseThreads(started) : glue.setThreads(started);
  return n === started ? { n, reason } : { n, reason: `${started} were tried and not faster` };
}

/** A memory with 64-bit addresses, which TypeScript's own types do not know yet. */
function wideMemory(shared: boolean, maximum: number): WebAssembly.Memory {
  const descriptor = { address: "i64", initial: BigInt(FIRST_PAGES), maximum: BigInt(maximum), shared };
  return new WebAssembly.Memory(descriptor as unknown as WebAssembly.MemoryDescriptor);
}

async function startThreads(parts: Parts, n: number, reason: string): Promise<Threads> {
  const starts = Array.from({ length: n - 1 }, () => startThread(parts));
  const outcomes = await Promise.allSettled(starts);
  const workers = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  workers.forEach((worker, i) => give(worker, { index: i + 1 }));
  const failure = outcomes.find((outcome) => outcome.status === "rejected");
  const started = 1 + workers.length;
  return { n: started, reason: failure ? `${n - started} of ${n} threads do not start: ${String(failure.reason)}` : reason };
}

function startThreadWorker(): HostWorker {
  if (host.startThread) return host.startThread();
  const foreign = foreignScript("thread.js");
  return foreign ?? new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "bitpane thread" });
}

function give(worker: HostWorker, order: ThreadOrder): void {
  worker.postMessage(order, []);
}

/** Starts a worker and waits until it can compute. */
async function startThread(parts: Parts): Promise<HostWorker> {
  const worker = startThreadWorker();
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error("no answer")), START_MS);
      worker.onmessage = ({ data }: MessageEvent<ThreadReport>) => {
        if ("failed" in data) reject(new Error(data.failed));
        else if (data.version !== VERSION) reject(new Error(`the script is of version ${data.version}`));
        else resolve();
      };
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message || "the script cannot be loaded"));
      };
      give(worker, { parts });
    });
    return worker;
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
