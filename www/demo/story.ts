/** The writing pane. */
import type { Progress, TextModel } from "./pkg/index.js";
import { announce, announceStream } from "./announce.js";
import { byId, formatBytes, formatRate, make } from "./dom.js";
import { complain, isAbort, isFatal } from "./notice.js";
import { listen, lose, need, type Used } from "./session.js";
import { generateOptions } from "./settings.js";
import { TextSink } from "./sink.js";

const form = byId<HTMLFormElement>("story-form");
const prompt = byId<HTMLTextAreaElement>("story-prompt");
const write = byId<HTMLButtonElement>("story-write");
const stop = byId<HTMLButtonElement>("story-stop");
const page = byId("story-text");
const line = byId("story-line");

let running: AbortController | undefined;

/** Writes on from the prompt, with the built-in model where no other is loaded. */
async function writeOn(): Promise<void> {
  if (running) return;
  const current = new AbortController();
  running = current;
  begin();
  const made = document.createTextNode("");
  byId("story-made").append(made);
  const sink = new TextSink(page, (text) => made.appendData(text));
  let model: TextModel | undefined;
  try {
    ({ model } = await load());
    if (current.signal.aborted) throw current.signal.reason;
    say("");
    for await (const { text } of model.generate(prompt.value, { ...generateOptions(), signal: current.signal })) {
      sink.add(text);
      announceStream(text);
    }
    finish(model, "Done.");
  } catch (error) {
    if (isAbort(error)) finish(model, "Stopped.");
    else complain(error, "Writing failed", line);
    if (isFatal(error)) lose("text");
  } finally {
    sink.flush();
    end();
    running = undefined;
  }
}

/** The model; loading it is told in the line under the story. */
function load(): Promise<Used<TextModel>> {
  return need("text", (progress: Progress) => {
    if (!running || progress.status !== "download") return;
    const of = progress.total === undefined ? "" : ` of ${formatBytes(progress.total)}`;
    say(`Loading the model: ${formatBytes(progress.loaded)}${of}`);
  });
}

function say(text: string): void {
  delete line.dataset["kind"];
  line.textContent = text;
}

function begin(): void {
  byId("story-given").textContent = prompt.value;
  byId("story-made").replaceChildren();
  page.dataset["state"] = "writing";
  page.setAttribute("aria-busy", "true");
  stop.disabled = false;
  if (document.activeElement === write) stop.focus(); // a disabled button would drop the focus
  write.disabled = true;
  say("Starting");
}

function end(): void {
  page.dataset["state"] = "done";
  page.removeAttribute("aria-busy");
  const hadFocus = document.activeElement === stop;
  write.disabled = false;
  stop.disabled = true;
  if (hadFocus) write.focus();
}

function finish(model: TextModel | undefined, how: string): void {
  if (!model) return say(how);
  const { decodeTokens, decodeMs, promptTokens } = model.stats;
  // The first token comes with the prompt's scores: the others took the time.
  const rate = decodeTokens > 1 && decodeMs > 0 ? ((decodeTokens - 1) * 1000) / decodeMs : 0;
  delete line.dataset["kind"];
  line.replaceChildren(
    make("strong", "", `${formatRate(rate)} tokens a second`),
    `, ${decodeTokens.toLocaleString("en")} written after a beginning of ${promptTokens}`,
  );
  announce(`${how} ${decodeTokens} tokens.`);
}

/** Connects the pane's controls. */
export function startStory(): void {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void writeOn();
  });
  // Whoever points at the button is about to press it: the model may start to come.
  write.addEventListener("pointerenter", () => void load().catch(() => undefined), { once: true });
  stop.addEventListener("click", () => running?.abort());
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
  });
  listen("text", ({ name, builtIn }) => {
    if (!builtIn) running?.abort();
    byId("story-chip").textContent = name;
  });
}
