/**
 * The worker's half of the cache: one file of a load, read from its place and written to it.
 *
 * A cache that does not work never makes a load fail: whatever goes wrong with it is told once, the entry is
 * removed, and the load goes on without it.
 */
import type { WireCache } from "./protocol.js";
import type { Version } from "./request.js";
import { bestStore, BLOCK_BYTES, keyOf, newMeta, packedUrl, withLock, type Meta, type Slot, type Store } from "./store.js";

/** The record of a growing file is written at most this often, in milliseconds. */
const SAVE_MS = 1000;

/** The place of one file in the cache, for as long as it is loaded. */
export class Kept {
  #slot: Slot | undefined;
  #savedAt = -Infinity;
  /** Blocks are read into it, one after the other: memory that is new for each takes longer than the reading. */
  #block: Uint8Array | undefined;
  meta: Meta;

  private constructor(
    readonly store: Store, private readonly key: string, slot: Slot, meta: Meta,
    private readonly options: WireCache, private readonly warn: (message: string) => void,
  ) {
    this.#slot = slot;
    this.meta = meta;
  }

  /** Runs `work` with the file's place, or without one where nothing can be kept. */
  static async during<T>(
    url: string, options: WireCache | undefined, tell: { warn: (message: string) => void; wait: () => void },
    work: (kept: Kept | undefined) => Promise<T>,
  ): Promise<T> {
    const store = options && await bestStore();
    if (!options || !store) {
      if (options) tell.warn("nothing can be kept here: the browser grants no storage");
      return work(undefined);
    }
    const key = keyOf(url);
    const run = async (): Promise<T> => {
      const kept = await Kept.#open(store, key, url, options, tell.warn);
      try {
        return await work(kept);
      } finally {
        kept?.close();
      }
    };
    return (await withLock(key, true, run, tell.wait)) as T;
  }

