/** The page's half of reading a model: any source in a form that the worker can read from. */
import { badArgument, BitpaneError } from "./errors.js";
import { host } from "./host.js";
import type { PullReply, PullRequest, WirePart, WireSource } from "./protocol.js";
import type { Source } from "./types.js";

/** A source made ready to post, and what has to be transferred with it. */
export interface Sendable {
  wire: WireSource;
  transfer: Transferable[];
}

/** What may be one of several files. */
type OneFile = string | URL | Blob;

/** Makes a source ready to post. An ArrayBuffer is copied, so the caller keeps it. */
export function sendable(source: Source): Sendable {
  if (source instanceof ReadableStream) return pulled(source);
  if (source instanceof ArrayBuffer) return alone({ type: "blob", blob: copied(source), name: "" });
  if (Array.isArray(source)) return list(source);
  if (isOneFile(source)) return alone(part(source));
  const kinds = "an address, a File, a Blob, a list of these, an ArrayBuffer or a ReadableStream";
  throw badArgument("source", `a model source must be ${kinds}`);
}

function copied(buffer: ArrayBuffer): Blob {
  if ((buffer as { detached?: boolean }).detached) {
    throw badArgument("source", "the buffer cannot be read: it has been transferred to elsewhere");
  }
  return new Blob([buffer]);
}

function isOneFile(source: unknown): source is OneFile {
  return typeof source === "string" || source instanceof URL || source instanceof Blob;
}

function alone(part: WirePart): Sendable {
  return { wire: { parts: [part], isList: false }, transfer: [] };
}

function list(files: readonly unknown[]): Sendable {
  if (files.length === 0) throw badArgument("source", "the list of files is empty");
  const parts = Array.from(files, (file) => {
    if (isOneFile(file)) return part(file);
    throw badArgument("source", "a list of files must hold addresses, Files or Blobs");
  });
  return { wire: { parts, isList: parts.length > 1 }, transfer: [] };
}

function part(source: OneFile): WirePart {
  if (source instanceof Blob) return { type: "blob", blob: source, name: source instanceof File ? source.name : "" };
  if (typeof source === "string" && source.startsWith("hf:")) return { type: "hub", path: source.slice("hf:".length) };
  return { type: "url", url: addressOf(source).href };
}

const SCHEMES = ["http:", "https:", "blob:", "data:", "chrome-extension:", "moz-extension:"];

/** The address, without its fragment, which servers never see. */
export function addressOf(source: string | URL): URL {
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
  url.hash = "";
  return url;
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
  return { ...alone({ type: "port", port: port2 }), transfer: [port2] };
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
