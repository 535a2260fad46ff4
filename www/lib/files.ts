/** Which files a source stands for. */
import type { Glue, WasmShardIndex } from "./builds.js";
import { Download, type DownloadContext } from "./download.js";
import { BitpaneError } from "./errors.js";
import type { WirePart, WireSource, WireTransfer } from "./protocol.js";
import { Changed } from "./request.js";

/** A file to read. */
export type FilePart = Exclude<WirePart, { type: "hub" }> & {
  /** Its name in the hashes by name. */
  name: string;
  /** What its bytes must have. */
  sha256?: string | undefined;
};

/** The files of one model. */
export interface Files {
  parts: FilePart[];
  /** What tells which file holds which tensor, for safetensors in several files. */
  index?: WasmShardIndex | undefined;
}

/** How index files are named. */
const INDEX = /\.safetensors\.index\.json$/;

/** Finds the files that a source stands for. `contextFor` makes what a download of an address needs. */
export async function filesOf(
  glue: Glue, source: WireSource, transfer: WireTransfer, contextFor: (url: string) => DownloadContext,
): Promise<Files> {
  const files = source.isList ? listed(source.parts, transfer) : undefined;
  const found = files ?? await expanded(glue, source.parts[0]!, transfer, contextFor);
  if (source.isList) await takeIndexOut(glue, found);
  if (transfer.manifest === undefined) assignHashes(found.parts, transfer.sha256);
  else assignListed(found.parts, transfer.manifest, await listedHashes(contextFor(transfer.manifest)));
  await askHub(source, found.parts, transfer, contextFor);
  return found;
}

function listed(parts: WirePart[], transfer: WireTransfer): Files {
  const files = parts.map((part) => named(part, transfer));
  // Files that were picked come in any order; their names tell the right one.
  const isSplit = files.every(({ type, name }) => type === "blob" && /-\d{5}-of-\d{5}\.|\.index\.json$/.test(name));
  if (isSplit) files.sort((a, b) => (a.name < b.name ? -1 : 1));
  return { parts: files };
}

/** A part with its address and its name. */
function named(part: WirePart, transfer: WireTransfer): FilePart {
  switch (part.type) {
    case "hub":
      return named({ type: "url", url: hubAddress(part.path, transfer.hub).file }, transfer);
    case "url":
      return { ...part, name: lastName(part.url) };
    case "blob":
      return part;
    case "port":
      return { ...part, name: "" };
  }
}

function lastName(url: string): string {
  const { pathname } = new URL(url);
  return decodeURIComponentOrSame(pathname.slice(pathname.lastIndexOf("/") + 1));
}

