/** The seeing pane. */
import type { Classification, ImageSource, VisionModel } from "./pkg/index.js";
import { announce } from "./announce.js";
import { drawAttention } from "./attention.js";
import { startCamera, whyNoCamera, type Camera } from "./camera.js";
import { byId, formatBytes, formatMs, make } from "./dom.js";
import { complain, isFatal } from "./notice.js";
import { inUse, listen, lose, need, type Used } from "./session.js";

const stage = byId("photo-stage");
const preview = byId<HTMLImageElement>("photo-preview");
const video = byId<HTMLVideoElement>("photo-video");
const classes = byId("photo-classes");
const line = byId("photo-line");
const overlay = byId<HTMLCanvasElement>("photo-overlay");
const attentionButton = byId<HTMLButtonElement>("photo-attention");
const cameraButton = byId<HTMLButtonElement>("photo-camera");

/** Drawings of this project: file, and what they show. */
const SAMPLES: readonly [file: string, description: string][] = [
  ["sample-ship.svg", "A drawing of a ship"],
  ["sample-plane.svg", "A drawing of an aeroplane"],
  ["sample-truck.svg", "A drawing of a truck"],
];

let labels: readonly string[] | undefined;
let shown: ImageSource | undefined;
let run = 0;
let camera: Camera | undefined;

/** Names the classes, in the order of the model's outputs. */
export function useLabels(names: readonly string[]): void {
  labels = names;
  if (shown) void look(shown);
}

/** Shows a picture file and says what is in it. */
export async function showPhoto(file: Blob, name: string): Promise<void> {
  await showPicture(URL.createObjectURL(file), name);
  await look(file);
}

async function showPicture(address: string, description: string): Promise<void> {
  stopCamera();
  overlay.hidden = true;
  if (preview.src.startsWith("blob:")) URL.revokeObjectURL(preview.src);
  preview.src = address;
  preview.alt = description;
  preview.hidden = false;
  setStage("full");
  for (const sample of document.querySelectorAll(".sample")) sample.setAttribute("aria-pressed", "false");
  // What cannot be decoded is reported by the model; here it is only not shown.
  await preview.decode().catch(() => {
    preview.hidden = true;
    setStage("empty");
  });
}

function setStage(state: "empty" | "full"): void {
  stage.dataset["state"] = state;
  byId("photo-choose").textContent = state === "full" ? "Choose another" : "Choose a photo";
}

/** The model; loading it is told in the line under the classes. */
function load(): Promise<Used<VisionModel>> {
  return need("vision", (progress) => {
    if (progress.status === "download") say(`Loading the model: ${formatBytes(progress.loaded)}`);
  });
}

/** Looks at a picture and shows what is in it. */
async function look(image: ImageSource): Promise<void> {
  shown = image;
  const current = ++run;
  try {
    const { model } = await load();
    if (current !== run) return; // a later picture has taken its place
    const found = await model.classify(image, { topK: 5 });
    if (current !== run) return;
    showClasses(found);
    say(make("strong", "", formatMs(model.stats.imageMs)), " for this image");
    const best = found[0];
    if (best) announce(`${labelOf(best)}, ${percent(best.score)}.`);
    if (isOn(attentionButton)) await showAttention();
  } catch (error) {
    if (current !== run) return;
    classes.replaceChildren();
    complain(error, "Looking at the photo failed", line);
    if (isFatal(error)) lose("vision");
  }
}

function isOn(button: HTMLElement): boolean {
  return button.getAttribute("aria-pressed") === "true";
}

/** Lays the model's attention over the picture. */
async function showAttention(): Promise<void> {
  const model = inUse("vision")?.model;
  if (!model || !shown || preview.hidden) return;
  const current = run;
  try {
    const attention = await model.attention(shown);
    if (current !== run || !isOn(attentionButton)) return;
    overlay.hidden = false;
    drawAttention(overlay, attention, preview.naturalWidth, preview.naturalHeight);
  } catch (error) {
    attentionButton.setAttribute("aria-pressed", "false");
    complain(error, "The attention cannot be shown", line);
  }
}

