/**
 * Checks of arguments and options.
 *
 * Each option is read exactly once, so a getter or a Proxy cannot show one value to the
 * check and another to the use. Types are checked here; domains (what temperature may be)
 * are the runtime's to judge.
 */
import { badArgument, BitpaneError } from "./errors.js";
import { MAX_THREADS } from "./features.js";
import type { DownloadOptions } from "./request.js";
import type { CacheOptions } from "./types.js";

/** Turns a given value into a clean one, or throws `BadArgument` naming `key`. */
export type Rule<T> = (key: string, value: unknown) => T;

/** One rule for each option of `T`. */
export type Rules<T> = { [K in keyof T]-?: Rule<Exclude<T[K], undefined>> };

/** The options that were given, checked. An unknown one is an error: most often a typo. */
export function readOptions<T extends object>(options: unknown, rules: Rules<T>): Partial<T> {
  const clean: Partial<T> = {};
  if (options === undefined) return clean;
  if (typeof options !== "object" || options === null) {
    throw badArgument("options", "options must be an object");
  }
  for (const key of namesOf(options)) {
    if (!Object.hasOwn(rules, key)) throw badArgument(key, `unknown option "${key}"`);
    const value = read(options, key);
    if (value !== undefined) clean[key as keyof T] = rules[key as keyof T](key, value);
  }
  return clean;
}

function namesOf(options: object): string[] {
  try {
    return Object.keys(options);
  } catch (cause) {
    throw new BitpaneError("BadArgument", "options cannot be read", { key: "options", cause });
  }
}

function read(options: object, key: string): unknown {
  try {
    return (options as Record<string, unknown>)[key];
  } catch (cause) {
    throw new BitpaneError("BadArgument", `option "${key}" cannot be read`, { key, cause });
  }
}

/** Any number but NaN. */
export const number: Rule<number> = (key, value) => {
  if (typeof value === "number" && !Number.isNaN(value)) return value;
  throw badArgument(key, `"${key}" must be a number`);
};

/** A whole number from 0 on that a double holds exactly. */
export const count: Rule<number> = (key, value) => {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw badArgument(key, `"${key}" must be a whole number, 0 or more`);
};

/** Bytes. */
export const bytes: Rule<Uint8Array> = (key, value) => {
  if (value instanceof Uint8Array) return value;
  throw badArgument(key, `"${key}" must be a Uint8Array`);
};

/** A whole number from 1 on. */
export const positive: Rule<number> = (key, value) => {
  const given = count(key, value);
  if (given > 0) return given;
  throw badArgument(key, `"${key}" must be 1 or more`);
};

/** A whole number from -1 on. */
export const countOrAll: Rule<number> = (key, value) => {
  if (value === -1) return value;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw badArgument(key, `"${key}" must be a whole number, 0 or more, or -1 for all`);
};

/** True or false. */
export const flag: Rule<boolean> = (key, value) => {
  if (typeof value === "boolean") return value;
  throw badArgument(key, `"${key}" must be true or false`);
};

/** Text. */
export const text: Rule<string> = (key, value) => {
  if (typeof value === "string") return value;
  throw badArgument(key, `"${key}" must be a string`);
};

/** An address. */
export const address: Rule<string> = (key, value) => (value instanceof URL ? value.href : text(key, value));

/** A list of what a rule takes. */
export function listOf<T>(rule: Rule<T>): Rule<T[]> {
  return (key, value) => {
    if (!Array.isArray(value)) throw badArgument(key, `"${key}" must be a list`);
    return Array.from(value, (item) => rule(key, item));
  };
}

/** A list of texts. */
export const texts: Rule<string[]> = listOf(text);

/** A list of texts, or of token ids for each. */
export const textsOrTokens: Rule<(string | Uint32Array)[]> = (key, value) => {
  if (!Array.isArray(value)) throw badArgument(key, `"${key}" must be a list of strings`);
  return Array.from(value, (item) => (typeof item === "string" ? item : tokenIds(key, item)));
};

/** One text or a list of them. */
export const textOrTexts: Rule<string[]> = (key, value) =>
  typeof value === "string" ? [value] : texts(key, value);

/** A function. */
export const callback: Rule<(...args: never[]) => unknown> = (key, value) => {
  if (typeof value === "function") return value as (...args: never[]) => unknown;
  throw badArgument(key, `"${key}" must be a function`);
};

/** An AbortSignal. */
export const abortSignal: Rule<AbortSignal> = (key, value) => {
  if (value instanceof AbortSignal) return value;
  throw badArgument(key, `"${key}" must be an AbortSignal`);
};

/** One of some words or numbers. */
export function oneOf<T extends string | number>(words: readonly T[]): Rule<T> {
  return (key, value) => {
    const word = words.find((known) => known === value);
    if (word !== undefined) return word;
    throw badArgument(key, `"${key}" must be ${words.map((known) => JSON.stringify(known)).join(" or ")}`);
  };
}

