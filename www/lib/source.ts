/** The page's half of reading a model: any source in a form that the worker can read from. */
import { badArgument, BitpaneError } from "./errors.js";
import { host } from "./host.js";
import type { PullReply, PullRequest, WireSource } from "./protocol.js";
import type { Source } from "./types.js";

/** A source made ready to post, and what has to be transferred with it. */
export interface Sendable {
  wire: WireSource;
  transfer: Transferable[];
}

/** Makes a source ready to post. An ArrayBuffer is copied, so the caller keeps it. */
export function sendable(source: Source): Sendable {
  if (typeof source === "string" || source instanceof URL) return address(source);
  if (source instanceof Blob) return { wire: { type: "blob", blob: source }, transfer: [] };
  if (source instanceof ArrayBuffer) return { wire: { type: "blob", blob: new Blob([source]) }, transfer: [] };
  if (source instanceof ReadableStream) return pulled(source);
  if (Array.isArray(source)) return shards(source);
  const kinds = "an address, a File, a Blob, an ArrayBuffer or a ReadableStream";
  throw badArgument("source", `a model source must be ${kinds}`);
}

function shards(list: readonly unknown[]): Sendable {
  const [only, ...more] = list;
  if (more.length === 0 && (typeof only === "string" || only instanceof URL)) return address(only);
  if (list.length === 0) throw badArgument("source", "the list of shards is empty");
  const message = "models in several files are not supported by this version; join them into one file";
  throw new BitpaneError("BadArgument", message, { key: "source" });
}

const SCHEMES = ["http:", "https:", "blob:", "data:"];

function address(source: string | URL): Sendable {
  let url: URL;
  try {
    url = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch (cause) {
    throw new BitpaneError("BadArgument", "the model's address is not a URL", { key: "source", cause });
  }
  // A host that opens files in its own way gives their addresses.
  if (!SCHEMES.includes(url.protocol) && !(host.open && url.protocol === "file:")) {
    throw badArgument("source", `models cannot be loaded from ${url.protocol} addresses`);
  }
  return { wire: { type: "url", url: url.href }, transfer: [] };
}

/** Keeps the stream here and hands out a chunk whenever the worker asks: that is the back-pressure. */
function pulled(stream: ReadableStream<Uint8Array>): Sendable {
  if (stream.locked) throw badArgument("source", "the stream is locked: something else reads it");
  const reader = stream.getReader();
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = async ({ data }: MessageEvent<PullRequest>) => {
    if (data === "cancel") {
      port1.close();
      await reader.cancel().catch(() => undefined);
    } else {
      await answer(reader, port1);
    }
  };
  return { wire: { type: "port", port: port2 }, transfer: [port2] };
}

async function answer(reader: ReadableStreamDefaultReader<Uint8Array>, port: MessagePort): Promise<void> {
  let reply: PullReply;
  try {
    const { done, value } = await reader.read();
    if (!done && !(value instanceof Uint8Array)) throw new TypeError("a chunk is not a Uint8Array");
    reply = done ? { done: true } : { bytes: value };
  } catch (error) {
    reply = { failed: String(error) };
  }
  port.postMessage(reply);
}