function toggleAttention(): void {
  const on = !isOn(attentionButton);
  attentionButton.setAttribute("aria-pressed", String(on));
  if (on) void showAttention();
  else overlay.hidden = true;
}

function say(...parts: (string | Node)[]): void {
  delete line.dataset["kind"];
  line.replaceChildren(...parts);
}

function labelOf({ index, label }: Classification): string {
  return labels?.[index] ?? label;
}

function percent(score: number): string {
  return `${(score * 100).toFixed(score < 0.1 ? 1 : 0)} %`;
}

/** The classes found, the rows of a list. */
export function classRows(found: readonly Classification[]): HTMLElement[] {
  return found.map((item) => {
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
}

function showClasses(found: readonly Classification[]): void {
  classes.replaceChildren(...classRows(found));
}

function offerSamples(): void {
  for (const [file, description] of SAMPLES) {
    const button = make("button", "sample");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const image = make("img");
    image.src = file;
    image.alt = description;
    button.append(image);
    button.addEventListener("pointerenter", () => void load().catch(() => undefined), { once: true });
    button.addEventListener("click", () => void showSample(button, image, description));
    byId("photo-samples").append(button);
  }
}

async function showSample(button: HTMLElement, image: HTMLImageElement, description: string): Promise<void> {
  await showPicture(image.src, description);
  button.setAttribute("aria-pressed", "true");
  await look(image);
}

async function toggleCamera(): Promise<void> {
  if (camera) return stopCamera();
  cameraButton.disabled = true;
  try {
    const { model } = await load();
    camera = await startCamera(video, (frame) => lookAtFrame(model, frame), ({ seen, came }) => {
      byId("photo-fps").textContent = `${seen.toFixed(seen < 10 ? 1 : 0)} fps of ${came.toFixed(0)}`;
    });
    run += 1; // whatever is still being looked at no longer matters
    shown = undefined;
    preview.hidden = true;
    overlay.hidden = true;
    video.hidden = false;
    byId("photo-fps").hidden = false;
    setStage("full");
    cameraButton.setAttribute("aria-pressed", "true");
  } catch (error) {
    if (error instanceof DOMException) complain(whyNoCamera(error), "Camera", line);
    else complain(error, "The camera cannot be looked at", line);
  } finally {
    cameraButton.disabled = false;
  }
}

async function lookAtFrame(model: VisionModel, frame: HTMLVideoElement): Promise<void> {
  try {
    const found = await model.classify(frame, { topK: 5 });
    if (!camera) return;
    showClasses(found);
    say(make("strong", "", formatMs(model.stats.imageMs)), " for the last frame");
  } catch (error) {
    if (!camera) return;
    stopCamera();
    complain(error, "Looking at the camera failed", line);
  }
}

function stopCamera(): void {
  if (!camera) return;
  camera.stop();
  camera = undefined;
  video.hidden = true;
  byId("photo-fps").hidden = true;
  setStage("empty");
  cameraButton.setAttribute("aria-pressed", "false");
  classes.replaceChildren();
  say("");
}

/** Connects the pane's controls. */
export function startPhoto(): void {
  offerSamples();
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
  attentionButton.addEventListener("click", toggleAttention);
  addEventListener("resize", () => {
    if (!overlay.hidden) void showAttention();
  });
  cameraButton.addEventListener("click", () => void toggleCamera());
  // A camera that runs unseen is nobody's wish.
  addEventListener("hashchange", () => stopCamera());
  listen("vision", ({ name, model, builtIn }) => {
    labels = undefined;
    attentionButton.hidden = model.info.nLayer === 0;
    if (attentionButton.hidden) attentionButton.setAttribute("aria-pressed", "false");
    byId("photo-chip").textContent = name;
    if (camera && !builtIn) stopCamera();
    // The picture in view is looked at anew.
    if (shown && inUse("vision") && !builtIn) void look(shown);
  });
}
