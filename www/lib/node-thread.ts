/** The script of every thread but the first in Node: what a browser's worker has and a thread of Node lacks, then the same work. */
import { parentPort } from "node:worker_threads";

const port = parentPort;
if (!port) throw new Error("this script is a worker's");

const scope = {
  onmessage: null as ((event: MessageEvent) => void) | null,
  postMessage: (message: unknown) => port.postMessage(message),
  close: () => port.close(),
};
Object.assign(globalThis, { self: scope });
await import("./thread.js");
port.on("message", (data: unknown) => scope.onmessage?.({ data } as MessageEvent));

export {};
