/** The precision view: one model in several precisions, side by side. */
import type { Classification, ImageSource, ModelInfo, Source, TextModel, VisionModel } from "./pkg/index.js";
import { announce } from "./announce.js";
import { budgetPane } from "./budget.js";
import { byId, formatBytes, formatMs, formatRate, make } from "./dom.js";
import { gathered } from "./loading.js";
import { explain, isAbort } from "./notice.js";
import { bitpane } from "./package.js";
import { classRows } from "./photo.js";
import { inUse, need } from "./session.js";
import { loadOptions } from "./settings.js";

/** What float weights can become; "" leaves every weight as it is stored. */
const PRECISIONS = [["", "As stored"], ["Q8_0", "Q8_0, 8.5 bits"], ["Q4_0", "Q4_0, 4.5 bits"]] as const;
const TOKENS = 60;

let running: AbortController | undefined;

/** What one precision gave. */
interface Outcome {
  info: ModelInfo;
  loadMs: number;
  speed: string;
  /** The same for every precision that changes nothing. */
  text?: string;
  classes?: Classification[];
}

interface Task {
  kind: "text" | "vision";
  source: Source;
  prompt: string;
  image: ImageSource;
}

async function measure(task: Task, quantize: string, signal: AbortSignal): Promise<Outcome> {
  const { TextModel, VisionModel } = await bitpane();
  const { threads } = loadOptions();
  const options = { signal, cache: false, ...(threads && { threads }), ...(quantize && { quantize }) };
  const start = performance.now();
  const isText = task.kind === "text";
  const model = isText ? await TextModel.load(task.source, options) : await VisionModel.load(task.source, options);
  const loadMs = performance.now() - start;
  try {
    const made = isText ? await write(model as TextModel, task.prompt, signal) : await see(model as VisionModel, task.image);
    return { info: model.info, loadMs, ...made };
  } finally {
    await model.dispose();
  }
}

async function write(model: TextModel, prompt: string, signal: AbortSignal): Promise<Pick<Outcome, "speed" | "text">> {
  let text = "";
  for await (const piece of model.generate(prompt, { maxTokens: TOKENS, temperature: 0, signal })) text += piece.text;
  const { decodeTokens, decodeMs } = model.stats;
  const rate = decodeTokens > 1 && decodeMs > 0 ? ((decodeTokens - 1) * 1000) / decodeMs : 0;
  return { text, speed: `${formatRate(rate)} tokens a second` };
}

async function see(model: VisionModel, image: ImageSource): Promise<Pick<Outcome, "speed" | "classes">> {
  let best = Infinity;
  let classes: Classification[] = [];
  for (let run = 0; run < 3; run += 1) {
    classes = await model.classify(image, { topK: 5 });
    best = Math.min(best, model.stats.imageMs);
  }
  return { classes, speed: `${formatMs(best)} an image` };
}

/** What a person asked for with the form. */
async function taskOf(): Promise<Task> {
  const kind = byId<HTMLSelectElement>("precision-kind").value === "vision" ? "vision" : "text";
  const picked = [...(byId<HTMLInputElement>("precision-file").files ?? [])];
  const source = picked.length > 0 ? await gathered(picked, "F16") : inUse(kind)?.source ?? (await need(kind, () => undefined)).source;
  if (source === undefined) throw new Error("the model in use cannot be loaded again: choose its file");
  const preview = byId<HTMLImageElement>("photo-preview");
  const image = preview.hidden ? await sampleImage() : preview;
  return { kind, source, prompt: byId<HTMLTextAreaElement>("precision-prompt").value, image };
}

async function sampleImage(): Promise<HTMLImageElement> {
  const image = make("img");
  image.src = "sample-ship.svg";
  await image.decode();
  return image;
}

function column(title: string): { box: HTMLElement; show: (outcome: Outcome, reference: Outcome | undefined) => void; fail: (error: unknown) => void } {
  const box = make("section", "pane");
  const state = make("p", "hint", "Loading");
  box.append(make("h2", "", title), state);
  return {
    box,
    show: (outcome, reference) => {
      state.remove();
      box.append(figures(outcome, reference));
      if (outcome.text !== undefined) {
        const text = make("div", "story-text", outcome.text);
        text.tabIndex = 0;
        text.setAttribute("role", "region");
        text.setAttribute("aria-label", `The text, ${title}`);
        box.append(text);
      }
      if (outcome.classes) {
        const list = make("ol", "classes");
        list.append(...classRows(outcome.classes));
        box.append(list);
      }
    },
    fail: (error) => {
      state.className = "reading-line";
      if (!isAbort(error)) state.dataset["kind"] = "bad";
      state.textContent = isAbort(error) ? "Stopped." : explain(error);
    },
  };
}

