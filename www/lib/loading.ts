/** The worker's loops over the bytes of a model. */
import type { Glue, WasmAdapter, WasmHasher, WasmLoaded, WasmLoader } from "./builds.js";
import { Download, type DownloadContext } from "./download.js";
import { BitpaneError } from "./errors.js";
import { readBlob, readPort } from "./fetcher.js";
import { filesOf, type FilePart, type Files } from "./files.js";
import { Kept } from "./kept.js";
import { keepPacked, takePacked, type PackedContext } from "./packed.js";
import { Meter } from "./meter.js";
import type { WireExtras, WireLoadOptions, WireSource, WireTransfer } from "./protocol.js";
import { Changed, sameContent } from "./request.js";
import { BLOCK_BYTES } from "./store.js";
import type { Inspection } from "./types.js";
import type { Context } from "./worker.js";
import { release } from "./release.js";

/** A file whose content changes during a download is begun anew so many times at most. */
const RESTARTS = 4;

/** What every load of a worker shares. */
export interface LoadContext {
  glue: Glue;
  /** The memory of the runtime. */
  memory: WebAssembly.Memory;
  transfer: WireTransfer;
  /** Bytes that the runtime's memory can have. */
  maxBytes: number;
  context: Context;
}

/** Reads a source to its end into a model, after the adapters that change it. */
export async function loadModel(
  shared: LoadContext, source: WireSource, options: WireLoadOptions, extras: WireExtras,
): Promise<WasmLoaded> {
  const adapters: { adapter: WasmAdapter; scale: number }[] = [];
  const { cache } = shared.transfer;
  const plain = { ...shared, transfer: { ...shared.transfer, sha256: undefined, manifest: undefined, cache: cache && { ...cache, packed: false } } };
  for (const { source, scale } of extras.lora) {
    adapters.push({ adapter: await readInto(plain, source, {}, (loader) => loader.finishAdapter()), scale });
  }
  return readInto(shared, source, options, (loader) => {
    for (const { adapter, scale } of adapters) loader.adapt(adapter, scale);
    return loader.finish();
  });
}

async function readInto<T>(
  shared: LoadContext, source: WireSource, options: WireLoadOptions, finish: (loader: WasmLoader) => T,
): Promise<T> {
  // The page ends the whole worker to abort a load, so nothing here listens for it.
  const { signal } = new AbortController();
  const files = await filesOf(shared.glue, source, shared.transfer, (url) => contextOf(shared, url, signal, false));
  const plain = new Set<string>();
  for (let restarts = 0; ; restarts += 1) {
    const reading = new Reading(shared, files, options, signal, plain);
    try {
      await reading.all();
      reading.close();
      return finish(reading.loader);
    } catch (error) {
      reading.close();
      if (!(error instanceof Changed)) throw located(error, reading.url);
      if (restarts < RESTARTS) continue;
      if (error.cause instanceof BitpaneError) throw error.cause;
      throw new BitpaneError("IntegrityError", `the file changes while it is read: ${error.message}`, { url: reading.url });
    }
  }
}

export function contextOf({ transfer, context }: LoadContext, url: string, signal: AbortSignal, hashKnown: boolean): DownloadContext {
  return {
    url, signal, hashKnown,
    options: transfer.download,
    onRetry: ({ attempt, attempts, waitMs, error }) => {
      const progress = { status: "retry", url, attempt, attempts, waitMs, reason: error.message } as const;
      context.send({ kind: "progress", progress });
    },
  };
}

/** Names the address in an error that the runtime found in its bytes. */
export function located(error: unknown, url: string | undefined): unknown {
  if (url !== undefined && typeof error === "object" && error !== null && !(error instanceof Error)) {
    return { ...error, url };
  }
  return error;
}

/** One attempt to read all files of a model. */
class Reading {
  readonly loader: WasmLoader;
  readonly #meter: Meter;
  /** The address of the file that is being read. */
  url: string | undefined;

