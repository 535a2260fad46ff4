/**
 * The worker's work: takes requests one at a time, in order, and answers them.
 *
 * The only message that is not queued is `cancel`: handlers look for it whenever they let
 * the event loop run.
 */
import { BitpaneError, isWireError, toWire, type WireError } from "./errors.js";
import { HANDLERS, isMemoryFull, wasmBytes } from "./handlers.js";
import type { Calls, Op, Reply, Request } from "./protocol.js";
import { VERSION } from "./version.js";

/** What a handler may do besides returning its result. */
export interface Context {
  /** Whether the caller has asked to stop. */
  cancelled: () => boolean;
  /** Tells the caller something before the result. */
  send: (reply: Partial<Reply> & { kind: "progress" | "pieces" }) => void;
}

/** What requests come through: a worker's own scope, or a port. */
export interface Port {
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage: (message: Reply) => void;
}

/**
 * The name of a lock that is held while there are calls. A page hears nothing of a worker that was killed,
 * but it gets the lock then. (Held all the time, it would keep the page out of the back/forward cache.)
 */
const LOCK = `bitpane:worker:${Date.now()}-${Math.random()}`;

/** Work does not wait longer than this for the lock. */
const LOCK_MS = 200;
/** The lock is kept for so long after a call: asking for it takes the browser longer than some calls take. */
const KEEP_LOCK_MS = 100;

let poison: WireError | undefined;

/** Serves the requests that come through a port. Resolves, on `ended`, once the request under way has. */
export function serve(port: Port): { ended: () => Promise<void> } {
  const waiting = new Set<number>();
  const cancelled = new Set<number>();
  let tail = Promise.resolve();
  let isEnded = false;
  let release: (() => void) | undefined;
  let letGo: ReturnType<typeof setTimeout> | undefined;

  /** Resolves once the lock is held and the page knows it; nothing is computed before. */
  const holdLock = (): Promise<void> => new Promise((resolve) => {
    const { locks } = globalThis.navigator ?? {};
    if (!locks) return resolve();
    clearTimeout(letGo);
    // The page, told when it was got, waits for it still.
    if (release) return resolve();
    const done = new Promise<void>((idle) => { release = idle; });
    const held = (): Promise<void> => {
      if (waiting.size > 0) port.postMessage({ kind: "busy" });
      resolve();
      return done;
    };
    locks.request(LOCK, held).catch(() => undefined);
    setTimeout(resolve, LOCK_MS);
  });

  const answer = async (request: Exclude<Request, { op: "cancel" }>): Promise<void> => {
    const { id } = request;
    const context: Context = {
      cancelled: () => isEnded || cancelled.has(id),
      send: (reply) => port.postMessage({ ...reply, id } as Reply),
    };
    try {
      if (poison) throw poison;
      if (isEnded) return;
      const value = await handle(request.op, request.args, context);
      port.postMessage({ kind: "result", id, value, wasmBytes: wasmBytes() });
    } catch (error) {
      port.postMessage({ kind: "failed", id, error: asWire(error) });
    } finally {
      waiting.delete(id);
      cancelled.delete(id);
      if (waiting.size === 0 && release) {
        letGo = setTimeout(() => {
          release?.();
          release = undefined;
        }, KEEP_LOCK_MS);
        // In Node the process need not wait for it.
        (letGo as { unref?: () => void }).unref?.();
      }
    }
  };

  port.onmessage = ({ data }) => {
    if (data.op === "cancel") {
      if (waiting.has(data.id)) cancelled.add(data.id);
      return;
    }
    waiting.add(data.id);
    if (waiting.size === 1) tail = tail.then(holdLock);
    tail = tail.then(() => answer(data));
  };
  port.postMessage({ kind: "hello", version: VERSION, lock: LOCK });
  return {
    ended: () => {
      isEnded = true;
      return tail;
    },
  };
}

function handle<K extends Op>(op: K, args: Calls[K]["args"], context: Context): Promise<Calls[K]["result"]> {
  return HANDLERS[op](args, context);
}

function asWire(error: unknown): WireError {
  if (error instanceof BitpaneError) return toWire(error);
  if (isWireError(error)) return error;
  if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) return poisoned(error);
  return { code: "WorkerCrashed", message: `unexpected failure: ${String(error)}` };
}

/** A trap leaves the instance's memory half written, so nothing may be computed in it again. */
function poisoned(trap: Error): WireError {
  const panic: unknown = (globalThis as Record<string, unknown>)["bitpanePanic"];
  const message = typeof panic === "string" ? panic : `the runtime trapped: ${trap.message}`;
  poison = { code: "InstancePoisoned", message, cause: String(trap) };
  // An allocation that fails ends in a trap without a panic.
  if (typeof panic !== "string" && /unreachable/i.test(trap.message) && isMemoryFull()) {
    const available = wasmBytes();
    const what = `the memory of the runtime cannot grow beyond its ${available} bytes: load a smaller model, or with a shorter context`;
    poison = { code: "OutOfMemory", message: what, available, cause: String(trap) };
  }
  return poison;
}
