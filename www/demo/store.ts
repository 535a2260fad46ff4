/**
 * What the page keeps in this browser. Storage is another page's to write as well (anything of the
 * same origin), so what is read is judged like a file: a reader gives a clean value or none.
 */

/** Reads a kept value; `undefined` where there is none, or none that the reader takes. */
export function recall<T>(key: string, reader: (value: unknown) => T | undefined): T | undefined {
  try {
    const text = localStorage.getItem(`bitpane:${key}`);
    return text === null ? undefined : reader(JSON.parse(text));
  } catch {
    return undefined; // no storage here, or no JSON in it
  }
}

/** Keeps a value; whether that worked. */
export function keep(key: string, value: unknown): boolean {
  try {
    localStorage.setItem(`bitpane:${key}`, JSON.stringify(value));
    return true;
  } catch {
    return false; // switched off, or full
  }
}

/** Forgets a value. */
export function forget(key: string): void {
  try {
    localStorage.removeItem(`bitpane:${key}`);
  } catch {
    // as above
  }
}

/** Whether a value is an object whose properties can be looked at. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
