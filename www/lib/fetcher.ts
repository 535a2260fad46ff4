/**
 * The worker's half of reading files that are no downloads: a file on disk, a stream in the page.
 *
 * The next chunk is asked for only when the last one has been taken in, so that nothing piles up in memory.
 */
import { abortError, BitpaneError } from "./errors.js";
import type { PullReply, PullRequest } from "./protocol.js";

export async function* readBlob(blob: Blob, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = blob.stream().getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (signal.aborted) throw abortError(signal);
      if (done) return;
      yield value;
    }
  } catch (cause) {
    // A file on disk can be changed or removed while it is read.
    if (!(cause instanceof DOMException) || cause.name === "AbortError") throw cause;
    throw new BitpaneError("Io", "the file cannot be read", { cause });
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

export async function* readPort(port: MessagePort, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const ask = (request: PullRequest): void => port.postMessage(request);
  try {
    for (;;) {
      const reply = await new Promise<PullReply>((resolve) => {
        port.onmessage = ({ data }: MessageEvent<PullReply>) => resolve(data);
        ask("pull");
      });
      if (signal.aborted) throw abortError(signal);
      if ("done" in reply) return;
      if ("failed" in reply) throw new BitpaneError("Io", `the stream failed: ${reply.failed}`);
      yield reply.bytes;
    }
  } finally {
    ask("cancel");
    port.close();
  }
}
