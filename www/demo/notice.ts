/** Messages to the person at the page, failures above all. */
import type { ErrorCode } from "./pkg/index.js";
import { announce } from "./announce.js";
import { byId } from "./dom.js";

/** Says something in passing. */
export function say(message: string): void {
  show(byId("notice"), message, "good");
}

/**
 * Explains a failure, at the foot of the page or in a place of its own. Messages may quote
 * the model file, so they are shown as text only.
 */
export function complain(error: unknown, doing: string, place = byId("notice")): void {
  if (isAbort(error)) return show(place, `${doing}: stopped.`, "good");
  const message = `${doing}: ${explain(error)}`;
  show(place, message, "bad");
  if (place.id !== "notice") announce(message); // the notice is announced by itself
}

/** Whether a thrown value is an abort. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** The code of a failure of the package. */
export function codeOf(error: unknown): ErrorCode | undefined {
  // Looked at, not compared with the class: the package may not have been fetched.
  const isOurs = error instanceof Error && error.name === "BitpaneError" && "code" in error;
  return isOurs ? (error.code as ErrorCode) : undefined;
}

/** Whether a model that failed so can do nothing any more. */
export function isFatal(error: unknown): boolean {
  const code = codeOf(error);
  return code === "InstancePoisoned" || code === "WorkerCrashed" || code === "Disposed";
}

function show(place: HTMLElement, message: string, kind: "good" | "bad"): void {
  place.dataset["kind"] = kind;
  place.textContent = message;
}

const LONGEST = 600;

/** A failure in words. */
export function explain(error: unknown): string {
  const code = codeOf(error);
  if (!code) return String(error).slice(0, LONGEST);
  const remedy = REMEDIES[code];
  const text = (error as Error).message.slice(0, LONGEST);
  return `${text} [${code}]${remedy ? `\n${remedy}` : ""}`;
}

/** What one can do about it, where that is not obvious. */
const REMEDIES: Partial<Record<ErrorCode, string>> = {
  BadMagic: "A model file is expected: GGUF or safetensors.",
  Truncated: "The file is incomplete: download it again.",
  OutOfMemory: "Close other tabs, or choose fewer bits for the weights.",
  RuntimeUnavailable: "A current browser is needed.",
  InstancePoisoned: "Open the model again to go on.",
  WorkerCrashed: "Open the model again to go on.",
};

/** Connects the message's close button. */
export function startNotice(): void {
  byId("notice-close").addEventListener("click", () => say(""));
}
