/**
 * Frees an object of the WebAssembly instance. After a trap it is still lent out and cannot be freed: the
 * instance ends then, and what trapped it is what the caller has to hear of.
 */
export function release(object: { free(): void }): void {
  try {
    object.free();
  } catch {
    // The whole instance goes.
  }
}
