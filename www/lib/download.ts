/**
 * A file from the network, from any byte on, in order.
 *
 * Where the server has parts and names the version that they are of, several are requested at a time and
 * handed out in order, unless one by itself is as quick; at most {@link PART_BYTES} of each are held. Whatever
 * breaks off goes on where it was. Otherwise one answer is read to its end.
 */
import { abortError, BitpaneError } from "./errors.js";
import { Changed, read, request, Transient, type Answer, type DownloadOptions, type Span, type Version } from "./request.js";

/** Bytes of a part. With three parts under way and one being taken in: 8 MiB. What breaks off may cost as much. */
const PART_BYTES = 2 << 20;
/**
 * Where a connection brings so many bytes a second, further ones only cost: each request takes as long as some
 * megabytes. Then one long part at a time is read as it is taken in.
 */
const FAST_BYTES_PER_MS = 40_000;
const LONG_PART_BYTES = 64 << 20;
/** So many bytes count as progress, after which attempts are counted anew. */
const PROGRESS_BYTES = 64 << 10;
/** Failures before anything has ever come are mostly no accidents: a blocked request, a wrong host. */
const FIRST_RETRIES = 2;

/** What a retry is told about. */
export interface Retry {
  attempt: number;
  attempts: number;
  waitMs: number;
  error: BitpaneError;
}

/** What a download needs to know. */
export interface DownloadContext {
  url: string;
  options: Required<DownloadOptions>;
  signal: AbortSignal;
  /** The hash of the file is known and will be checked, so that parts need no version. */
  hashKnown: boolean;
  onRetry: (retry: Retry) => void;
}

/** How quickly bytes come, not counting the time in which nobody waits for them. */
class Pace {
  #bytes = 0;
  #ms = 0;

  add(bytes: number, ms: number): void {
    this.#bytes += bytes;
    this.#ms += ms;
  }

  /** Whether a single connection is enough, as far as the bytes since the last call tell; without any, what was. */
  takeIsFast(was: boolean): boolean {
    const isFast = this.#bytes > 0 ? this.#bytes >= FAST_BYTES_PER_MS * this.#ms : was;
    this.#bytes = this.#ms = 0;
    return isFast;
  }
}

/** Counts attempts that bring nothing, and waits between them. */
class Patience {
  #attempts = 0;
  #bytes = 0;

  constructor(private readonly context: DownloadContext, private readonly isFirst: boolean) {}

