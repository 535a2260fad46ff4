/** The worker of a model in Node: what a browser's worker has and a thread of Node lacks, then the same work. */
import { open } from "node:fs/promises";
import { parentPort, Worker as Thread } from "node:worker_threads";
import { host } from "./host.js";
import { NodeThread } from "./node-threads.js";
import { serve, type Port } from "./serving.js";

const CHUNK_BYTES = 1 << 20;

const port = parentPort;
if (!port) throw new Error("this script is a worker's");

// Node's own fetch reads no files; models and the .wasm are such.
const { fetch } = globalThis;
globalThis.fetch = async (input, init) => {
  const address = input instanceof Request ? input.url : String(input);
  return address.startsWith("file:") ? readFile(new URL(address), init) : fetch(input, init);
};

/** A file, or a stretch of it, as an answer over HTTP would be. */
async function readFile(url: URL, init: RequestInit | undefined): Promise<Response> {
  const file = await open(url);
  const { size } = await file.stat();
  const range = /^bytes=(\d+)-(\d*)$/.exec(new Headers(init?.headers).get("range") ?? "");
  const start = range ? Number(range[1]) : 0;
  const end = range?.[2] ? Math.min(Number(range[2]) + 1, size) : size;
  let at = start;
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const bytes = new Uint8Array(Math.min(CHUNK_BYTES, Math.max(end - at, 0)));
      const { bytesRead } = await file.read(bytes, 0, bytes.length, at);
      at += bytesRead;
      if (bytesRead > 0) controller.enqueue(bytes.subarray(0, bytesRead));
      // At once: who has got all the bytes that were announced does not ask for more.
      if (bytesRead > 0 && at < end) return;
      await file.close();
      controller.close();
    },
    cancel: () => file.close(),
  }, { highWaterMark: 0 });
  const headers = { "Content-Type": url.pathname.endsWith(".wasm") ? "application/wasm" : "application/octet-stream", "Content-Length": String(end - start) };
  return range
    ? new Response(body, { status: 206, headers: { ...headers, "Content-Range": `bytes ${start}-${end - 1}/${size}` } })
    : new Response(body, { headers });
}

host.startThread = () => new NodeThread(new Thread(new URL("./node-thread.js", import.meta.url), { execArgv: [] }));

const scope: Port = { onmessage: null, postMessage: (message) => port.postMessage(message) };
port.on("message", (data: never) => scope.onmessage?.({ data } as unknown as MessageEvent));
serve(scope);
