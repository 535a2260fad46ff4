/**
 * A build is compiled once, for threads that share a memory. With a memory of its own the same code is the
 * build for one thread: atomic instructions are defined on memories that are not shared, and all that a
 * module says of the matter is one bit of its import (WebAssembly core specification, "Limits").
 */

const MEMORY_IMPORT = 0x02;
const IMPORT_SECTION = 0x02;
const HEADER_BYTES = 8;
/** Bits of a memory's limits. */
const HAS_MAXIMUM = 0x01;
const IS_SHARED = 0x02;
const HAS_64_BITS = 0x04;

/** Makes a module, in place, import a memory that is not shared. Throws a `RangeError` where it imports no shared one. */
export function withOwnMemory(wasm: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const at = limitsOf(wasm);
  const flags = wasm[at]!;
  if ((flags & ~HAS_64_BITS) !== (HAS_MAXIMUM | IS_SHARED)) throw new RangeError("its memory is not a shared one");
  wasm[at] = flags & ~IS_SHARED;
  return wasm;
}

/** Where the limits of the imported memory stand. */
function limitsOf(wasm: Uint8Array): number {
  const reader = new Reader(wasm, HEADER_BYTES);
  while (reader.hasMore()) {
    const id = reader.byte();
    const end = reader.length() + reader.at;
    if (id === IMPORT_SECTION) return memoryAmong(reader);
    reader.at = end;
  }
  throw new RangeError("it imports nothing");
}

/** Walks through the imports up to the memory. */
function memoryAmong(reader: Reader): number {
  for (let left = reader.length(); left > 0; left -= 1) {
    reader.skip(reader.length()); // module
    reader.skip(reader.length()); // name
    switch (reader.byte()) {
      case MEMORY_IMPORT:
        return reader.at;
      case 0x00: // a function: its type
        reader.length();
        break;
      case 0x03: // a global: its type, whether it is mutable
        reader.skip(2);
        break;
      default:
        throw new RangeError("it imports what no build does");
    }
  }
  throw new RangeError("it imports no memory");
}

class Reader {
  readonly #bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  hasMore(): boolean {
    return this.at < this.#bytes.length;
  }

  byte(): number {
    const byte = this.#bytes[this.at];
    if (byte === undefined) throw new RangeError("it ends too early");
    this.at += 1;
    return byte;
  }

  skip(n: number): void {
    this.at += n;
  }

  /** An unsigned LEB128 number. */
  length(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new RangeError("a number of more than 32 bits");
  }
}
