/** The page's half of one worker: calls go in, answers come out, a death reaches every caller. */
import { abortError, BitpaneError } from "./errors.js";
import { host, type HostWorker } from "./host.js";
import type { Calls, Op, Reply, Request } from "./protocol.js";
import { startWorker } from "./start-worker.js";
import type { Piece, Progress } from "./types.js";
import { VERSION } from "./version.js";

/** A worker that has not said hello for this long will not. */
const HELLO_MS = 30_000;

/** A worker that has given up its lock has answered before so long. */
const ANSWER_MS = 500;

/** What a call may hear before it ends. */
export interface Listeners {
  onProgress?: ((progress: Progress) => void) | undefined;
  onPieces?: (pieces: Piece[]) => void;
}

interface Pending extends Listeners {
  resolve: (value: never) => void;
  reject: (error: unknown) => void;
}

/** A call under way. */
export interface Call<K extends Op> {
  /** Asks the worker to stop it; `result` then settles after the token, or of a prompt the part of a layer, that it was at. */
  cancel: () => void;
  result: Promise<Calls[K]["result"]>;
}

/** One worker with one instance of the runtime. */
export class Engine {
  readonly #worker: HostWorker;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #dead: BitpaneError | undefined;
  /** What the worker holds while it is busy, and how to stop waiting for it. */
  #lock = "";
  #watch: AbortController | undefined;
  #hello: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  /** Bytes of WebAssembly memory, as of the last answer. */
  wasmBytes = 0;

