/**
 * One request of the worker for (a part of) a file: what its answer means, and what its failure does.
 *
 * Nothing in an answer is believed that can be checked: a part has to be the part that was asked for, of
 * the version that was asked for.
 */
import { abortError, BitpaneError } from "./errors.js";

/** How downloads behave. */
export interface DownloadOptions {
  /** Further attempts after one that brought nothing, at most. Default 5. */
  retries?: number;
  /** Milliseconds before the first of them; then twice as long each time, with jitter. Default 500. */
  retryDelayMs?: number;
  /** A download on which no byte arrives for so many milliseconds has stalled. Default 30000. */
  stallMs?: number;
  /** Parts of a file to request at the same time, where the server has parts. Default 3; 1 to 8. */
  connections?: number;
}

/** What tells one version of a file from another. */
export interface Version {
  /** A strong ETag, as the server sent it. */
  etag: string | undefined;
  lastModified: string | undefined;
  /** Bytes of the whole file, where an answer said so. */
  size: number | undefined;
}

/** The answer to a request. */
export interface Answer {
  /** First byte in the body, counted from the start of the file, and the one after the last where it is known. */
  start: number;
  end: number | undefined;
  version: Version;
  /** SHA-256 of the whole file, where the server tells it (`X-Linked-ETag` of Hugging Face). */
  sha256: string | undefined;
  /** Whether it is a part, so that others can be asked for. */
  isPart: boolean;
  body: ReadableStreamDefaultReader<Uint8Array>;
  /** Ends the transfer. */
  close: () => void;
}

/** The content at the address is not what it was: what has been read of it is of no use. */
export class Changed extends Error {}

/** An error that may not occur the next time. */
export class Transient extends Error {
  constructor(readonly error: BitpaneError, readonly waitMs?: number) {
    super(error.message);
  }
}

/** A retry is not put off for longer than this, whatever the server wishes. */
const LONGEST_WAIT_MS = 120_000;
/** A server that takes longer to say whether a file has changed is taken to say no. */
const REVALIDATE_MS = 5000;
/** Statuses after which another attempt may succeed. */
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);

/** Where in a file to read: from `start` to before `end`, or to its end. */
export interface Span {
  start: number;
  end?: number | undefined;
}

/**
 * Asks for a span of a file; without one, for all of it. `known` is the version that the answer has to be of.
 * An answer may begin elsewhere: the caller looks.
 */
export async function request(
  url: string, span: Span | undefined, known: Version | undefined, stallMs: number, signal: AbortSignal,
): Promise<Answer> {
  signal.throwIfAborted();
  const abort = new AbortController();
  const stop = (): void => abort.abort(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  const close = (): void => {
    signal.removeEventListener("abort", stop);
    abort.abort();
  };
  try {
    const init: RequestInit = { signal: abort.signal, headers: headersFor(url, span, known) };
    // The browser's own cache would have requests for parts of one address wait for each other.
    if (span) init.cache = "no-store";
    const response = await unlessStalled(fetch(url, init), url, stallMs);
    if (response.type === "opaque" || response.type === "opaqueredirect") {
      throw new BitpaneError("NetworkError", "the answer cannot be read by this page (no CORS)", { url });
    }
    return { ...understood(response, url, span, known), close };
  } catch (cause) {
    close();
    throw failureOf(url, cause, signal);
  }
}

function headersFor(url: string, span: Span | undefined, known: Version | undefined): Record<string, string> {
  if (!span) return {};
  const headers: Record<string, string> = { Range: `bytes=${span.start}-${span.end === undefined ? "" : span.end - 1}` };
  // To other origins this header would need their permission. The ETag of the answer is compared in any case.
  if (known?.etag && new URL(url).origin === globalThis.location?.origin) headers["If-Range"] = known.etag;
  return headers;
}

function understood(
  response: Response, url: string, span: Span | undefined, known: Version | undefined,
): Omit<Answer, "close"> {
  const { status, headers } = response;
  if (status === 416) throw new Changed(`${url} has no byte ${span?.start}`);
  if (!response.ok) throw statusError(response, url);
  if (!response.body) throw new BitpaneError("NetworkError", "the answer has no body", { url });
  const encoded = headers.has("content-encoding");
  const range = status === 206 && !encoded ? contentRange(headers) : undefined;
  // A part without its place, in several parts, or compressed, could be any part.
  if (status === 206 && (!range || isMultipart(headers))) throw new Changed(`${url} answers with a part of unknown place`);
  const etag = strongEtag(headers.get("etag"));
  const version: Version = {
    etag: encoded ? undefined : etag,
    lastModified: headers.get("last-modified") ?? undefined,
    size: range ? range.total : encoded ? undefined : announcedLength(headers),
  };
  if (known && !sameVersion(known, version)) throw new Changed(`${url} has changed`);
  return {
    start: range?.start ?? 0,
    end: range ? range.end : version.size,
    version,
    sha256: linkedHash(headers),
    isPart: range?.total !== undefined,
    body: response.body.getReader(),
  };
}

/** Whether two answers are of one version; what one of them does not say decides nothing, an ETag decides alone. */
export function sameVersion(a: Version, b: Version): boolean {
  if (a.etag !== undefined && b.etag !== undefined) return a.etag === b.etag;
  if (a.etag !== undefined || b.etag !== undefined) return a.etag === undefined;
  const differ = <T>(one: T | undefined, other: T | undefined): boolean =>
    one !== undefined && other !== undefined && one !== other;
  return !differ(a.lastModified, b.lastModified) && !differ(a.size, b.size);
}

/** Whether a kept file is what its address leads to now. Without an answer it counts as that. */
export async function sameContent(url: string, kept: Version): Promise<boolean> {
  let headers: Headers;
  try {
    const response = await fetch(url, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(REVALIDATE_MS) });
    if (!response.ok) return true;
    ({ headers } = response);
  } catch {
    return true;
  }
  const etag = strongEtag(headers.get("etag"));
  if (etag !== undefined && kept.etag !== undefined) return etag === kept.etag;
  const size = headers.has("content-encoding") ? undefined : announcedLength(headers);
  const lastModified = headers.get("last-modified") ?? undefined;
  return sameVersion({ ...kept, etag: undefined }, { etag: undefined, lastModified, size });
}