function figures({ info, loadMs, speed, text, classes }: Outcome, reference: Outcome | undefined): HTMLElement {
  const list = make("dl");
  const rows: [string, string][] = [
    ["Bits a weight", info.bitsPerWeight.toFixed(2)], ["Weights", formatBytes(info.weightBytes)], ["Load", formatMs(loadMs)], ["Speed", speed],
  ];
  if (reference && text !== undefined && reference.text !== undefined) rows.push(["Same text", sameText(text, reference.text)]);
  if (reference && classes && reference.classes) rows.push(["First class", classes[0]?.index === reference.classes[0]?.index ? "the same" : "another"]);
  for (const [term, value] of rows) list.append(make("dt", "", term), make("dd", "", value));
  return list;
}

function sameText(text: string, reference: string): string {
  if (text === reference) return "to the last letter";
  let at = 0;
  while (at < text.length && text[at] === reference[at]) at += 1;
  return `for ${at} of ${reference.length} letters`;
}

/** One of the things compared: a source as it is, or made into a type while it loads. */
interface Variant {
  title: string;
  type: string;
  /** Instead of the source of the form. */
  source?: Source;
}

function checkedTypes(): Variant[] {
  const wanted = PRECISIONS.filter(([type]) => byId<HTMLInputElement>(`precision-type-${type || "stored"}`).checked);
  return wanted.map(([type, title]) => ({ type, title }));
}

async function compare(variants: readonly Variant[]): Promise<void> {
  running?.abort();
  const current = new AbortController();
  running = current;
  const button = byId<HTMLButtonElement>("precision-run");
  button.textContent = "Stop";
  const place = byId("precision-results");
  const columns = variants.map((variant) => ({ ...variant, ...column(variant.title) }));
  place.replaceChildren(...columns.map(({ box }) => box));
  let reference: Outcome | undefined;
  try {
    const task = await taskOf();
    for (const { type, source = task.source, show, fail } of columns) {
      try {
        const outcome = await measure({ ...task, source }, type, current.signal);
        show(outcome, reference);
        reference ??= outcome;
      } catch (error) {
        fail(error);
      }
    }
    announce("The comparison is done.");
  } catch (error) {
    for (const { fail } of columns) fail(error);
  } finally {
    if (running === current) {
      running = undefined;
      button.textContent = "Compare";
    }
  }
}

function labelled(label: string, control: HTMLElement, id: string): HTMLElement {
  const box = make("div");
  control.id = id;
  const name = make("label", "field-label", label);
  name.htmlFor = id;
  box.append(name, control);
  return box;
}

function buildForm(): HTMLElement {
  const form = make("form", "precision-form");
  const kind = make("select");
  for (const [value, label] of [["text", "The one that writes"], ["vision", "The one that sees"]] as const) {
    const option = make("option", "", label);
    option.value = value;
    kind.append(option);
  }
  const file = make("input");
  file.type = "file";
  file.accept = ".gguf,.safetensors,.json,.jinja";
  file.multiple = true;
  const prompt = make("textarea");
  prompt.rows = 1;
  prompt.value = "Once upon a time";
  const promptField = labelled("Beginning of the text", prompt, "precision-prompt");
  kind.addEventListener("change", () => {
    promptField.hidden = kind.value === "vision";
  });
  const types = make("fieldset", "checks");
  types.append(make("legend", "field-label", "Float weights"));
  for (const [type, title] of PRECISIONS) {
    const label = make("label");
    const check = make("input");
    check.type = "checkbox";
    check.checked = true;
    check.id = `precision-type-${type || "stored"}`;
    label.append(check, title);
    types.append(label);
  }
  const run = make("button", "primary", "Compare");
  run.id = "precision-run";
  form.append(labelled("Model", kind, "precision-kind"), labelled("or its files in floats", file, "precision-file"), promptField, types, run);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.abort();
    else void compare(checkedTypes());
  });
  return form;
}

/** Fills the view. */
export function start(): void {
  const head = make("div", "pane");
  head.append(buildForm(), make("p", "hint", "Weights that are quantized already stay as they are stored: a file of floats shows the difference. A model in several files, or with its config.json and tokenizer.json: choose them all."));
  const results = make("div", "compare");
  results.id = "precision-results";
  const budget = budgetPane({
    source: async () => (await taskOf()).source,
    compare: (blob, title) => compare([{ title: "As stored", type: "" }, { title, type: "", source: blob }]),
  });
  byId("precision-window").append(head, budget, results);
}