  static async #open(
    store: Store, key: string, url: string, options: WireCache, warn: (message: string) => void,
  ): Promise<Kept | undefined> {
    try {
      let meta = await store.meta(key);
      if (meta?.url !== url) {
        await store.remove(key);
        meta = undefined;
      }
      const slot = await store.open(key);
      return new Kept(store, key, slot, meta ?? newMeta(url, { etag: undefined, lastModified: undefined, size: undefined }), options, warn);
    } catch (error) {
      warn(`not cached: ${String(error)}`);
      return undefined;
    }
  }

  /** Blocks that are there. */
  get n(): number {
    return this.#slot ? this.meta.blocks.length : 0;
  }

  /** A block; undefined where it cannot be read. The next one may take its place in memory. */
  async read(index: number): Promise<Uint8Array | undefined> {
    const length = Math.min(BLOCK_BYTES, this.meta.length - index * BLOCK_BYTES);
    this.#block ??= new Uint8Array(BLOCK_BYTES);
    return this.#slot?.readBlock(index, this.#block.subarray(0, length)).catch(() => undefined);
  }

  /** Forgets the blocks from `index` on. */
  cutAt(index: number): void {
    this.meta.blocks.length = index;
    this.meta.length = index * BLOCK_BYTES;
    this.meta.complete = false;
    delete this.meta.sha256;
  }

  /** Begins or goes on with a download of this version. */
  async begin(version: Version): Promise<void> {
    if (this.n === 0) {
      this.meta = newMeta(this.meta.url, version);
      await this.#removePacked();
    }
    await this.#unlessBroken(async (slot) => {
      await this.#makeRoom((version.size ?? 0) - this.meta.length);
      if (version.size !== undefined) slot.reserve(version.size);
    });
  }

  /** Adds the next block. With `save`, what is there so far can be found by a later load. */
  async add(bytes: Uint8Array, checksum: string, save: boolean): Promise<void> {
    await this.#unlessBroken(async (slot) => {
      await slot.writeBlock(this.meta.blocks.length, bytes);
      this.meta.blocks.push(checksum);
      this.meta.length += bytes.length;
    });
    if (save && performance.now() - this.#savedAt > SAVE_MS) await this.#unlessBroken((slot) => this.#save(slot));
  }

  /** Declares that all bytes are there, and the right ones. */
  async commit(sha256: string | undefined): Promise<void> {
    await this.#unlessBroken(async (slot) => {
      this.meta.complete = true;
      if (sha256 !== undefined) this.meta.sha256 = sha256;
      await this.#save(slot);
    });
  }

  /** Keeps what is there of a download that has ended early. */
  async pause(): Promise<void> {
    if (this.n > 0) await this.#unlessBroken((slot) => this.#save(slot));
    else await this.remove();
  }

  async #save(slot: Slot): Promise<void> {
    this.meta.used = Date.now();
    await slot.saveMeta(this.meta);
    this.#savedAt = performance.now();
  }

  /** Removes the entry; the load goes on without a place. */
  async remove(): Promise<void> {
    this.close();
    await this.store.remove(this.key).catch(() => undefined);
    await this.#removePacked();
  }

  /** Removes what was made of a file that is no longer there. */
  async #removePacked(): Promise<void> {
    const key = keyOf(packedUrl(this.meta.url));
    await withLock(key, false, () => this.store.remove(key)).catch(() => undefined);
  }

  close(): void {
    this.#slot?.close();
    this.#slot = undefined;
  }

  async #unlessBroken(work: (slot: Slot) => Promise<void>): Promise<void> {
    if (!this.#slot) return;
    try {
      try {
        await work(this.#slot);
      } catch (error) {
        if (!isQuota(error) || !(await this.#evictOne())) throw error;
        await work(this.#slot);
      }
    } catch (error) {
      const { usage, quota } = await estimate();
      this.warn(`not cached (${usage} of ${quota} bytes used): ${String(error)}`);
      await this.remove();
    }
  }

  /** Removes the files that have not been used for longest until so many bytes fit. */
  async #makeRoom(bytes: number): Promise<void> {
    const { maxBytes } = this.options;
    if (maxBytes !== undefined && this.meta.length + bytes > maxBytes) {
      throw new DOMException(`the file is larger than the cache may be (${maxBytes} bytes)`, "QuotaExceededError");
    }
    for (;;) {
      const { usage, quota } = await estimate();
      const held = maxBytes === undefined ? 0 : await this.#bytesOfOthers();
      const isTooMuch = usage + bytes > quota || (maxBytes !== undefined && held + this.meta.length + bytes > maxBytes);
      if (!isTooMuch || !(await this.#evictOne())) return;
    }
  }

  async #others(): Promise<{ key: string; meta: Meta | undefined }[]> {
    return (await this.store.list()).filter(({ key }) => key !== this.key);
  }

  async #bytesOfOthers(): Promise<number> {
    return (await this.#others()).reduce((sum, { meta }) => sum + (meta?.length ?? 0), 0);
  }

  /** Removes one file that nobody uses; whether there was one. */
  async #evictOne(): Promise<boolean> {
    const others = await this.#others();
    // What can be made again without a download goes first.
    const rank = ({ meta }: { meta: Meta | undefined }): number => (meta?.packed ? 0 : meta?.used ?? 0);
    others.sort((a, b) => rank(a) - rank(b) || (a.meta?.used ?? 0) - (b.meta?.used ?? 0));
    for (const { key } of others) {
      const removed = await withLock(key, false, async () => {
        await this.store.remove(key);
        return true;
      });
      if (removed) return true;
    }
    return false;
  }
}

function isQuota(error: unknown): boolean {
  return error instanceof Error && error.name === "QuotaExceededError";
}

async function estimate(): Promise<{ usage: number; quota: number }> {
  const { usage = 0, quota = Infinity } = (await globalThis.navigator?.storage?.estimate?.().catch(() => undefined)) ?? {};
  return { usage, quota };
}
