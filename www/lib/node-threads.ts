/** Worker threads of Node, as the package uses workers. */
import type { Worker as Thread } from "node:worker_threads";
import type { HostWorker } from "./host.js";

/** A worker thread with the events of a browser's worker. */
export class NodeThread implements HostWorker {
  onmessage: HostWorker["onmessage"] = null;
  onmessageerror: HostWorker["onmessageerror"] = null;
  onerror: HostWorker["onerror"] = null;
  protected readonly thread: Thread;

  constructor(thread: Thread) {
    this.thread = thread;
    this.thread.on("message", (data: unknown) => this.heard(data));
    this.thread.on("messageerror", (data: unknown) => this.onmessageerror?.({ data } as MessageEvent));
    this.thread.on("error", (error: Error) => {
      this.onerror?.({ message: String(error), error, preventDefault: () => undefined } as unknown as ErrorEvent);
    });
  }

  postMessage(message: unknown, transfer: Transferable[]): void {
    this.thread.postMessage(message, transfer);
  }

  terminate(): void {
    void this.thread.terminate();
  }

  protected heard(data: unknown): void {
    this.onmessage?.({ data } as MessageEvent);
  }
}
