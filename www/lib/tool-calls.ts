/**
 * Calls of tools, read out of what models write.
 *
 * Understood are `<tool_call>{...}</tool_call>` (Hermes, Qwen), `[TOOL_CALLS][...]` (Mistral),
 * `<function=name>{...}</function>` (Llama 3.1, Functionary), and, where an answer is nothing but JSON
 * (Llama 3.x, others), an object or a list of objects with the name of a tool that was offered and its
 * "arguments" or "parameters", also in a ``` fence. Special tokens in front of these give no text and do
 * not matter. What is none of this stays text.
 */

/** A call without its id. */
export interface ParsedCall {
  name: string;
  /** JSON. */
  arguments: string;
}

/** An answer taken apart. */
export interface ParsedAnswer {
  content: string;
  calls: ParsedCall[];
}

const MARKERS = ["<tool_call>", "[TOOL_CALLS]", "<function=", "<|python_tag|>"] as const;

/** So many markers without a call: the rest is text. Each may be read to the end of the answer. */
const MAX_MISSES = 32;

/** Withholds from a stream what may be a call, until the answer has ended. */
export class CallFilter {
  readonly #names: ReadonlySet<string>;
  /** Text that was not given out. */
  #held = "";
  #holds = false;
  #started = false;

  constructor(names: Iterable<string>) {
    this.#names = new Set(names);
  }

