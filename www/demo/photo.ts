/** The recognising pane. */
import type { Classification, ImageSource, VisionModel } from "./pkg/index.js";
import { announce } from "./announce.js";
import { byId, formatBytes, formatMs, make } from "./dom.js";
import { complain } from "./notice.js";
import { showModel, showReading } from "./readings.js";

const drop = byId("photo-drop");
const preview = byId<HTMLImageElement>("photo-preview");
const classes = byId("photo-classes");
const line = byId("photo-line");

/** Drawings of this project: name, file, and what they show. */
const SAMPLES: readonly [file: string, description: string][] = [
  ["sample-ship.svg", "A drawing of a ship"],
  ["sample-plane.svg", "A drawing of an aeroplane"],
  ["sample-truck.svg", "A drawing of a truck"],
];

let model: VisionModel | undefined;
let labels: readonly string[] | undefined;
let shown: { image: ImageSource; description: string } | undefined;
let run = 0;

/** Puts a model to use; the one before it is let go. The picture in view is looked at anew. */
export function useVisionModel(next: VisionModel, name: string): void {
  void model?.dispose();
  model = next;
  labels = undefined;
  showModel("photo", name, next.info, next.stats.wasmBytes);
  if (shown) void look(shown.image, shown.description, true);
}

/** Names the classes, in the order of the model's outputs. */
export function useLabels(names: readonly string[]): void {
  labels = names;
  if (shown) void look(shown.image, shown.description);
}

/** Shows a picture file and says what is in it. */
export async function showPhoto(file: Blob, name: string): Promise<void> {
  await showPicture(URL.createObjectURL(file), name);
  await look(file, name);
}

async function showPicture(address: string, description: string): Promise<void> {
  if (preview.src.startsWith("blob:")) URL.revokeObjectURL(preview.src);
  preview.src = address;
  preview.alt = description;
  preview.hidden = false;
  drop.dataset["state"] = "full";
  byId("photo-choose").textContent = "Choose another";
  for (const sample of document.querySelectorAll(".sample")) sample.setAttribute("aria-pressed", "false");
  // What cannot be decoded is reported by the model; here it is only not shown.
  await preview.decode().catch(() => {
    preview.hidden = true;
    drop.dataset["state"] = "empty";
  });
}

async function look(image: ImageSource, description: string, unasked = false): Promise<void> {
  shown = { image, description };
  if (!model) return;
  const current = ++run;
  try {
    const found = await model.classify(image, { topK: 5 });
    if (current !== run) return; // a later picture has taken its place
    showClasses(found);
    delete line.dataset["kind"];
    const { imageMs, wasmBytes } = model.stats;
    line.replaceChildren(make("strong", "", formatMs(imageMs)), " for this image");
    showReading("photo", "speed", `${formatMs(imageMs)} an image`);
    showReading("photo", "memory", formatBytes(wasmBytes));
    const best = found[0];
    if (best && !unasked) announce(`${labelOf(best)}, ${percent(best.score)}.`);
  } catch (error) {
    if (current !== run) return;
    classes.replaceChildren();
    complain(error, "Looking at the photo failed", line);
  }
}

function labelOf({ index, label }: Classification): string {
  return labels?.[index] ?? label;
}

function percent(score: number): string {
  return `${(score * 100).toFixed(score < 0.1 ? 1 : 0)} %`;
}

function showClasses(found: readonly Classification[]): void {
  const rows = found.map((item) => {
    const row = make("li", "class");
    const track = make("div", "class-track");
    const bar = make("div", "class-bar");
    track.append(bar);
    row.append(make("span", "class-label", labelOf(item)), make("span", "class-score", percent(item.score)), track);
    // The width is set a frame later, so that the bar grows to it.
    requestAnimationFrame(() => {
      bar.style.width = `${item.score * 100}%`;
    });
    return row;
  });
  classes.replaceChildren(...rows);
}

/** Shows the drawings to try, and looks at the first of them. Only for the built-in model. */
export function offerSamples(): void {
  const row = byId("photo-samples");
  if (row.childElementCount > 1) return;
  SAMPLES.forEach(([file, description], index) => {
    const button = make("button", "sample");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const image = make("img");
    image.src = file;
    image.alt = description;
    button.append(image);
    button.addEventListener("click", () => void showSample(button, image, description));
    row.append(button);
    if (index === 0 && !shown) void showSample(button, image, description, true);
  });
  row.hidden = false;
}

async function showSample(button: HTMLElement, image: HTMLImageElement, description: string, unasked = false): Promise<void> {
  await showPicture(image.src, description);
  button.setAttribute("aria-pressed", "true");
  await look(image, description, unasked);
}

/** Connects the pane's controls. */
export function startPhoto(): void {
  const input = byId<HTMLInputElement>("photo-file");
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) void showPhoto(file, file.name);
    input.value = ""; // choosing the same file again is a change
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((item) => item.type.startsWith("image/"));
    if (file) void showPhoto(file, "The pasted photo");
  });
}