/** A weak ETag does not tell bytes apart. */
function strongEtag(etag: string | null): string | undefined {
  return etag !== null && /^"[^"]+"$/.test(etag) ? etag : undefined;
}

function contentRange(headers: Headers): { start: number; end: number; total: number | undefined } | undefined {
  const found = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
  if (!found) return undefined;
  const [start, last] = [Number(found[1]), Number(found[2])];
  const total = found[3] === "*" ? undefined : Number(found[3]);
  const holds = start <= last && (total === undefined || last < total);
  return holds ? { start, end: last + 1, total } : undefined;
}

function isMultipart(headers: Headers): boolean {
  return /^multipart\//i.test(headers.get("content-type") ?? "");
}

function announcedLength(headers: Headers): number | undefined {
  const length = Number(headers.get("content-length"));
  return Number.isSafeInteger(length) && length > 0 ? length : undefined;
}

/** Files that Hugging Face keeps in LFS are named by their SHA-256 in this header; an ETag may be something else. */
function linkedHash(headers: Headers): string | undefined {
  const found = /^"?([0-9a-f]{64})"?$/i.exec(headers.get("x-linked-etag") ?? "");
  return found?.[1]?.toLowerCase();
}

function statusError(response: Response, url: string): unknown {
  const { status } = response;
  void response.body?.cancel().catch(() => undefined);
  const message = `the server answered ${status} ${response.statusText}`.trimEnd();
  const error = new BitpaneError("HttpStatus", message, { url, status });
  if (!PASSING.has(status)) return error;
  const waitMs = retryAfter(response.headers.get("retry-after"));
  return waitMs !== undefined && waitMs > LONGEST_WAIT_MS ? error : new Transient(error, waitMs);
}

/** Seconds, or a date. */
function retryAfter(value: string | null): number | undefined {
  if (value === null) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(ms, 0) : undefined;
}

/** The browser hides why a request failed, so the message lists what it can be. */
function failureOf(url: string, cause: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return abortError(signal);
  if (cause instanceof BitpaneError || cause instanceof Changed || cause instanceof Transient) return cause;
  const causes = [
    "no connection", "an unknown host", "a redirection without end", "a server that does not allow this origin (CORS)",
    "an http: address on an https: page", "the page's own Content-Security-Policy",
  ];
  const message = `the request failed before an answer came; possible causes: ${causes.join(", ")}`;
  return new Transient(new BitpaneError("NetworkError", message, { url, cause }));
}

/** The next bytes of an answer, or undefined at its end. */
export async function read(answer: Answer, url: string, stallMs: number, signal: AbortSignal): Promise<Uint8Array | undefined> {
  try {
    const { done, value } = await unlessStalled(answer.body.read(), url, stallMs);
    return done ? undefined : value;
  } catch (cause) {
    answer.close();
    if (signal.aborted) throw abortError(signal);
    if (cause instanceof Transient) throw cause;
    throw new Transient(new BitpaneError("Truncated", "the connection ended before the file did", { url, cause }));
  }
}

/** A wait for bytes is counted in so many steps. */
const STALL_STEPS = 8;

/**
 * Time in which this thread stands still (a tensor is being quantized, the device slept, others have the
 * processor) is no silence of the server's, as bytes may lie there unread. So the wait is counted in steps, and
 * each begins only when the thread has come to the end of the one before.
 */
async function unlessStalled<T>(step: Promise<T>, url: string, stallMs: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stalled = new Promise<never>((_, reject) => {
    const message = `no byte arrived for ${stallMs / 1000} seconds`;
    const wait = (steps: number): void => {
      if (steps === 0) reject(new Transient(new BitpaneError("Stalled", message, { url })));
      else timer = setTimeout(wait, stallMs / STALL_STEPS, steps - 1);
    };
    wait(STALL_STEPS);
  });
  try {
    return await Promise.race([step, stalled]);
  } finally {
    clearTimeout(timer);
    step.catch(() => undefined);
  }
}