  progress(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Waits until another attempt may be made; throws the error where there is to be none. */
  async afterFailure({ error, waitMs: wished }: Transient): Promise<void> {
    const { retries, retryDelayMs } = this.context.options;
    if (this.#bytes >= PROGRESS_BYTES) this.#attempts = 0;
    const isFirst = this.isFirst && this.#bytes === 0 && error.code === "NetworkError";
    const attempts = isFirst ? Math.min(retries, FIRST_RETRIES) : retries;
    if (this.#attempts >= attempts) throw error;
    const waitMs = wished ?? Math.min(retryDelayMs * 2 ** this.#attempts, 30_000) * (0.5 + Math.random() / 2);
    this.#attempts += 1;
    if (this.#bytes >= PROGRESS_BYTES) this.#bytes = 0;
    this.context.onRetry({ attempt: this.#attempts, attempts, waitMs, error });
    await pause(waitMs, this.context.signal);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    const stop = (): void => {
      clearTimeout(timer);
      reject(abortError(signal));
    };
    signal.addEventListener("abort", stop, { once: true });
  });
}

/** A file whose first answer has come. */
export class Download {
  /** Which version it is. */
  readonly version: Version;
  /** Its SHA-256 as the server tells it. */
  readonly sha256: string | undefined;
  readonly #context: DownloadContext;
  readonly #from: number;
  readonly #first: Answer;

  private constructor(context: DownloadContext, from: number, first: Answer) {
    this.#context = context;
    this.#from = from;
    this.#first = first;
    this.version = first.version;
    this.sha256 = first.sha256;
  }

  /**
   * Asks for a file from byte `from` on; where that is not 0, of the version `known`. With `inParts` false, as
   * a whole.
   */
  static async open(context: DownloadContext, from: number, known: Version | undefined, inParts: boolean): Promise<Download> {
    const patience = new Patience(context, true);
    let span: Span | undefined = inParts || from > 0 ? { start: from, end: from + PART_BYTES } : undefined;
    for (;;) {
      try {
        const first = await request(context.url, span, known, context.options.stallMs, context.signal);
        if (isUsable(first, from, context)) return new Download(context, from, first);
        first.close();
        if (from > 0) throw new Changed(`${context.url} does not go on at byte ${from}`);
        span = undefined;
      } catch (error) {
        // A server that cannot answer a request for the first part may still have the file.
        if (error instanceof Changed && span && from === 0) span = undefined;
        else if (!(error instanceof Transient)) throw error;
        else {
          await patience.afterFailure(error);
          // Some fail over the request for a part itself, such as those that compress parts.
          if (from === 0 && error.error.code === "NetworkError") span = undefined;
        }
      }
    }
  }

  /** Whether a download that ends early can be continued. */
  get canResume(): boolean {
    return mayResume(this.version, this.#context);
  }

  /** The bytes, in order. Throws {@link Changed} where it has to begin anew. */
  bytes(): AsyncGenerator<Uint8Array> {
    const size = this.version.size;
    const inParts = this.#first.isPart && this.#first.start === this.#from && size !== undefined;
    if (inParts) return this.#parts(size);
    return spanBytes(this.#context, { start: this.#from, end: size }, this.version, this.#first);
  }

  /** Ends the transfer of a download that is not read. */
  close(): void {
    this.#first.close();
  }

  async *#parts(size: number): AsyncGenerator<Uint8Array> {
    const stop = new AbortController();
    const onAbort = (): void => stop.abort(this.#context.signal.reason);
    this.#context.signal.addEventListener("abort", onAbort, { once: true });
    const context = { ...this.#context, signal: stop.signal };
    const parts: Part[] = [];
    const pace = new Pace();
    let next = this.#from;
    let isFast = false;
    const startMore = (connections: number): void => {
      while (next < size && parts.length < connections) {
        const answer = next === this.#from ? this.#first : undefined;
        const end = Math.min(size, answer?.end ?? next + PART_BYTES);
        parts.push(new Part(spanBytes(context, { start: next, end }, this.version, answer, pace)));
        next = end;
      }
    };
    // The first part comes alone, so that it tells how quick one connection is, but not for longer than that takes.
    startMore(1);
    const { connections } = this.#context.options;
    const timer = setTimeout(startMore, PART_BYTES / FAST_BYTES_PER_MS, connections);
    try {
      for (let isFirst = true; ; isFirst = false) {
        if (!isFirst && !isFast) startMore(connections);
        const [head] = parts;
        if (head) {
          yield* head.bytes();
          parts.shift();
        } else if (next < size) {
          const end = Math.min(size, next + LONG_PART_BYTES);
          yield* spanBytes(context, { start: next, end }, this.version, undefined, pace);
          next = end;
        } else {
          return;
        }
        clearTimeout(timer);
        isFast = pace.takeIsFast(isFast);
      }
    } finally {
      clearTimeout(timer);
      this.#context.signal.removeEventListener("abort", onAbort);
      stop.abort();
    }
  }
}

/** Whether an answer to the first request can be read as it is. */
function isUsable(answer: Answer, from: number, context: DownloadContext): boolean {
  if (answer.isPart) return answer.start === from && mayResume(answer.version, context);
  // The whole file, of which the first bytes are skipped: only if it is certainly the same.
  return answer.start === 0 && (from === 0 || mayResume(answer.version, context));
}

function mayResume(version: Version, context: DownloadContext): boolean {
  return version.etag !== undefined || context.hashKnown;
}

/** A part that fills while others are taken in. */
class Part {
  #chunks: Uint8Array[] = [];
  #outcome: { error?: unknown } | undefined;
  #wake: (() => void) | undefined;

  constructor(source: AsyncGenerator<Uint8Array>) {
    void this.#fill(source);
  }

  async #fill(source: AsyncGenerator<Uint8Array>): Promise<void> {
    try {
      for await (const chunk of source) {
        this.#chunks.push(chunk);
        this.#wake?.();
      }
      this.#outcome = {};
    } catch (error) {
      this.#outcome = { error };
    }
    this.#wake?.();
  }

  async *bytes(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk) yield chunk;
      else if (this.#outcome === undefined) await new Promise<void>((resolve) => { this.#wake = resolve; });
      else if ("error" in this.#outcome) throw this.#outcome.error;
      else return;
    }
  }
}

/** A span of a file, with as many requests as it takes. The first answer may have come already. */
async function* spanBytes(
  context: DownloadContext, { start, end }: Span, version: Version, answer: Answer | undefined, pace?: Pace,
): AsyncGenerator<Uint8Array> {
  const { url, options, signal } = context;
  const patience = new Patience(context, false);
  let position = start;
  for (;;) {
    try {
      answer ??= await request(url, { start: position, end }, version, options.stallMs, signal);
      for await (const bytes of bodyFrom(answer, position, context, pace)) {
        const wanted = end === undefined ? bytes : bytes.subarray(0, end - position);
        position += wanted.length;
        patience.progress(wanted.length);
        if (wanted.length > 0) yield wanted;
        if (position === end) break;
      }
      if (end === undefined || position >= end) return;
      throw new Transient(new BitpaneError("Truncated", `the connection ended after ${position} of ${end} bytes`, { url }));
    } catch (error) {
      if (!(error instanceof Transient)) throw error;
      await patience.afterFailure(error);
      // What came so far may be of another version than what would come.
      if (!mayResume(version, context)) throw new Changed(`${url} cannot be continued`, { cause: error.error });
    } finally {
      answer?.close();
      answer = undefined;
    }
  }
}

/** The body of an answer from `position` on. */
async function* bodyFrom(
  answer: Answer, position: number, context: DownloadContext, pace: Pace | undefined,
): AsyncGenerator<Uint8Array> {
  const { url, options, signal } = context;
  if (answer.start !== position && answer.start !== 0) throw new Changed(`${url} answers with another part`);
  let skip = position - answer.start;
  for (;;) {
    const start = performance.now();
    const bytes = await read(answer, url, options.stallMs, signal);
    if (!bytes) return;
    pace?.add(bytes.length, performance.now() - start);
    if (bytes.length > skip) yield bytes.subarray(skip);
    skip = Math.max(0, skip - bytes.length);
  }
}
