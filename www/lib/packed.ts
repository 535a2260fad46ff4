/**
 * The weights of a model as they are held in memory, kept beside its file: the next load with the same options reads
 * them straight into the memory of the runtime, with nothing to quantize or to lay out.
 *
 * An entry names the file that it was made of, by the checksums of that file's blocks, the options, and the version of
 * the layouts. Whatever does not fit is made anew; none of this ever makes a load fail.
 */
import type { Glue, WasmLoader } from "./builds.js";
import type { WireLoadOptions } from "./protocol.js";
import { Changed } from "./request.js";
import { BLOCK_BYTES, checksum, keyOf, newMeta, packedUrl, withLock, type Meta, type RawData, type Store } from "./store.js";
import type { Kept } from "./kept.js";
import { release } from "./release.js";
import { VERSION } from "./version.js";

/** Bytes read or written at a time. */
const CHUNK_BYTES = 4 << 20;

/** What is needed to take or to keep packed weights. */
export interface PackedContext {
  glue: Glue;
  memory: WebAssembly.Memory;
  url: string;
  kept: Kept;
  options: WireLoadOptions;
  maxBytes: number | undefined;
  /** Hears of bytes that have been taken, and of how many there are. */
  onBytes: (bytes: number, total: number) => void;
  warn: (message: string) => void;
}

/** Which file, options and version packed weights are of. */
function originOf({ glue, kept: { meta }, options: { quantize, overrides, config } }: PackedContext): string {
  const source = `${meta.length}:${checksum(meta.blocks.join(""))}`;
  return JSON.stringify([source, `${VERSION}/${glue.imageVersion()}`, quantize ?? null, overrides ?? [], config ?? null]);
}

function sumOf(glue: Glue, bytes: Uint8Array): string {
  const hasher = new glue.Hasher(false);
  try {
    hasher.update(bytes);
    return hasher.takeBlock();
  } finally {
    release(hasher);
  }
}

/**
 * Fills a new loader with packed weights; false where there are none of this file and these options, and then the
 * loader is as it was. Throws {@link Changed} where they turn out to be damaged: they are gone then.
 */
export async function takePacked(context: PackedContext, loader: WasmLoader): Promise<boolean> {
  const { store } = context.kept;
  const key = keyOf(packedUrl(context.url));
  const taken = await withLock(key, true, async () => {
    const meta = await store.meta(key);
    if (meta?.packed?.origin !== originOf(context)) return false;
    const slot = await store.open(key);
    let hasHeader = false;
    try {
      const { data } = slot;
      hasHeader = data !== undefined && takeHeader(context, data, meta, loader);
      if (hasHeader && takeTensors(context, data!, meta, loader)) {
        await slot.saveMeta({ ...meta, used: Date.now() });
        return true;
      }
    } finally {
      slot.close();
    }
    await store.remove(key);
    if (hasHeader) throw new Changed("the packed weights that were kept are damaged");
    return false;
  });
  return taken === true;
}

function takeHeader({ glue, onBytes }: PackedContext, data: RawData, { packed, length }: Meta, loader: WasmLoader): boolean {
  const header = new Uint8Array(packed!.header);
  if (!data.read(header, 0) || sumOf(glue, header) !== packed!.headerSum) return false;
  loader.push(header);
  onBytes(header.length, length);
  return true;
}

function takeTensors({ memory, onBytes }: PackedContext, data: RawData, meta: Meta, loader: WasmLoader): boolean {
  const packed = meta.packed!;
  const { tensorsDone, tensorsTotal } = loader.progress() as { tensorsDone: number; tensorsTotal: number };
  if (packed.sums.length !== tensorsTotal) return false;
  let at = packed.header;
  for (const sum of packed.sums.slice(tensorsDone)) {
    for (const [address, length] of pairs(loader.beginImage())) {
      for (let done = 0; done < length; done += CHUNK_BYTES) {
        const into = new Uint8Array(memory.buffer, address + done, Math.min(CHUNK_BYTES, length - done));
        if (!data.read(into, at)) return false;
        at += into.length;
        onBytes(into.length, meta.length);
      }
    }
    if (!loader.endImage(sum)) return false;
  }
  return true;
}