  /** Takes text; gives what is certainly no call. */
  push(text: string): string {
    this.#held += text;
    if (this.#holds) return "";
    if (!this.#started) {
      const head = this.#held.trimStart();
      if (head === "") return "";
      // An answer that begins as JSON may be a call as a whole.
      if (/^(\{|\[|`)/.test(head)) {
        this.#holds = true;
        return "";
      }
      this.#started = true;
    }
    const found = MARKERS.map((marker) => this.#held.indexOf(marker)).filter((at) => at >= 0);
    this.#holds = found.length > 0;
    const end = this.#holds ? Math.min(...found) : this.#held.length - begunMarker(this.#held);
    const free = this.#held.slice(0, end);
    this.#held = this.#held.slice(end);
    return free;
  }

  /** The rest of the answer. */
  finish(): ParsedAnswer {
    return parseAnswer(this.#held, this.#names);
  }
}

/** How much of a text's end may be the start of a marker. */
function begunMarker(text: string): number {
  let longest = 0;
  for (const marker of MARKERS) {
    for (let n = Math.min(marker.length - 1, text.length); n > longest; n -= 1) {
      if (text.endsWith(marker.slice(0, n))) longest = n;
    }
  }
  return longest;
}

/** Takes an answer apart. */
export function parseAnswer(text: string, names: ReadonlySet<string>): ParsedAnswer {
  const marked = markedCalls(text);
  if (marked.calls.length > 0) return marked;
  const calls = bareCalls(text, names);
  return calls.length > 0 ? { content: "", calls } : { content: text, calls: [] };
}

/** Calls behind markers; what stands around them is content. */
function markedCalls(text: string): ParsedAnswer {
  const calls: ParsedCall[] = [];
  let content = "";
  let from = 0;
  let misses = 0;
  while (from < text.length && misses < MAX_MISSES) {
    const marker = firstMarker(text, from);
    if (!marker) break;
    const read = readMarked(text, marker.name, marker.at + marker.name.length);
    const end = read ? read.end : marker.at + marker.name.length;
    content += text.slice(from, read ? marker.at : end);
    calls.push(...(read?.calls ?? []));
    misses += read ? 0 : 1;
    from = end;
  }
  content += text.slice(from);
  return { content: calls.length > 0 ? content.trim() : content, calls };
}

function firstMarker(text: string, from: number): { name: string; at: number } | undefined {
  const pattern = /<tool_call>|\[TOOL_CALLS\]|<function=|<\|python_tag\|>/g;
  pattern.lastIndex = from;
  const found = pattern.exec(text);
  return found ? { name: found[0], at: found.index } : undefined;
}

function readMarked(text: string, marker: string, at: number): { calls: ParsedCall[]; end: number } | undefined {
  if (marker === "<function=") {
    const name = /^[^>\s]{1,256}>/.exec(text.slice(at, at + 260))?.[0];
    const value = name && readJson(text, at + name.length);
    if (!name || !value || !isObject(value.json)) return undefined;
    const calls = [{ name: name.slice(0, -1), arguments: JSON.stringify(value.json) }];
    return { calls, end: skip(text, value.end, "</function>") };
  }
  // Newer models of Mistral write the name before its arguments.
  const named = /^\s*([\w.-]{1,256})(?:\[ARGS\])?(?=\{)/.exec(text.slice(at, at + 300));
  const value = readJson(text, at + (named?.[0].length ?? 0));
  if (!value) return undefined;
  const calls = named?.[1] && isObject(value.json)
    ? [{ name: named[1], arguments: JSON.stringify(value.json) }]
    : callsOf(value.json, undefined);
  return calls.length > 0 ? { calls, end: skip(text, value.end, "</tool_call>") } : undefined;
}

function skip(text: string, at: number, end: string): number {
  const space = /^\s*/.exec(text.slice(at))?.[0].length ?? 0;
  return text.startsWith(end, at + space) ? at + space + end.length : at;
}

/** Calls in an answer that is nothing but JSON: one value, or several after one another. */
function bareCalls(text: string, names: ReadonlySet<string>): ParsedCall[] {
  const fenced = /^\s*```(?:json)?\s*\n([\s\S]*?)\n?\s*```\s*$/.exec(text);
  const body = fenced?.[1] ?? text;
  const calls: ParsedCall[] = [];
  let at = 0;
  while (/\S/.test(body.slice(at))) {
    const value = readJson(body, at);
    const found = value ? callsOf(value.json, names) : [];
    if (!value || found.length === 0) return [];
    calls.push(...found);
    at = value.end + (/^\s*[;,]/.exec(body.slice(value.end))?.[0].length ?? 0);
  }
  return calls;
}

/** The calls that a value stands for; with `names`, only of these. */
function callsOf(json: unknown, names: ReadonlySet<string> | undefined): ParsedCall[] {
  if (Array.isArray(json)) {
    const calls = json.map((item) => callsOf(item, names));
    return calls.every((found) => found.length > 0) ? calls.flat() : [];
  }
  if (!isObject(json)) return [];
  if (Array.isArray(json["tool_calls"])) return callsOf(json["tool_calls"], names);
  if (isObject(json["function"])) return callsOf(json["function"], names);
  const name = json["name"] ?? json["tool_name"] ?? json["function"];
  if (typeof name !== "string" || (names && !names.has(name))) return [];
  const given = json["arguments"] ?? json["parameters"] ?? (names ? undefined : {});
  if (typeof given === "string") return [{ name, arguments: given }];
  return isObject(given) ? [{ name, arguments: JSON.stringify(given) }] : [];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The JSON object or list that begins at a place, white space aside, and where it ends. */
function readJson(text: string, from: number): { json: unknown; end: number } | undefined {
  const start = from + (/^\s*/.exec(text.slice(from))?.[0].length ?? 0);
  if (text[start] !== "{" && text[start] !== "[") return undefined;
  let depth = 0;
  let quoted = false;
  for (let at = start; at < text.length; at += 1) {
    const c = text[at];
    if (quoted) {
      if (c === "\\") at += 1;
      else if (c === "\"") quoted = false;
    } else if (c === "\"") quoted = true;
    else if (c === "{" || c === "[") depth += 1;
    else if (c === "}" || c === "]") depth -= 1;
    if (depth === 0) {
      try {
        return { json: JSON.parse(text.slice(start, at + 1)) as unknown, end: at + 1 };
      } catch {
        return undefined;
      }
    }
  }
  return undefined;
}
