/** The writing pane. */
import type { GenerateOptions, TextModel } from "./pkg/index.js";
import { announce, announceStream } from "./announce.js";
import { byId, formatBytes, formatRate, make } from "./dom.js";
import { complain, isAbort } from "./notice.js";
import { showModel, showReading } from "./readings.js";

const form = byId<HTMLFormElement>("story-form");
const prompt = byId<HTMLTextAreaElement>("story-prompt");
const write = byId<HTMLButtonElement>("story-write");
const stop = byId<HTMLButtonElement>("story-stop");
const page = byId("story-text");
const line = byId("story-line");

let model: TextModel | undefined;
let running: AbortController | undefined;

/** Puts a model to use; the one before it is let go. */
export function useTextModel(next: TextModel, name: string): void {
  running?.abort();
  void model?.dispose();
  model = next;
  write.disabled = false;
  showModel("story", name, next.info, next.stats.wasmBytes);
}

/** Writes on from the prompt. `unasked` runs are not spoken to screen readers. */
export async function writeOn(unasked = false): Promise<void> {
  if (!model || running) return;
  const current = new AbortController();
  running = current;
  const used = model;
  begin();
  const options = { ...readSettings(), signal: current.signal };
  const sink = new TextSink(byId("story-made"), !unasked);
  try {
    for await (const { text } of used.generate(prompt.value, options)) {
      sink.add(text);
      if (!unasked) announceStream(text);
    }
    finish(used, unasked, "Done.");
  } catch (error) {
    if (isAbort(error)) finish(used, unasked, "Stopped.");
    else complain(error, "Writing failed", line);
  } finally {
    sink.flush();
    end();
    running = undefined;
  }
}

function begin(): void {
  byId("story-given").textContent = prompt.value;
  byId("story-made").replaceChildren();
  page.dataset["state"] = "writing";
  page.setAttribute("aria-busy", "true");
  stop.disabled = false;
  if (document.activeElement === write) stop.focus(); // a disabled button would drop the focus
  write.disabled = true;
  line.textContent = "";
  delete line.dataset["kind"];
}

function end(): void {
  page.dataset["state"] = "done";
  page.removeAttribute("aria-busy");
  const hadFocus = document.activeElement === stop;
  write.disabled = model === undefined;
  stop.disabled = true;
  if (hadFocus) write.focus();
}

function finish(used: TextModel, unasked: boolean, how: string): void {
  const { decodeTokens, decodeMs, promptTokens, wasmBytes } = used.stats;
  // The first token comes with the prompt's scores: the others took the time.
  const rate = decodeTokens > 1 && decodeMs > 0 ? ((decodeTokens - 1) * 1000) / decodeMs : 0;
  const speed = `${formatRate(rate)} tokens a second`;
  line.replaceChildren(
    make("strong", "", speed),
    `, ${decodeTokens} written after a beginning of ${promptTokens}`,
  );
  if (rate > 0) showReading("story", "speed", speed);
  showReading("story", "memory", formatBytes(wasmBytes));
  if (!unasked) announce(`${how} ${decodeTokens} tokens.`);
}

/** Collects text and shows it once a frame: a fast model writes many tokens in each. */
class TextSink {
  readonly #node = document.createTextNode("");
  /** Whether the page scrolls along with the text. */
  readonly #follow: boolean;
  #waiting = "";
  #frame = 0;

  constructor(parent: HTMLElement, follow: boolean) {
    parent.append(this.#node);
    this.#follow = follow;
  }

  add(text: string): void {
    this.#waiting += text;
    this.#frame ||= requestAnimationFrame(() => this.flush());
  }

  flush(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 40;
    this.#node.appendData(this.#waiting);
    this.#waiting = "";
    if (this.#follow && atEnd) page.scrollTop = page.scrollHeight;
  }
}

function readSettings(): GenerateOptions {
  const value = (id: string): number => byId<HTMLInputElement>(id).valueAsNumber;
  const seed = value("seed");
  const maxTokens = value("max-tokens");
  return {
    temperature: value("temperature"),
    topP: value("top-p"),
    maxTokens: Number.isInteger(maxTokens) && maxTokens > 0 ? maxTokens : 200,
    seed: Number.isInteger(seed) && seed >= 0 ? seed : Math.floor(Math.random() * 2 ** 32),
  };
}

function stopWriting(): void {
  running?.abort();
}

/** Connects the pane's controls. */
export function startStory(): void {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void writeOn();
  });
  stop.addEventListener("click", stopWriting);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") stopWriting();
  });
  for (const id of ["temperature", "top-p"]) {
    const input = byId<HTMLInputElement>(id);
    input.addEventListener("input", () => {
      byId(`${id}-value`).textContent = input.value;
    });
  }
}
