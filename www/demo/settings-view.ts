/** The settings view. */
import { byId, formatBytes, make } from "./dom.js";
import { complain, say } from "./notice.js";
import { bitpane } from "./package.js";
import { change, RANGES, resetSettings, settings, type Settings } from "./settings.js";
import { forget } from "./store.js";

type NumberKey = keyof typeof RANGES;

function field(key: string, label: string, control: HTMLElement, hint = "", output?: HTMLElement): HTMLElement {
  const box = make("div", "setting");
  control.id = `setting-${key}`;
  const name = make("label", "", label);
  name.htmlFor = control.id;
  box.append(name);
  if (output) box.append(output);
  box.append(control);
  if (hint) {
    const note = make("p", "hint", hint);
    note.id = `${control.id}-hint`;
    control.setAttribute("aria-describedby", note.id);
    box.append(note);
  }
  return box;
}

/** A number with a control to drag. */
function slider(key: NumberKey, label: string, hint = ""): HTMLElement {
  const [least, most, step] = RANGES[key];
  const input = numberInput("range", least, most, step);
  input.value = String(settings()[key]);
  const output = make("output", "", input.value);
  output.htmlFor.add(`setting-${key}`);
  input.addEventListener("input", () => {
    output.textContent = input.value;
    change({ [key]: input.valueAsNumber } as Partial<Settings>);
  });
  return field(key, label, input, hint, output);
}

/** A number to type; left empty where `placeholder` says what then happens. */
function typed(key: NumberKey, label: string, placeholder = "", hint = ""): HTMLElement {
  const [least, most, step] = RANGES[key];
  const input = numberInput("number", least, most, step);
  const now = settings()[key];
  input.value = now === null ? "" : String(now);
  input.placeholder = placeholder;
  input.inputMode = "numeric";
  input.addEventListener("change", () => {
    const value = Number.isNaN(input.valueAsNumber) && placeholder ? null : input.valueAsNumber;
    change({ [key]: value } as Partial<Settings>);
    const taken = settings()[key];
    input.value = taken === null ? "" : String(taken);
  });
  return field(key, label, input, hint);
}

function numberInput(type: "range" | "number", least: number, most: number, step: number): HTMLInputElement {
  const input = make("input");
  input.type = type;
  input.min = String(least);
  input.max = String(most);
  input.step = String(step);
  return input;
}

function systemField(): HTMLElement {
  const area = make("textarea");
  area.rows = 3;
  area.value = settings().system;
  area.placeholder = "none";
  area.addEventListener("change", () => change({ system: area.value }));
  const box = field("system", "Instructions before every conversation", area);
  box.classList.add("all");
  return box;
}

function pane(title: string, hint: string): HTMLElement {
  const box = make("section", "pane");
  const head = make("h2", "", title);
  head.id = `settings-${title.toLowerCase().replaceAll(" ", "-")}`;
  box.setAttribute("aria-labelledby", head.id);
  box.append(head);
  if (hint) box.append(make("p", "hint", hint));
  return box;
}

function grid(...fields: HTMLElement[]): HTMLElement {
  const box = make("div", "settings-grid");
  box.append(...fields);
  return box;
}

function dataRow(title: string, hint: string, label: string, act: () => void): HTMLElement {
  const row = make("div", "data-row");
  const text = make("div");
  text.append(make("strong", "", title), make("p", "hint", hint));
  const button = make("button", "quiet", label);
  button.type = "button";
  button.addEventListener("click", act);
  row.append(text, button);
  return row;
}

async function showUsage(place: HTMLElement): Promise<void> {
  const { usage } = (await navigator.storage?.estimate?.().catch(() => undefined)) ?? {};
  if (usage !== undefined) place.textContent = `This site keeps ${formatBytes(usage)} in this browser.`;
}

function addData(box: HTMLElement): void {
  const usage = make("p", "hint");
  void showUsage(usage);
  box.append(
    make("h2", "below", "Data"), usage,
    dataRow("Conversations", "All of them, from this browser.", "Forget", () => {
      forget("conversations");
      say("The conversations are forgotten; what the chat shows now goes with the page.");
    }),
    dataRow("Downloaded models", "What was opened from an address, for the next visit.", "Forget", () => void forgetModels(usage)),
    dataRow("The page", "What is kept for use without a network, the built-in models included.", "Forget", () => void forgetPage(usage)),
    dataRow("Settings", "As they were at first.", "Reset", () => {
      resetSettings();
      fill();
      say("The settings are as they were at first.");
    }),
  );
}

async function forgetModels(usage: HTMLElement): Promise<void> {
  try {
    const { cache } = await bitpane();
    await cache.clear();
    say("The downloaded models are gone.");
  } catch (error) {
    complain(error, "Not all of them are gone");
  }
  await showUsage(usage);
}

async function forgetPage(usage: HTMLElement): Promise<void> {
  for (const registration of (await navigator.serviceWorker?.getRegistrations?.()) ?? []) await registration.unregister();
  for (const name of await caches.keys()) await caches.delete(name);
  await showUsage(usage);
  say("What was kept for use without a network is gone.");
}

function fill(): void {
  const text = pane("Choosing words", "For stories and conversations.");
  text.append(grid(
    slider("temperature", "Temperature", "0 always takes the likeliest word."), slider("topP", "Top-p"), slider("topK", "Top-k", "0 for no limit."),
    slider("minP", "Min-p"), slider("repeatPenalty", "Repeat penalty"),
    typed("maxTokens", "Tokens at most"), typed("seed", "Seed", "a new one each time"), systemField(),
  ));
  const load = pane("Loading", "For the next model that is opened.");
  load.append(grid(
    typed("threads", "Threads", "as many as help", globalThis.crossOriginIsolated ? "" : "One here: the page is not served with the headers that threads need."),
    typed("contextLength", "Context, in tokens", "2,048, or the model's"),
  ));
  addData(load);
  byId("settings-window").replaceChildren(text, load);
}

/** Fills the view. */
export function start(): void {
  fill();
}