  constructor(
    private readonly shared: LoadContext, private readonly files: Files, private readonly options: WireLoadOptions,
    private readonly signal: AbortSignal,
    /** Addresses whose server does not answer well to requests for parts. */
    private readonly plain: Set<string>,
  ) {
    const { quantize, contextLength, kvType, config, preprocessor, tokenizer, overrides, memoryLimit = Infinity } = options;
    const left = Math.max(0, Math.min(memoryLimit, shared.maxBytes) - shared.glue.memoryBytes());
    this.loader = new shared.glue.Loader({
      quantize, contextLength, kvType, config, preprocessor, tokenizer, overrides: overrides ?? [], memoryLimit: left,
    }, undefined);
    this.#meter = new Meter(this.loader, files.parts.length, quantize === undefined ? "repack" : "quantize", shared.context);
  }

  async all(): Promise<void> {
    const { parts, index } = this.files;
    if (index) this.loader.expectIndex(index);
    else this.loader.expectFiles(parts.length);
    for (const [i, part] of parts.entries()) {
      this.url = part.type === "url" ? part.url : undefined;
      const length = part.type === "blob" ? part.blob.size : undefined;
      this.loader.nextFile(length);
      this.#meter.begin(i, length);
      if (part.type === "url" && /^https?:/.test(part.url)) await this.#download(part);
      else await this.#local(part);
    }
    this.#meter.end();
  }

  close(): void {
    this.#meter.close();
  }

