/** A benchmark's result as a link, and back. What a link says is a stranger's word: it is checked and shown as text. */
import { isRecord } from "./store.js";

/** A result with what one needs to compare it. */
export interface SharedResult {
  model: string;
  promptTps: number | null;
  decodeTps: number | null;
  imageMs: number | null;
  loadMs: number;
  wasmBytes: number;
  weightBytes: number;
  bitsPerWeight: number;
  build: string;
  kernel: string;
  threads: number;
  cores: number;
}

const NUMBERS = ["loadMs", "wasmBytes", "weightBytes", "bitsPerWeight", "threads", "cores"] as const;
const RATES = ["promptTps", "decodeTps", "imageMs"] as const;
const TEXTS = ["model", "build", "kernel"] as const;
const LONGEST_TEXT = 200;
const LONGEST_LINK = 4000;

/** The hash of a link that carries a result. */
export function hashOf(result: SharedResult): string {
  const bytes = new TextEncoder().encode(JSON.stringify(result));
  const text = btoa(String.fromCharCode(...bytes));
  return `#result=${text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
}

/** The result in a link's hash; `undefined` where there is none, or none that can be believed to be one. */
export function resultIn(hash: string): SharedResult | undefined {
  const text = /^#result=([\w-]+)$/.exec(hash.slice(0, LONGEST_LINK))?.[1];
  if (text === undefined) return undefined;
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    return read(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch {
    return undefined;
  }
}

function read(value: unknown): SharedResult | undefined {
  if (!isRecord(value)) return undefined;
  const isFigure = (key: string): boolean => typeof value[key] === "number" && Number.isFinite(value[key]) && value[key] >= 0;
  if (!NUMBERS.every(isFigure)) return undefined;
  if (!RATES.every((key) => value[key] === null || isFigure(key))) return undefined;
  if (!TEXTS.every((key) => typeof value[key] === "string" && value[key].length <= LONGEST_TEXT)) return undefined;
  const clean = [...NUMBERS, ...RATES, ...TEXTS].map((key) => [key, value[key]]);
  return Object.fromEntries(clean) as SharedResult;
}