function decodeURIComponentOrSame(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a file beside another. */
function beside(url: string, name: string): string {
  const address = new URL(url);
  address.pathname = address.pathname.slice(0, address.pathname.lastIndexOf("/") + 1) + encodeURIComponent(name);
  return address.href;
}

async function expanded(
  glue: Glue, part: WirePart, transfer: WireTransfer, contextFor: (url: string) => DownloadContext,
): Promise<Files> {
  const file = named(part, transfer);
  if (file.type !== "url" || !/^(https?|file):/.test(file.url)) return { parts: [file] };
  const { url } = file;
  const other = (name: string): FilePart => ({ type: "url", url: beside(url, name), name });
  if (INDEX.test(file.name)) {
    const index = new glue.ShardIndex(await wholeFile(contextFor(url)));
    return { parts: index.files().map(other), index };
  }
  const names = glue.shardNames(file.name);
  return { parts: names ? names.map(other) : [file] };
}

/** An index among picked files orders them and is itself none of them. */
async function takeIndexOut(glue: Glue, files: Files): Promise<void> {
  const place = files.parts.findIndex(({ type, name }) => type === "blob" && INDEX.test(name));
  const part = files.parts[place];
  if (part?.type !== "blob") return;
  const index = new glue.ShardIndex(new Uint8Array(await part.blob.arrayBuffer()));
  files.parts = index.files().map((wanted: string) => {
    const found = files.parts.find(({ name }) => name === wanted);
    if (found) return found;
    throw new BitpaneError("ShardMismatch", `the index names "${wanted}", which is not among the files`, { key: "source" });
  });
  files.index = index;
}

async function wholeFile(context: DownloadContext, maxBytes = Infinity): Promise<Uint8Array> {
  try {
    const chunks: BlobPart[] = [];
    let length = 0;
    const download = await Download.open(context, 0, undefined, false);
    for await (const bytes of download.bytes()) {
      chunks.push(bytes as Uint8Array<ArrayBuffer>);
      length += bytes.length;
      if (length <= maxBytes) continue;
      download.close();
      throw new BitpaneError("LimitExceeded", `more than ${maxBytes} bytes where a list of hashes should be`, { url: context.url });
    }
    return new Uint8Array(await new Blob(chunks).arrayBuffer());
  } catch (error) {
    if (error instanceof Changed && error.cause instanceof BitpaneError) throw error.cause;
    throw error;
  }
}

/** Gives each file its hash. Where hashes are given, a file without one is refused. */
function assignHashes(parts: FilePart[], given: WireTransfer["sha256"]): void {
  if (given === undefined) return;
  const refuse = (message: string): BitpaneError => new BitpaneError("BadArgument", message, { key: "sha256" });
  if (typeof given === "string") {
    if (parts.length > 1) throw refuse(`the model has ${parts.length} files: give the SHA-256 of each`);
    parts[0]!.sha256 = given;
  } else if (Array.isArray(given)) {
    if (given.length !== parts.length) throw refuse(`${given.length} hashes for ${parts.length} files`);
    parts.forEach((part, i) => { part.sha256 = given[i]; });
  } else {
    for (const part of parts) {
      part.sha256 = Object.hasOwn(given, part.name) ? given[part.name] : undefined;
      if (part.sha256 === undefined) throw refuse(`no SHA-256 is given for "${part.name}"`);
    }
  }
}

/** A list of hashes is no longer than this. */
const MANIFEST_BYTES = 1 << 20;

/** Reads a list of hashes: a JSON object by name, or lines as `sha256sum` prints them. */
async function listedHashes(context: DownloadContext): Promise<Map<string, string>> {
  const text = new TextDecoder().decode(await wholeFile(context, MANIFEST_BYTES)).trim();
  const bad = (message: string): BitpaneError =>
    new BitpaneError("BadValue", `the list of hashes ${message}`, { key: "manifest", url: context.url });
  let entries: [string, unknown][];
  if (text.startsWith("{")) {
    try {
      entries = Object.entries(JSON.parse(text) as object);
    } catch {
      throw bad("is no JSON");
    }
  } else {
    const lines = text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
    entries = lines.map((line) => {
      const found = /^(\S+)[ \t]+\*?(\S.*?)\s*$/.exec(line);
      if (!found) throw bad(`has a line that is no hash and name: "${line.slice(0, 80)}"`);
      return [found[2]!, found[1]];
    });
  }
  const hashes = new Map<string, string>();
  for (const [path, hash] of entries) {
    if (typeof hash !== "string" || !/^[0-9a-f]{64}$/i.test(hash)) throw bad(`has no SHA-256 for "${path.slice(0, 80)}"`);
    const name = path.slice(path.lastIndexOf("/") + 1);
    if (hashes.has(name)) throw bad(`names "${name.slice(0, 80)}" twice`);
    hashes.set(name, hash.toLowerCase());
  }
  return hashes;
}

function assignListed(parts: FilePart[], url: string, hashes: Map<string, string>): void {
  for (const part of parts) {
    part.sha256 = hashes.get(part.name);
    if (part.sha256 !== undefined) continue;
    throw new BitpaneError("IntegrityError", `the list of hashes does not name "${part.name}"`, { key: "manifest", url });
  }
}

/** Where the hub has a file, and what tells about the files of its folder. */
function hubAddress(path: string, hub: string): { file: string; folder: string } {
  const [owner = "", repository = "", ...rest] = path.split("/");
  const [name = "", revision = "main"] = repository.split("@");
  const plain = (text: string): boolean => /^[\w.-]+$/.test(text) && !text.startsWith(".");
  if (![owner, name, revision, ...rest].every(plain) || rest.length === 0) {
    const message = `"hf:${path}" is no file of the hub: hf:owner/repository/file, or hf:owner/repository@revision/file`;
    throw new BitpaneError("BadArgument", message, { key: "source" });
  }
  const root = hub.replace(/\/+$/, "");
  const folder = rest.slice(0, -1).map((part) => `/${part}`).join("");
  return {
    file: `${root}/${owner}/${name}/resolve/${revision}/${rest.join("/")}`,
    folder: `${root}/api/models/${owner}/${name}/tree/${revision}${folder}`,
  };
}

/** What the hub tells of a file. */
interface HubFile {
  path?: unknown;
  lfs?: { oid?: unknown };
}

/** Adds the hashes that the hub knows. It is not needed for a load, so that no failure of this counts. */
async function askHub(
  source: WireSource, parts: FilePart[], transfer: WireTransfer, contextFor: (url: string) => DownloadContext,
): Promise<void> {
  const [first] = source.parts;
  if (first?.type !== "hub" || parts.every(({ sha256 }) => sha256 !== undefined)) return;
  try {
    const context = contextFor(hubAddress(first.path, transfer.hub).folder);
    const options = { ...context.options, retries: 0 };
    const listing: unknown = JSON.parse(new TextDecoder().decode(await wholeFile({ ...context, options })));
    if (!Array.isArray(listing)) return;
    for (const part of parts) {
      const found = (listing as HubFile[]).find(({ path }) => typeof path === "string" && path.split("/").pop() === part.name);
      const oid = found?.lfs?.oid;
      if (part.sha256 === undefined && typeof oid === "string" && /^[0-9a-f]{64}$/.test(oid)) part.sha256 = oid;
    }
  } catch {
    // A private mirror may have files and no such interface.
  }
}