  /** Reads what is no download, or one that cannot be continued (`blob:` and `data:` addresses). */
  async #local(part: FilePart): Promise<void> {
    const hasher = new this.shared.glue.Hasher(part.sha256 !== undefined);
    try {
      for await (const bytes of await this.#chunks(part)) {
        this.loader.pushHashed(bytes, hasher);
        this.#meter.add(bytes.length);
      }
      this.loader.endFile();
      this.#verify(part, part.sha256, hasher.sha256());
    } finally {
      release(hasher);
    }
  }

  async #chunks(part: FilePart): Promise<AsyncIterable<Uint8Array>> {
    if (part.type === "blob") return readBlob(part.blob, this.signal);
    if (part.type === "port") return readPort(part.port, this.signal);
    return (await Download.open(contextOf(this.shared, part.url, this.signal, false), 0, undefined, false)).bytes();
  }

  #verify(part: FilePart, wanted: string | undefined, found: string | undefined): void {
    if (wanted === undefined || found === undefined) return;
    const url = part.type === "url" ? { url: part.url } : {};
    if (found !== wanted) {
      const message = `the file's SHA-256 is ${found}, expected ${wanted}`;
      throw new BitpaneError("IntegrityError", message, { key: "sha256", ...url });
    }
    this.shared.context.send({ kind: "progress", progress: { status: "verify", sha256: found, ...url } });
  }

  #download(part: FilePart & { type: "url" }): Promise<void> {
    const { url } = part;
    const tell = {
      warn: (message: string) => this.shared.context.send({ kind: "progress", progress: { status: "warning", message, url } }),
      wait: () => this.shared.context.send({ kind: "progress", progress: { status: "wait", url } }),
    };
    return Kept.during(url, this.shared.transfer.cache, tell, (kept) => this.#withPlace(part, kept));
  }

  /** Reads what is kept of a file, and the rest from the network. */
  async #withPlace(part: FilePart & { type: "url" }, kept: Kept | undefined): Promise<void> {
    if (kept?.meta.complete && !(await this.#isCurrent(part, kept))) kept.cutAt(0);
    const packed = kept && this.#packedOf(part, kept);
    if (packed && (await this.#fromPacked(part, packed))) return;
    try {
      const isDone = kept?.meta.complete === true && (await this.#fromCache(part, kept));
      if (!isDone) await this.#fromNetwork(part, kept);
      if (packed) await keepPacked(packed, this.loader);
    } catch (error) {
      // What has no use is not kept; what was cut off is.
      const isCut = error instanceof BitpaneError && RESUMABLE.has(error.code);
      if (kept && (!isCut || kept.n === 0)) await kept.remove();
      throw error;
    }
  }

  /** What keeping the weights as they are held needs, where that is wanted and can be. */
  #packedOf({ url }: FilePart & { type: "url" }, kept: Kept): PackedContext | undefined {
    const { glue, memory, transfer: { cache }, context } = this.shared;
    if (!cache?.packed || this.files.parts.length > 1) return undefined;
    return {
      glue, memory, url, kept, options: this.options, maxBytes: cache.maxBytes,
      onBytes: (bytes, total) => {
        this.#meter.expect(total);
        this.#meter.add(bytes, true);
      },
      warn: (message) => context.send({ kind: "progress", progress: { status: "warning", message, url } }),
    };
  }

  async #fromPacked(part: FilePart, packed: PackedContext): Promise<boolean> {
    const { meta } = packed.kept;
    // A hash that is not known of the file has to be computed from it.
    if (!meta.complete || (part.sha256 !== undefined && meta.sha256 === undefined)) return false;
    if (!(await takePacked(packed, this.loader))) return false;
    await packed.kept.commit(undefined);
    return true;
  }

  /** Whether a complete file in the cache is the one that is wanted. */
  async #isCurrent(part: FilePart & { type: "url" }, { meta }: Kept): Promise<boolean> {
    if (part.sha256 !== undefined && meta.sha256 !== undefined) return part.sha256 === meta.sha256;
    return !this.shared.transfer.cache?.revalidate || sameContent(part.url, meta.version);
  }

  /** Reads a complete file from the cache; false where a block is damaged: what comes before it has been taken. */
  async #fromCache(part: FilePart, kept: Kept): Promise<boolean> {
    const mustHash = part.sha256 !== undefined && kept.meta.sha256 === undefined;
    const hasher = new this.shared.glue.Hasher(mustHash);
    try {
      this.#meter.expect(kept.meta.length);
      if (!(await this.#takeKept(kept, mustHash ? hasher : undefined))) return false;
      this.loader.endFile();
      // Kept when no hash was known, and not what is wanted now: it is downloaded anew.
      if (mustHash && hasher.sha256() !== part.sha256) throw new Changed("what is kept has another SHA-256");
      if (mustHash) this.#verify(part, part.sha256, hasher.sha256());
      await kept.commit(hasher.sha256());
      return true;
    } finally {
      release(hasher);
    }
  }

  /** Takes all blocks that are kept; forgets those from the first damaged one on, and then says false. */
  async #takeKept(kept: Kept, hasher: WasmHasher | undefined): Promise<boolean> {
    for (let i = 0; i < kept.n; i += 1) {
      const bytes = await kept.read(i);
      if (!bytes || !this.loader.pushChecked(bytes, kept.meta.blocks[i]!)) {
        kept.cutAt(i);
        return false;
      }
      hasher?.update(bytes);
      hasher?.takeBlock();
      this.#meter.add(bytes.length, true);
    }
    return true;
  }

  async #fromNetwork(part: FilePart & { type: "url" }, kept: Kept | undefined): Promise<void> {
    const { url } = part;
    const context = contextOf(this.shared, url, this.signal, part.sha256 !== undefined);
    const taken = this.loader.progress() as { fileBytes: number };
    let from = kept ? kept.meta.blocks.length * BLOCK_BYTES : 0;
    let download: Download;
    try {
      download = await Download.open(context, from, from > 0 ? kept?.meta.version : undefined, !this.plain.has(url));
    } catch (error) {
      if (!(error instanceof Changed) || from === 0 || taken.fileBytes > 0) throw error;
      // What is kept is of an older version.
      kept?.cutAt(0);
      from = 0;
      download = await Download.open(context, 0, undefined, !this.plain.has(url));
    }
    const wanted = part.sha256 ?? download.sha256;
    const hasher = new this.shared.glue.Hasher(wanted !== undefined);
    try {
      this.#meter.expect(download.version.size);
      if (from > 0 && !(await this.#catchUp(kept!, taken.fileBytes, wanted === undefined ? undefined : hasher))) {
        throw new Changed(`${url}: what was kept of it is damaged`);
      }
      await kept?.begin(download.version);
      await this.#takeDownload(part, download, kept, hasher);
      this.loader.endFile();
      this.#verify(part, wanted, hasher.sha256());
      await kept?.commit(hasher.sha256());
    } finally {
      download.close();
      release(hasher);
    }
  }

  /** Takes the blocks that are kept and not yet taken. */
  async #catchUp(kept: Kept, taken: number, hasher: WasmHasher | undefined): Promise<boolean> {
    if (taken === 0) return this.#takeKept(kept, hasher);
    for (let i = 0; hasher && i < kept.n; i += 1) {
      const bytes = await kept.read(i);
      if (!bytes) return false;
      hasher.update(bytes);
      hasher.takeBlock();
    }
    return true;
  }

  /** Takes the rest of a file, block by block. */
  async #takeDownload(
    part: FilePart & { type: "url" }, download: Download, kept: Kept | undefined, hasher: WasmHasher,
  ): Promise<void> {
    const block = new Block();
    const keep = async (): Promise<void> => {
      const bytes = block.take();
      if (bytes.length > 0) await kept?.add(bytes, hasher.takeBlock(), download.canResume);
    };
    try {
      for await (const bytes of download.bytes()) {
        this.#meter.add(bytes.length);
        for (let rest = bytes; rest.length > 0;) {
          const taken = block.add(rest);
          // Not only once a block is full: what is wrong with a file shows in its first bytes.
          this.loader.pushHashed(taken, hasher);
          rest = rest.subarray(taken.length);
          if (block.isFull) await keep();
        }
      }
      await keep();
    } catch (error) {
      if (!(error instanceof Changed) && !(error instanceof BitpaneError)) throw error;
      // A server that declares too many bytes fails after the last one.
      const { fileBytes, fileEnd } = this.loader.progress() as { fileBytes: number; fileEnd: number };
      if (part.sha256 === undefined && fileEnd > 0 && fileBytes === fileEnd) return keep();
      if (error instanceof Changed) this.plain.add(part.url);
      if (error instanceof BitpaneError && download.canResume) await kept?.pause();
      throw error;
    }
  }
}

