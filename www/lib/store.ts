/**
 * Where downloaded files are kept: the origin's private file system or, where there is none, IndexedDB.
 *
 * A file is kept in blocks, each with a checksum in the file's record. The record is written after the
 * blocks that it lists, and carries a checksum itself: whatever was cut off in the middle is seen.
 */
import type { Version } from "./request.js";

/** Bytes of a block; the last of a file may be shorter. */
export const BLOCK_BYTES = 1 << 20;
/** Records of another format are dropped. */
const FORMAT = 1;
/** The folder in the private file system, the database, and the prefix of locks. */
const NAME = "bitpane-cache";

/** What is known of a kept file. */
export interface Meta {
  format: typeof FORMAT;
  url: string;
  /** Whether all of the file is there. */
  complete: boolean;
  /** Bytes that are there. */
  length: number;
  version: Version;
  /** SHA-256 of a complete file, where it was computed. */
  sha256?: string | undefined;
  /** XXH64 of each block. */
  blocks: string[];
  /** Milliseconds since 1970 of the last use. */
  used: number;
  /** Of weights as they are held in memory (see packed.ts): then there are no blocks. */
  packed?: {
    /** The file, the options and the version that they are of. */
    origin: string;
    /** Bytes of the file's header, which comes first, and their XXH64. */
    header: number;
    headerSum: string;
    /** XXH64 of each tensor. */
    sums: string[];
  };
}

/** Where the weights of the file of an address are named; no file has such an address. */
export function packedUrl(url: string): string {
  return `${url}#packed`;
}

/** The bytes of a place as they lie in a file. */
export interface RawData {
  /** Fills `into`; false where there are not so many bytes. */
  read: (into: Uint8Array, at: number) => boolean;
  write: (bytes: Uint8Array, at: number) => void;
}

/** A new record. */
export function newMeta(url: string, version: Version): Meta {
  return { format: FORMAT, url, complete: false, length: 0, version, blocks: [], used: Date.now() };
}

/** The place of one file, open for reading and writing. Only within {@link withLock}. */
export interface Slot {
  /** The bytes of a block that is as long as `into`, which may come to hold them. */
  readBlock: (index: number, into: Uint8Array) => Promise<Uint8Array | undefined>;
  writeBlock: (index: number, bytes: Uint8Array) => Promise<void>;
  saveMeta: (meta: Meta) => Promise<void>;
  /** Makes the file so long, where that can be done. Writing within it is ten times as quick as making it grow. */
  reserve: (length: number) => void;
  close: () => void;
  /** In the file system only. */
  data?: RawData;
}

/** A kind of place. */
export interface Store {
  readonly kind: "opfs" | "indexeddb";
  list: () => Promise<{ key: string; meta: Meta | undefined }[]>;
  meta: (key: string) => Promise<Meta | undefined>;
  /** Opens a place; in the file system that needs a worker. */
  open: (key: string) => Promise<Slot>;
  remove: (key: string) => Promise<void>;
  blob: (key: string, meta: Meta) => Promise<Blob>;
}

/** The name of a file's place: FNV-1a of its address, 64 bits. The record tells the address itself. */
export function keyOf(url: string): string {
  return checksum(url);
}

/** FNV-1a, 64 bits. */
export function checksum(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, "0");
}

/** Runs `work` while nobody else, in any tab, uses the place; undefined where it is taken and `wait` is false. */
export async function withLock<T>(key: string, wait: boolean, work: () => Promise<T>, onWait?: () => void): Promise<T | undefined> {
  const locks = globalThis.navigator?.locks;
  if (!locks) return work();
  const name = `${NAME}:${key}`;
  let ran = false;
  const run = async (lock: Lock | null): Promise<T | undefined> => {
    ran = lock !== null;
    return lock ? work() : undefined;
  };
  const result = await locks.request(name, { ifAvailable: true }, run);
  if (ran || !wait) return result;
  onWait?.();
  return locks.request(name, run);
}