function* pairs(places: Float64Array): Generator<[number, number]> {
  for (let i = 0; i < places.length; i += 2) yield [places[i]!, places[i + 1]!];
}

/** Keeps the weights that a loader has packed, unless they are kept already or there is no room. */
export async function keepPacked(context: PackedContext, loader: WasmLoader): Promise<void> {
  const { kept, url, warn } = context;
  const { store } = kept;
  const header = loader.imageHeader();
  if (header === undefined || store.kind !== "opfs" || !kept.meta.complete) return;
  const key = keyOf(packedUrl(url));
  try {
    await withLock(key, true, async () => {
      const origin = originOf(context);
      if ((await store.meta(key))?.packed?.origin === origin) return;
      await store.remove(key);
      const { tensorsTotal } = loader.progress() as { tensorsTotal: number };
      let length = header;
      for (let i = 0; i < tensorsTotal; i += 1) for (const [, bytes] of pairs(loader.image(i))) length += bytes;
      if (!(await hasRoom(store, key, length, context.maxBytes))) return;
      try {
        await write(context, key, origin, { header, length, tensorsTotal }, loader);
      } catch (error) {
        await store.remove(key);
        throw error;
      }
    });
  } catch (error) {
    warn(`the packed weights are not kept: ${String(error)}`);
  }
}

async function write(
  { kept, glue, memory, url }: PackedContext, key: string, origin: string,
  { header, length, tensorsTotal }: { header: number; length: number; tensorsTotal: number }, loader: WasmLoader,
): Promise<void> {
  const bytes = await headerOf(kept, header);
  const slot = await kept.store.open(key);
  try {
    const { data } = slot;
    if (!data) return;
    slot.reserve(length);
    data.write(bytes, 0);
    let at = header;
    const sums: string[] = [];
    for (let i = 0; i < tensorsTotal; i += 1) {
      for (const [address, size] of pairs(loader.image(i))) {
        for (let done = 0; done < size; done += CHUNK_BYTES) {
          const piece = new Uint8Array(memory.buffer, address + done, Math.min(CHUNK_BYTES, size - done));
          data.write(piece, at);
          at += piece.length;
        }
      }
      sums.push(loader.imageSum(i));
    }
    const meta = newMeta(packedUrl(url), kept.meta.version);
    const packed = { origin, header, headerSum: sumOf(glue, bytes), sums };
    await slot.saveMeta({ ...meta, complete: true, length, packed });
  } finally {
    slot.close();
  }
}

/** The first bytes of the file that is kept. */
async function headerOf(kept: Kept, length: number): Promise<Uint8Array> {
  const header = new Uint8Array(length);
  for (let at = 0; at < length; at += BLOCK_BYTES) {
    const block = await kept.read(at / BLOCK_BYTES);
    if (!block) throw new DOMException("the file's header cannot be read again", "NotReadableError");
    header.set(block.subarray(0, length - at), at);
  }
  return header;
}

/** Whether so many bytes fit. Other packed weights give way, files that were downloaded do not. */
async function hasRoom(store: Store, key: string, bytes: number, maxBytes: number | undefined): Promise<boolean> {
  for (;;) {
    const { usage = 0, quota = Infinity } = (await navigator.storage.estimate().catch(() => undefined)) ?? {};
    const entries = await store.list();
    const held = entries.reduce((sum, { meta }) => sum + (meta?.length ?? 0), 0);
    if (usage + bytes <= quota && held + bytes <= (maxBytes ?? Infinity)) return true;
    const others = entries.filter((entry) => entry.key !== key && entry.meta?.packed);
    others.sort((a, b) => (a.meta?.used ?? 0) - (b.meta?.used ?? 0));
    let isRemoved = false;
    for (const other of others) {
      isRemoved = (await withLock(other.key, false, () => store.remove(other.key).then(() => true))) === true;
      if (isRemoved) break;
    }
    if (!isRemoved) return false;
  }
}