/** Failures after which a download can go on where it was. */
const RESUMABLE = new Set(["NetworkError", "HttpStatus", "Stalled", "Truncated"]);

/** Bytes that are collected until there is a block of them. */
class Block {
  #bytes = new Uint8Array(BLOCK_BYTES);
  #length = 0;

  get isFull(): boolean {
    return this.#length === BLOCK_BYTES;
  }

  /** Adds what fits, and gives that. */
  add(bytes: Uint8Array): Uint8Array {
    const taken = bytes.subarray(0, BLOCK_BYTES - this.#length);
    this.#bytes.set(taken, this.#length);
    this.#length += taken.length;
    return taken;
  }

  /** The bytes so far; the next one to be added begins anew. */
  take(): Uint8Array {
    const bytes = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    return bytes;
  }
}

/** Reads a source until its header is complete, and no further. */
export async function readHeader(shared: LoadContext, source: WireSource): Promise<Inspection> {
  const stop = new AbortController();
  const { parts } = await filesOf(shared.glue, source, shared.transfer, (url) => contextOf(shared, url, stop.signal, false));
  const part = parts[0]!;
  const url = part.type === "url" ? part.url : undefined;
  const inspector = new shared.glue.Inspector(part.type === "blob" ? part.blob.size : undefined);
  try {
    for await (const chunk of await headerChunks(shared, part, stop.signal)) {
      const found = inspector.push(chunk) as Inspection | undefined;
      if (found) return found;
    }
    const found = inspector.finish() as Inspection | undefined;
    if (found) return found;
    throw new BitpaneError("Truncated", "the file ends before its header");
  } catch (error) {
    if (error instanceof Changed && error.cause instanceof BitpaneError) throw error.cause;
    throw located(error, url);
  } finally {
    stop.abort();
  }
}

/** The bytes of a file from its first on, without keeping them. */
export async function headerChunks(shared: LoadContext, part: FilePart, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
  if (part.type === "blob") return readBlob(part.blob, signal);
  if (part.type === "port") return readPort(part.port, signal);
  return (await Download.open(contextOf(shared, part.url, signal, false), 0, undefined, false)).bytes();
}
