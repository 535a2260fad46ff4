/**
 * Every code that a {@link BitpaneError} can carry: what rule an input broke, or what
 * failed around it. The same closed list as in the Rust crate (`src/error.rs`); a test
 * parses both files and compares them.
 */
export const ERROR_CODES = [
  "Truncated",
  "BadMagic",
  "UnsupportedVersion",
  "LimitExceeded",
  "BadKey",
  "Duplicate",
  "BadType",
  "BadValue",
  "BadAlignment",
  "BadName",
  "BadShape",
  "Overflow",
  "UnsupportedQuant",
  "BadOffset",
  "TrailingData",
  "ShardMismatch",
  "UnsupportedArch",
  "BadConfig",
  "MissingTensor",
  "ShapeMismatch",
  "BadHeader",
  "UnsupportedDtype",
  "BadShardPath",
  "NonFiniteWeight",
  "TokenizerInvalid",
  "UnsupportedPreTokenizer",
  "TemplateError",
  "TemplateBudget",
  "GrammarError",
  "GrammarBudget",
  "BadArgument",
  "ImageDecodeError",
  "HttpStatus",
  "NetworkError",
  "Stalled",
  "IntegrityError",
  "RuntimeUnavailable",
  "VersionMismatch",
  "OutOfMemory",
  "InstancePoisoned",
  "WorkerCrashed",
  "Disposed",
  "Busy",
  "ContextOverflow",
  "NumericFault",
  "ImatrixMismatch",
  "BudgetInfeasible",
  "Io",
] as const;

/** One of {@link ERROR_CODES}. Stable: match on it, not on the message. */
export type ErrorCode = (typeof ERROR_CODES)[number];

/** An error in the plain form in which it crosses from WebAssembly and from the worker. */
export interface WireError {
  code: ErrorCode;
  message: string;
  /** The metadata key, option or argument at fault. */
  key?: string | undefined;
  /** The tensor at fault. */
  tensor?: string | undefined;
  /** Byte offset, from the start of the file, at which the fault was found. */
  offset?: number | undefined;
  /** The address whose answer was at fault. */
  url?: string | undefined;
  /** The HTTP status, for `HttpStatus`. */
  status?: number | undefined;
  /** The bytes needed and the bytes there are, for `OutOfMemory` where they are known. */
  needed?: number | undefined;
  available?: number | undefined;
  cause?: unknown;
}

/** Most characters of a message: an address or a name in a file can be as long as the file. */
const MESSAGE_LENGTH = 2048;

/** `text` without its middle where it is too long: what went wrong stands at either end. */
function shortened(text: string): string {
  if (text.length <= MESSAGE_LENGTH) return text;
  const cut = " […] ";
  const half = (MESSAGE_LENGTH - cut.length) >> 1;
  return text.slice(0, half) + cut + text.slice(-half);
}

/** Every failure of this package except an abort (a `DOMException` named `AbortError`). */
export class BitpaneError extends Error {
  override readonly name = "BitpaneError";
  /** What went wrong, for programs. */
  readonly code: ErrorCode;
  /** The metadata key, option or argument at fault. */
  readonly key?: string;
  /** The tensor at fault. */
  readonly tensor?: string;
  /** Byte offset, from the start of the file, at which the fault was found. */
  readonly offset?: number;
  /** The address whose answer was at fault. */
  readonly url?: string;
  /** The HTTP status, for `HttpStatus`. */
  readonly status?: number;
  /** Bytes that are needed, for `OutOfMemory` where that is known. */
  readonly needed?: number;
  /** Bytes that there are, for `OutOfMemory` where that is known. */
  readonly available?: number;

  constructor(code: ErrorCode, message: string, details: Omit<WireError, "code" | "message"> = {}) {
    super(shortened(message), details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    if (details.key !== undefined) this.key = details.key;
    if (details.tensor !== undefined) this.tensor = details.tensor;
    if (details.offset !== undefined) this.offset = details.offset;
    if (details.url !== undefined) this.url = details.url;
    if (details.status !== undefined) this.status = details.status;
    if (details.needed !== undefined) this.needed = details.needed;
    if (details.available !== undefined) this.available = details.available;
  }

  /** Rebuilds an error that arrived as a plain object. */
  static from(wire: WireError): BitpaneError {
    return new BitpaneError(wire.code, wire.message, wire);
  }
}

/** Whether a thrown value is an error in plain form, as the WebAssembly side throws it. */
export function isWireError(value: unknown): value is WireError {
  if (typeof value !== "object" || value === null) return false;
  const { code, message } = value as Partial<WireError>;
  return typeof message === "string" && (ERROR_CODES as readonly unknown[]).includes(code);
}

/** The plain form of an error, for `postMessage`. A cause that cannot be cloned becomes its text. */
export function toWire(error: BitpaneError): WireError {
  const { code, message, key, tensor, offset, url, status, needed, available } = error;
  const cause = error.cause === undefined ? undefined : String(error.cause);
  return { code, message, key, tensor, offset, url, status, needed, available, cause };
}

/** The error with which an aborted call rejects. */
export function abortError(signal?: AbortSignal): DOMException {
  const reason: unknown = signal?.reason;
  if (reason instanceof DOMException && reason.name === "AbortError") return reason;
  const error = new DOMException("the operation was aborted", "AbortError");
  if (reason !== undefined) Object.defineProperty(error, "cause", { value: reason });
  return error;
}

/** A bad argument, named. */
export function badArgument(key: string, message: string): BitpaneError {
  return new BitpaneError("BadArgument", message, { key });
}