  private constructor(worker: HostWorker) {
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<Reply>) => this.#hear(data);
    worker.onmessageerror = () => this.#die("WorkerCrashed", "a message from the worker cannot be read");
    worker.onerror = (event) => {
      event.preventDefault();
      // A script that cannot be fetched gives an event without a message.
      this.#die("WorkerCrashed", event.message || "the worker script cannot be loaded");
    };
  }

  /** Starts a worker. An abort while it starts ends it. */
  static async start(signal?: AbortSignal): Promise<Engine> {
    if (signal?.aborted) throw abortError(signal);
    if (!host.startWorker && typeof Worker === "undefined") {
      throw new BitpaneError("RuntimeUnavailable", "there are no workers here: import bitpane/direct, which needs none");
    }
    let engine: Engine;
    try {
      engine = new Engine(startWorker());
    } catch (cause) {
      if (cause instanceof BitpaneError) throw cause;
      throw new BitpaneError("WorkerCrashed", "the worker cannot be started", { cause });
    }
    await engine.during(signal, engine.#greeted());
    return engine;
  }

  #greeted(): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => this.#die("WorkerCrashed", "the worker does not answer"), HELLO_MS);
      const settled = <T extends unknown[]>(settle: (...values: T) => void) => (...values: T): void => {
        clearTimeout(timer);
        this.#hello = undefined;
        settle(...values);
      };
      this.#hello = { resolve: settled(resolve), reject: settled(reject) };
    });
  }

  /** Awaits `work`; an abort meanwhile ends the worker at once, whatever it is doing. */
  async during<T>(signal: AbortSignal | undefined, work: Promise<T>): Promise<T> {
    if (!signal) return work;
    let onAbort: () => void = () => undefined;
    const aborted = new Promise<never>((_, reject) => {
      onAbort = () => {
        reject(abortError(signal));
        work.catch(() => undefined);
        this.dispose();
      };
      signal.addEventListener("abort", onAbort, { once: true });
    });
    if (signal.aborted) onAbort();
    try {
      return await Promise.race([work, aborted]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Sends a call. Calls are served one after the other, in the order in which they were sent. */
  begin<K extends Op>(op: K, args: Calls[K]["args"], transfer: Transferable[] = [], listeners: Listeners = {}): Call<K> {
    const id = ++this.#lastId;
    const result = new Promise<Calls[K]["result"]>((resolve, reject) => {
      if (this.#dead) throw this.#dead;
      this.#pending.set(id, { resolve, reject, ...listeners });
      this.#post({ op, id, args } as Request, transfer);
    });
    const cancel = (): void => {
      if (this.#pending.has(id)) this.#post({ op: "cancel", id }, []);
    };
    return { cancel, result };
  }

  /** Sends a call and awaits its result. */
  call<K extends Op>(op: K, args: Calls[K]["args"], transfer: Transferable[] = [], listeners: Listeners = {}): Promise<Calls[K]["result"]> {
    return this.begin(op, args, transfer, listeners).result;
  }

  /** Ends the worker and frees its memory. Calls under way reject with `Disposed`. */
  dispose(): void {
    this.#die("Disposed", "the model has been disposed");
  }

  #post(request: Request, transfer: Transferable[]): void {
    try {
      this.#worker.postMessage(request, transfer);
    } catch (cause) {
      if (request.op !== "cancel") this.#pending.delete(request.id);
      throw new BitpaneError("BadArgument", "an argument cannot be sent to the worker", { cause });
    }
  }

  #hear(reply: Reply): void {
    if (reply.kind === "hello") return this.#greet(reply.version, reply.lock);
    if (reply.kind === "busy") return this.#watchOver();
    const call = this.#pending.get(reply.id);
    if (!call) return;
    switch (reply.kind) {
      case "progress":
        return report(call, reply.progress);
      case "pieces":
        return call.onPieces?.(reply.pieces);
      case "result":
        this.#pending.delete(reply.id);
        this.wasmBytes = reply.wasmBytes;
        call.resolve(reply.value as never);
        return;
      case "failed": {
        const error = BitpaneError.from(reply.error);
        this.#pending.delete(reply.id);
        call.reject(error);
        // After a trap the instance's memory cannot be trusted: nothing may run in it again.
        if (error.code === "InstancePoisoned" || isTrap(error)) this.#end(error);
      }
    }
  }

  /**
   * Waits for the lock that the worker holds since now and as long as calls follow each other: whoever dies gives up
   * all locks.
   */
  #watchOver(): void {
    this.#watch?.abort();
    const watch = new AbortController();
    this.#watch = watch;
    const free = (): void => {
      if (this.#watch === watch) this.#watch = undefined;
      const underWay = [...this.#pending.keys()];
      // It may only have become idle, with its last answer still on the way, or a later call there already.
      setTimeout(() => {
        const waits = !watch.signal.aborted && !this.#watch && underWay.some((id) => this.#pending.has(id));
        if (waits) this.#die("WorkerCrashed", "the worker has been ended");
      }, ANSWER_MS);
    };
    navigator.locks.request(this.#lock, { signal: watch.signal }, free).catch(() => undefined);
  }

  #greet(version: string, lock: string): void {
    this.#lock = lock;
    if (version === VERSION) this.#hello?.resolve();
    else this.#die("VersionMismatch", `the worker script is of version ${version}, the package of ${VERSION}`);
  }

  #die(code: "WorkerCrashed" | "VersionMismatch" | "Disposed", message: string): void {
    this.#end(new BitpaneError(code, message));
  }

  #end(error: BitpaneError): void {
    if (this.#dead) return;
    this.#dead = error;
    this.#worker.terminate();
    this.#watch?.abort();
    this.#hello?.reject(error);
    for (const call of this.#pending.values()) call.reject(error);
    this.#pending.clear();
    this.wasmBytes = 0;
  }
}

/** Memory that could not grow in the middle of a computation, rather than a model found too large beforehand. */
function isTrap(error: BitpaneError): boolean {
  return error.code === "OutOfMemory" && error.needed === undefined && error.available !== undefined;
}

function report(call: Pending, progress: Progress): void {
  try {
    call.onProgress?.(progress);
  } catch (error) {
    // The listener is the caller's: its fault is shown once and must not end the load.
    call.onProgress = undefined;
    globalThis.reportError?.(error);
  }
}

/** Ends the workers of models that were dropped without `dispose()`. */
export const forgotten = new FinalizationRegistry<Engine>((engine) => engine.dispose());
