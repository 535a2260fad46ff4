/** Messages to the person at the page, failures above all. */
import { BitpaneError } from "./pkg/index.js";
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

function show(place: HTMLElement, message: string, kind: "good" | "bad"): void {
  place.dataset["kind"] = kind;
  place.textContent = message;
  if (kind === "bad") place.scrollIntoView({ block: "nearest" });
}

const LONGEST = 600;

function explain(error: unknown): string {
  if (!(error instanceof BitpaneError)) return String(error).slice(0, LONGEST);
  const remedy = REMEDIES[error.code];
  const text = error.message.slice(0, LONGEST);
  return `${text} [${error.code}]${remedy ? `\n${remedy}` : ""}`;
}

/** What one can do about it, where that is not obvious. */
const REMEDIES: Partial<Record<BitpaneError["code"], string>> = {
  BadMagic: "A model file is expected: GGUF or safetensors.",
  UnsupportedArch: "Language models of the llama family and ViT or DeiT classifiers can be used here.",
  Truncated: "The file is incomplete: download it again.",
  OutOfMemory: "Close other tabs, or choose fewer bits for the weights.",
  RuntimeUnavailable: "A current browser is needed.",
  InstancePoisoned: "Open the model again to go on.",
  WorkerCrashed: "Open the model again to go on.",
};
