/** The page: a storyteller and a photo classifier at once, any other model on request. */
import { detectFeatures } from "./pkg/index.js";
import { byId } from "./dom.js";
import { openAddress, openBuiltIn, openModel, startModels, type BuiltIn } from "./models.js";
import { complain, say } from "./notice.js";
import { offerSamples, showPhoto, startPhoto, useLabels } from "./photo.js";
import { startStory, writeOn } from "./story.js";

async function openFiles(files: readonly File[]): Promise<void> {
  for (const file of files) {
    if (file.type.startsWith("image/")) await showPhoto(file, file.name);
    else if (!/\.txt$/i.test(file.name)) await openModel(file, file.name);
  }
  // After the models: opening one forgets the labels of the one before.
  for (const file of files) {
    if (/\.txt$/i.test(file.name)) useLabels((await file.text()).trimEnd().split(/\r?\n/));
  }
}

/** Files can be dropped anywhere. */
function acceptDrops(): void {
  const veil = byId("veil");
  const carriesFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) veil.hidden = true;
  });
  addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    void openFiles([...(event.dataTransfer?.files ?? [])]);
  });
}

async function openBuiltIns(): Promise<void> {
  const answer = await fetch("models/models.json");
  const { story, photo } = (await answer.json()) as BuiltIn;
  const missing: string[] = [];
  if (story === null) missing.push("a writing model (GGUF)");
  else if (await openBuiltIn("story", story)) await writeOn(true);
  if (photo === null) missing.push("a photo classifier (safetensors or GGUF)");
  else if (await openBuiltIn("photo", photo)) offerSamples();
  if (missing.length > 0) say(`This copy of the page has no built-in ${missing.join(" and no ")}: open or drop one.`);
}

async function showMachine(): Promise<void> {
  const { build, threadsReason } = await detectFeatures();
  byId("machine").textContent = build
    ? `WebAssembly ${build} runs here; ${threadsReason}.`
    : "This browser's WebAssembly lacks the SIMD instructions that the models need.";
}

function start(): void {
  startStory();
  startPhoto();
  startModels((files) => void openFiles(files));
  acceptDrops();
  void showMachine();
  const wanted = new URLSearchParams(location.search).get("model");
  const first = openBuiltIns().catch((error: unknown) => complain(error, "The built-in models cannot be used"));
  if (wanted) void first.then(() => openAddress(wanted, true));
}

start();
