/** The cache of downloaded models, as a page sees it. */
import { badArgument, BitpaneError } from "./errors.js";
import { keyOf, packedUrl, stores, withLock, type Meta, type Store } from "./store.js";
import { addressOf } from "./source.js";

/** A file in the cache. */
export interface CacheEntry {
  /** The address that it came from. */
  url: string;
  /** Bytes that are there. */
  bytes: number;
  /** Bytes of the whole file, where they are known. */
  totalBytes?: number;
  /** Whether all of it is there; a download that ended early goes on at the next load. */
  complete: boolean;
  /** SHA-256 of the file, where it was computed. */
  sha256?: string;
  /** Bytes of its weights as they are held in memory, where those are kept beside it (see `packed` of the options). */
  packedBytes?: number;
  /** When it was last used. */
  lastUsed: Date;
}

/** What {@link cache} estimates. */
export interface CacheEstimate {
  /** Bytes of downloaded models. */
  modelBytes: number;
  /** Bytes that this origin uses and may use, as far as the browser says. */
  usage: number;
  quota: number;
  /** Whether the browser has promised not to evict this origin's data by itself. */
  persisted: boolean;
}

interface Found {
  store: Store;
  key: string;
  meta: Meta | undefined;
}

async function all(): Promise<Found[]> {
  const lists = (await stores()).map(async (store) => (await store.list()).map((entry) => ({ store, ...entry })));
  return (await Promise.all(lists)).flat();
}

/** Removes a place unless a load uses it. */
async function remove({ store, key, meta }: Found): Promise<void> {
  const removed = await withLock(key, false, async () => {
    await store.remove(key);
    return true;
  });
  if (!removed) throw new BitpaneError("Busy", "a load uses this file of the cache", meta ? { url: meta.url } : {});
}

async function find(url: string | URL): Promise<Found | undefined> {
  const { href } = addressOf(url);
  for (const store of await stores()) {
    const meta = await store.meta(keyOf(href));
    if (meta?.url === href) return { store, key: keyOf(href), meta };
  }
  return undefined;
}

/** Lists, removes and exports downloaded models. Works in pages and workers of the same origin. */
export const cache = {
  /** What is there, the last used first. */
  async list(): Promise<CacheEntry[]> {
    const metas = (await all()).flatMap(({ meta }) => (meta ? [meta] : []));
    const packed = new Map(metas.filter((meta) => meta.packed).map(({ url, length }) => [url, length]));
    const entries = metas.filter((meta) => !meta.packed).map((meta) => shown(meta, packed.get(packedUrl(meta.url))));
    return entries.sort((a, b) => b.lastUsed.getTime() - a.lastUsed.getTime());
  },

  /** Removes one file; whether it was there. Rejects with `Busy` while a load uses it. */
  async delete(url: string | URL): Promise<boolean> {
    const found = await find(url);
    if (!found) return false;
    await remove(found);
    const key = keyOf(packedUrl(found.meta!.url));
    await remove({ store: found.store, key, meta: undefined });
    return true;
  },

  /** Removes all files. Rejects with `Busy` where a load uses one of them; the others are gone then. */
  async clear(): Promise<void> {
    const outcomes = await Promise.allSettled((await all()).map(remove));
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed) throw failed.reason;
  },

  /** A complete file, for example to save it to disk. */
  async export(url: string | URL): Promise<Blob> {
    const found = await find(url);
    if (!found?.meta?.complete) throw badArgument("url", "the cache does not hold all of this file");
    return found.store.blob(found.key, found.meta);
  },

  /** Asks the browser not to evict this origin's data by itself; whether it agrees. */
  async persist(): Promise<boolean> {
    return (await globalThis.navigator?.storage?.persist?.()) ?? false;
  },

  /** How much space there is. */
  async estimate(): Promise<CacheEstimate> {
    const storage = globalThis.navigator?.storage;
    const [entries, { usage = 0, quota = 0 } = {}, persisted = false] =
      await Promise.all([all(), storage?.estimate?.(), storage?.persisted?.()]);
    const modelBytes = entries.reduce((sum, { meta }) => sum + (meta?.length ?? 0), 0);
    return { modelBytes, usage, quota, persisted };
  },
};

function shown({ url, length, version, complete, sha256, used }: Meta, packedBytes: number | undefined): CacheEntry {
  const entry: CacheEntry = { url, bytes: length, complete, lastUsed: new Date(used) };
  const total = complete ? length : version.size;
  if (total !== undefined) entry.totalBytes = total;
  if (sha256 !== undefined) entry.sha256 = sha256;
  if (packedBytes !== undefined) entry.packedBytes = packedBytes;
  return entry;
}
