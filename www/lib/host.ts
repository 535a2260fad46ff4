/**
 * How a worker comes to be. In a browser's page it is a Worker; what is not such a page (Node, a thread
 * that cannot start workers) puts its own way into {@link host}.
 */
import type { Source } from "./types.js";

/** What the package uses of a worker. */
export interface HostWorker {
  onmessage: ((event: MessageEvent) => void) | null;
  onmessageerror: ((event: MessageEvent) => void) | null;
  onerror: ((event: ErrorEvent) => void) | null;
  postMessage: (message: unknown, transfer: Transferable[]) => void;
  terminate: () => void;
}

/** What a host does in its own way. */
export interface Host {
  /** Starts a model's worker. */
  startWorker?: () => HostWorker;
  /** Makes a source of what only this host knows, such as the path of a file; gives others back. */
  open?: (source: Source) => Source | Promise<Source>;
  /** Reads a text from an address that only this host knows. */
  readText?: (url: URL) => Promise<string>;
}

/** The ways of this host. */
export const host: Host = {};

/** Starts the worker of a model. */
export function startWorker(): HostWorker {
  if (host.startWorker) return host.startWorker();
  const foreign = foreignScript("worker.js");
  return foreign ?? new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "bitpane" });
}

/** Starts the worker of a further thread. */
export function startThreadWorker(): Worker {
  const foreign = foreignScript("thread.js");
  return foreign ?? new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "bitpane thread" });
}

/**
 * A worker of a script that lies on another host than the page, such as a CDN: browsers start none from
 * there, but one of the page's own may import it.
 */
function foreignScript(name: string): Worker | undefined {
  // Not `new URL`: bundlers take that for a file to be copied.
  const script = import.meta.url.replace(/[^/]*$/, name);
  if (!/^https?:/.test(script) || new URL(script).origin === globalThis.location?.origin) return undefined;
  const shim = URL.createObjectURL(new Blob([`import ${JSON.stringify(script)};`], { type: "text/javascript" }));
  return new Worker(shim, { type: "module", name: `bitpane ${name}` });
}