function encodeMeta(meta: Meta): Uint8Array<ArrayBuffer> {
  const json = JSON.stringify(meta);
  return new TextEncoder().encode(`${checksum(json)}\n${json}`);
}

/** A record, unless it is damaged or of another format. */
function decodeMeta(text: string): Meta | undefined {
  const [sum, json = ""] = [text.slice(0, 16), text.slice(17)];
  if (sum !== checksum(json)) return undefined;
  const meta = JSON.parse(json) as Meta;
  return meta.format === FORMAT ? meta : undefined;
}

/** The stores that work here, the better one first. Which do is only known by trying. */
export async function stores(): Promise<Store[]> {
  const found = await Promise.all([openFileSystem(), openDatabase()]);
  return found.filter((store) => store !== undefined);
}

/** The store for new files, or undefined where nothing can be kept. */
export async function bestStore(): Promise<Store | undefined> {
  const canWrite = typeof FileSystemFileHandle !== "undefined" && "createSyncAccessHandle" in FileSystemFileHandle.prototype;
  return (canWrite ? await openFileSystem() : undefined) ?? openDatabase();
}

/** What `createSyncAccessHandle` gives: TypeScript knows it in workers only. */
interface SyncHandle {
  read: (into: Uint8Array, options: { at: number }) => number;
  write: (bytes: Uint8Array, options: { at: number }) => number;
  truncate: (length: number) => void;
  getSize: () => number;
  close: () => void;
}

async function openFileSystem(): Promise<Store | undefined> {
  try {
    const root = await navigator.storage.getDirectory();
    return new FileSystem(await root.getDirectoryHandle(NAME, { create: true }));
  } catch {
    return undefined; // switched off, a private window, or no secure context
  }
}

class FileSystem implements Store {
  readonly kind = "opfs";
  constructor(private readonly folder: FileSystemDirectoryHandle) {}

  async list(): Promise<{ key: string; meta: Meta | undefined }[]> {
    const keys = new Set<string>();
    const names = (this.folder as unknown as { keys: () => AsyncIterable<string> }).keys();
    for await (const name of names) keys.add(name.replace(/\.\w+$/, ""));
    return Promise.all(Array.from(keys, async (key) => ({ key, meta: await this.meta(key) })));
  }

  async meta(key: string): Promise<Meta | undefined> {
    try {
      const [record, data] = await Promise.all([this.#file(key, "json"), this.#file(key, "bin")]);
      const meta = decodeMeta(await record.text());
      return meta && data.size >= meta.length ? meta : undefined;
    } catch {
      return undefined; // one of them is not there, or cannot be read
    }
  }

  async #file(key: string, extension: string): Promise<File> {
    return (await this.folder.getFileHandle(`${key}.${extension}`)).getFile();
  }

  async #handle(key: string, extension: string): Promise<SyncHandle> {
    const file = await this.folder.getFileHandle(`${key}.${extension}`, { create: true });
    return (file as unknown as { createSyncAccessHandle: () => Promise<SyncHandle> }).createSyncAccessHandle();
  }

  async open(key: string): Promise<Slot> {
    const data = await this.#handle(key, "bin");
    let record: SyncHandle;
    try {
      record = await this.#handle(key, "json");
    } catch (error) {
      data.close();
      throw error;
    }
    return {
      readBlock: async (index, into) => (data.read(into, { at: index * BLOCK_BYTES }) === into.length ? into : undefined),
      writeBlock: async (index, bytes) => writeAll(data, bytes, index * BLOCK_BYTES),
      data: { read: (into, at) => data.read(into, { at }) === into.length, write: (bytes, at) => writeAll(data, bytes, at) },
      // Nothing is flushed to the disk, which would take as long as the writing: what a crash of the whole machine
      // leaves behind is seen by its checksums.
      saveMeta: async (meta) => {
        if (meta.complete) data.truncate(meta.length);
        const bytes = encodeMeta(meta);
        writeAll(record, bytes, 0);
        record.truncate(bytes.length);
      },
      reserve: (length) => {
        try {
          if (length > data.getSize()) data.truncate(length);
        } catch {
          // No room, or a length that does not hold: it grows as it is written.
        }
      },
      close: () => {
        data.close();
        record.close();
      },
    };
  }

