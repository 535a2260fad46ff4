/**
 * The package in Node 20 or newer: the same calls, with paths of files as sources. Images are given as
 * pixels, `{ data, width, height }`: Node has no decoder of its own. Programs end although models are
 * loaded, but not while one is at work.
 */
import { readFile, stat } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { Worker as Thread } from "node:worker_threads";
import { BitpaneError } from "./errors.js";
import { host, type HostWorker } from "./host.js";
import type { Source } from "./types.js";

export * from "./index.js";

/** A worker thread, as the package uses workers. */
class NodeWorker implements HostWorker {
  onmessage: HostWorker["onmessage"] = null;
  onmessageerror: HostWorker["onmessageerror"] = null;
  onerror: HostWorker["onerror"] = null;
  readonly #thread = new Thread(new URL("./node-worker.js", import.meta.url), { execArgv: [] });
  /** Calls without an answer; the first is the greeting, which nobody asks for. */
  #open = 1;

  constructor() {
    this.#thread.on("message", (data: { kind?: string }) => {
      if (data.kind === "hello" || data.kind === "result" || data.kind === "failed") this.#count(-1);
      this.onmessage?.({ data } as MessageEvent);
    });
    this.#thread.on("messageerror", (data: unknown) => this.onmessageerror?.({ data } as MessageEvent));
    this.#thread.on("error", (error: Error) => {
      this.onerror?.({ message: String(error), error, preventDefault: () => undefined } as unknown as ErrorEvent);
    });
  }

  postMessage(message: unknown, transfer: Transferable[]): void {
    this.#thread.postMessage(message, transfer);
    if ((message as { op?: string }).op !== "cancel") this.#count(1);
  }

  terminate(): void {
    void this.#thread.terminate();
  }

  #count(change: number): void {
    this.#open += change;
    if (this.#open > 0) this.#thread.ref();
    else this.#thread.unref();
  }
}

/** A file's path as its address, once it is known to be there. */
async function open(source: Source): Promise<Source> {
  const isAddress = source instanceof URL ? source.protocol !== "file:" : typeof source !== "string" || /^(https?|data|blob|hf):/.test(source);
  if (isAddress) return source;
  const url = source instanceof URL ? source : String(source).startsWith("file:") ? new URL(String(source)) : pathToFileURL(String(source));
  try {
    if (!(await stat(url)).isFile()) throw new Error("it is a folder");
    return url;
  } catch (cause) {
    throw new BitpaneError("Io", `the file cannot be opened: ${(cause as Error).message}`, { url: url.href, cause });
  }
}

host.startWorker = () => new NodeWorker();
host.open = open;
host.readText = (url) => readFile(url, "utf8");