/** Threads: "auto", or how many. */
export const threads: Rule<"auto" | number> = (key, value) => {
  if (value === "auto") return value;
  if (positive(key, value) <= MAX_THREADS) return value as number;
  throw badArgument(key, `"${key}" must be "auto" or 1 to ${MAX_THREADS}`);
};

/** Types by the patterns of tensor names, as the runtime takes them. */
export const overrides: Rule<Readonly<Record<string, string>>> = (key, value) => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw badArgument(key, `"${key}" must be an object from patterns to types`);
  }
  const pairs = namesOf(value).map((pattern) => [pattern, text(pattern, read(value, pattern))]);
  return Object.fromEntries(pairs) as Record<string, string>;
};

/** A SHA-256 in hexadecimal, in lower case. An empty one is refused, never "no check". */
const oneSha256: Rule<string> = (key, value) => {
  if (typeof value === "string" && /^[0-9a-f]{64}$/i.test(value)) return value.toLowerCase();
  throw badArgument(key, `"${key}" must be 64 hexadecimal digits`);
};

/** The SHA-256 of a file, of each file of a list, or by file name. None of them may be empty. */
export const sha256: Rule<string | string[] | Record<string, string>> = (key, value) => {
  if (Array.isArray(value)) return listOf(oneSha256)(key, value);
  if (typeof value !== "object" || value === null) return oneSha256(key, value);
  const names = namesOf(value);
  if (names.length === 0) throw badArgument(key, `"${key}" names no file`);
  return Object.fromEntries(names.map((name) => [name, oneSha256(key, read(value, name))]));
};

/** True, false, or how to keep files. */
export const cache: Rule<boolean | CacheOptions> = (key, value) =>
  typeof value === "object" ? readOptions<CacheOptions>(value, { maxBytes: count, revalidate: flag, packed: flag }) : flag(key, value);

/** How to download. */
export const download: Rule<DownloadOptions> = (key, value) => {
  if (typeof value !== "object") throw badArgument(key, `"${key}" must be an object`);
  const connections: Rule<number> = (name, given) => {
    if (positive(name, given) <= 8) return given as number;
    throw badArgument(name, `"${name}" must be 1 to 8`);
  };
  return readOptions<DownloadOptions>(value, { retries: count, retryDelayMs: count, stallMs: positive, connections });
};

/**
 * What is added to the scores of tokens: an object from token ids to numbers, or pairs of a token
 * id or a text and a number or `false`. Copied, so that it is read once.
 */
export const logitBias: Rule<[number | string, number | false][]> = (key, value) => {
  const pairs = Array.isArray(value) ? Array.from(value as unknown[]) : entriesOf(key, value);
  return pairs.map((pair) => {
    const [token, bias, ...rest] = Array.isArray(pair) ? Array.from(pair as unknown[]) : [];
    const isToken = typeof token === "string" || (typeof token === "number" && Number.isSafeInteger(token) && token >= 0);
    const isBias = bias === false || (typeof bias === "number" && bias < Infinity);
    if (isToken && isBias && rest.length === 0) return [token as number | string, bias as number | false];
    throw badArgument(key, `"${key}" must pair token ids or texts with numbers below infinity or false`);
  });
};

/** A JSON Schema, as the JSON that is posted: properties keep their order. */
export const jsonSchema: Rule<object | boolean> = (key, value) => {
  if (typeof value !== "boolean" && (typeof value !== "object" || value === null)) {
    throw badArgument(key, `"${key}" must be a JSON Schema: an object, true or false`);
  }
  try {
    const copy: unknown = JSON.parse(JSON.stringify(value));
    if (typeof copy === "boolean" || (typeof copy === "object" && copy !== null)) return copy;
  } catch (cause) {
    throw new BitpaneError("BadArgument", `"${key}" cannot be written as JSON`, { key, cause });
  }
  throw badArgument(key, `"${key}" must be a JSON Schema: an object, true or false`);
};

/** The entries of an object whose names are token ids. */
function entriesOf(key: string, value: unknown): [number, unknown][] {
  if (typeof value !== "object" || value === null) throw badArgument(key, `"${key}" must be an object or a list of pairs`);
  return namesOf(value).map((name) => {
    if (/^\d{1,10}$/.test(name)) return [Number(name), read(value, name)];
    throw badArgument(key, `"${name}" in "${key}" is no token id; texts go into a list of pairs`);
  });
}

/** Token ids. */
export function tokenIds(key: string, value: unknown): Uint32Array {
  if (value instanceof Uint32Array) return value.slice();
  if (!Array.isArray(value)) throw badArgument(key, `"${key}" must be a list of token ids`);
  return Uint32Array.from(value, (id: unknown) => {
    if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id <= 0xffff_ffff) return id;
    throw badArgument(key, `"${key}" must hold token ids: whole numbers, 0 or more`);
  });
}
