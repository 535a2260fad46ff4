/**
 * The package in Node 20 or newer: the same calls, with paths of files as sources. Images are given as
 * pixels, `{ data, width, height }`: Node has no decoder of its own. Programs end although models are
 * loaded, but not while one is at work.
 */
import { readFile, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { pathToFileURL } from "node:url";
import { Worker as Thread } from "node:worker_threads";
import { BitpaneError } from "./errors.js";
import { host } from "./host.js";
import { NodeThread } from "./node-threads.js";
import type { Source } from "./types.js";

export * from "./index.js";

/** A model's worker: the program waits for it while it has calls to answer. */
class NodeWorker extends NodeThread {
  /** Calls without an answer; the first is the greeting, which nobody asks for. */
  #open = 1;

  constructor() {
    super(new Thread(new URL("./node-worker.js", import.meta.url), { execArgv: [] }));
  }

  override postMessage(message: unknown, transfer: Transferable[]): void {
    super.postMessage(message, transfer);
    if ((message as { op?: string }).op !== "cancel") this.#count(1);
  }

  protected override heard(data: { kind?: string }): void {
    if (data.kind === "hello" || data.kind === "result" || data.kind === "failed") this.#count(-1);
    super.heard(data);
  }

  #count(change: number): void {
    this.#open += change;
    if (this.#open > 0) this.thread.ref();
    else this.thread.unref();
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
host.cores = availableParallelism;
host.open = open;
host.readText = (url) => readFile(url, "utf8");
