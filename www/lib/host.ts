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
  /** Starts a further thread of a runtime, in the model's worker. */
  startThread?: () => HostWorker;
  /** Logical cores, where threads share memory although no page is isolated. */
  cores?: () => number;
  /** Resolves once the last worker that was ended makes place for another, where there is but one. */
  whenFree?: () => Promise<void>;
  /** Makes a source of what only this host knows, such as the path of a file; gives others back. */
  open?: (source: Source) => Source | Promise<Source>;
  /** Reads a text from an address that only this host knows. */
  readText?: (url: URL) => Promise<string>;
}

/** The ways of this host. */
export const host: Host = {};