  async remove(key: string): Promise<void> {
    for (const extension of ["json", "bin"]) {
      await this.folder.removeEntry(`${key}.${extension}`).catch((error: unknown) => {
        if (!(error instanceof DOMException) || error.name !== "NotFoundError") throw error;
      });
    }
  }

  async blob(key: string, meta: Meta): Promise<Blob> {
    return (await this.#file(key, "bin")).slice(0, meta.length);
  }
}

function writeAll(handle: SyncHandle, bytes: Uint8Array, at: number): void {
  const written = handle.write(bytes, { at });
  // Some browsers write what fits instead of throwing.
  if (written !== bytes.length) throw new DOMException("not all bytes could be written", "QuotaExceededError");
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new DOMException("the database failed", "UnknownError"));
  });
}

async function openDatabase(): Promise<Store | undefined> {
  try {
    const opening = indexedDB.open(NAME, FORMAT);
    opening.onupgradeneeded = () => {
      for (const name of Array.from(opening.result.objectStoreNames)) opening.result.deleteObjectStore(name);
      opening.result.createObjectStore("files");
      opening.result.createObjectStore("blocks");
    };
    return new Database(await done(opening));
  } catch {
    return undefined; // switched off, or a private window
  }
}

/** Blocks are kept one by one, under `[key, index]`. */
class Database implements Store {
  readonly kind = "indexeddb";
  constructor(private readonly database: IDBDatabase) {
    database.onversionchange = () => database.close();
  }

  #on(mode: IDBTransactionMode, name: "files" | "blocks"): IDBObjectStore {
    return this.database.transaction(name, mode).objectStore(name);
  }

  /** A write has only happened when its transaction has. */
  async #write(name: "files" | "blocks", write: (store: IDBObjectStore) => void): Promise<void> {
    const store = this.#on("readwrite", name);
    const { transaction } = store;
    const completed = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error ?? new DOMException("the database failed", "UnknownError"));
    });
    write(store);
    await completed;
  }

  async list(): Promise<{ key: string; meta: Meta | undefined }[]> {
    const keys = (await done(this.#on("readonly", "files").getAllKeys())) as string[];
    return Promise.all(keys.map(async (key) => ({ key, meta: await this.meta(key) })));
  }

  async meta(key: string): Promise<Meta | undefined> {
    const text: unknown = await done(this.#on("readonly", "files").get(key));
    return typeof text === "string" ? decodeMeta(text) : undefined;
  }

  async open(key: string): Promise<Slot> {
    return {
      readBlock: async (index, into) => {
        const bytes: unknown = await done(this.#on("readonly", "blocks").get([key, index]));
        return bytes instanceof Uint8Array && bytes.length === into.length ? bytes : undefined;
      },
      writeBlock: (index, bytes) => this.#write("blocks", (store) => store.put(bytes, [key, index])),
      saveMeta: (meta) => this.#write("files", (store) => store.put(new TextDecoder().decode(encodeMeta(meta)), key)),
      reserve: () => undefined,
      close: () => undefined,
    };
  }

  async remove(key: string): Promise<void> {
    await this.#write("files", (store) => store.delete(key));
    await this.#write("blocks", (store) => store.delete(IDBKeyRange.bound([key, 0], [key, Infinity])));
  }

  async blob(key: string, meta: Meta): Promise<Blob> {
    const slot = await this.open(key);
    const blocks: BlobPart[] = [];
    for (let i = 0; i < meta.blocks.length; i++) {
      const length = Math.min(BLOCK_BYTES, meta.length - i * BLOCK_BYTES);
      const bytes = await slot.readBlock(i, new Uint8Array(length));
      if (!bytes) throw new DOMException(`block ${i} is missing`, "NotFoundError");
      blocks.push(bytes as Uint8Array<ArrayBuffer>);
    }
    return new Blob(blocks);
  }
}
