/**
 * The worker's half of reading a model: a source as chunks, one at a time.
 *
 * The next chunk is asked for only when the last one has been taken in, so the network or
 * the disk waits for the runtime and nothing piles up in memory. How many bytes a model has
 * is for its own header to say: Content-Length counts compressed bytes where the server
 * compresses, and is otherwise only good for a progress bar.
 */
import { abortError, BitpaneError } from "./errors.js";
import type { PullReply, PullRequest, WireSource } from "./protocol.js";

/** An opened source. */
export interface Opened {
  /** Length of the file, where it is certain. */
  length: number | undefined;
  /** Length of the file as the server tells it: an estimate. */
  expected: number | undefined;
  /** The address, for error messages. */
  url: string | undefined;
  chunks: AsyncIterable<Uint8Array>;
}

/** A download on which no byte arrives for this long has stalled. */
const STALL_MS = 30_000;

/** Opens a source. The signal ends the opening and the reading. */
export async function openSource(source: WireSource, signal: AbortSignal): Promise<Opened> {
  switch (source.type) {
    case "blob": {
      const length = source.blob.size;
      return { length, expected: length, url: undefined, chunks: readBlob(source.blob, signal) };
    }
    case "port":
      return { length: undefined, expected: undefined, url: undefined, chunks: readPort(source.port, signal) };
    case "url":
      return openUrl(source.url, signal);
  }
}

async function openUrl(url: string, signal: AbortSignal): Promise<Opened> {
  let response: Response;
  try {
    response = await unlessStalled(fetch(url, { signal }), url);
  } catch (cause) {
    throw networkError(url, cause, signal);
  }
  if (!response.ok) {
    await response.body?.cancel();
    const message = `the server answered ${response.status} ${response.statusText}`.trimEnd();
    throw new BitpaneError("HttpStatus", message, { url, status: response.status });
  }
  if (!response.body) throw new BitpaneError("NetworkError", "the answer has no body", { url });
  return {
    length: undefined,
    expected: announcedLength(response.headers),
    url,
    chunks: readBody(response.body, url, signal),
  };
}

function announcedLength(headers: Headers): number | undefined {
  if (headers.has("content-encoding")) return undefined;
  const length = Number(headers.get("content-length"));
  return Number.isSafeInteger(length) && length > 0 ? length : undefined;
}

/** The browser hides why a request failed, so the message lists what it can be. */
function networkError(url: string, cause: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return abortError(signal);
  if (cause instanceof BitpaneError) return cause;
  const causes = [
    "no connection", "an unknown host", "a server that does not allow this origin (CORS)",
    "an http: address on an https: page", "the page's own Content-Security-Policy",
  ];
  const message = `the request failed before an answer came; possible causes: ${causes.join(", ")}`;
  return new BitpaneError("NetworkError", message, { url, cause });
}

async function* readBody(
  body: ReadableStream<Uint8Array>, url: string, signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  let loaded = 0;
  try {
    for (;;) {
      const { done, value } = await unlessStalled(reader.read(), url);
      if (done) return;
      loaded += value.length;
      yield value;
    }
  } catch (cause) {
    if (signal.aborted) throw abortError(signal);
    if (cause instanceof TypeError) {
      throw new BitpaneError("Truncated", `the connection ended after ${loaded} bytes`, { url, cause });
    }
    throw cause;
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function* readBlob(blob: Blob, signal: AbortSignal): AsyncGenerator<Uint8Array> {
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

async function* readPort(port: MessagePort, signal: AbortSignal): AsyncGenerator<Uint8Array> {
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

async function unlessStalled<T>(step: Promise<T>, url: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stalled = new Promise<never>((_, reject) => {
    const message = `no byte arrived for ${STALL_MS / 1000} seconds`;
    timer = setTimeout(() => reject(new BitpaneError("Stalled", message, { url })), STALL_MS);
  });
  try {
    return await Promise.race([step, stalled]);
  } finally {
    clearTimeout(timer);
  }
}
