/** The page: views behind the tabs, each with its script fetched when it is first opened. */
import { byId } from "./dom.js";
import { openAddress, openPicked, startLoading } from "./loading.js";
import { startNotice } from "./notice.js";
import { showPhoto, startPhoto, useLabels } from "./photo.js";
import { listen } from "./session.js";
import { startStory } from "./story.js";

/** The views, what they are called, and the script that fills each. */
const VIEWS: Record<string, { title: string; fill?: () => Promise<{ start: () => void }> }> = {
  try: { title: "small models, few bits, this tab" },
  chat: { title: "chat", fill: () => import("./chat.js") },
  models: { title: "models", fill: () => import("./models.js") },
  precision: { title: "precision", fill: () => import("./precision.js") },
  settings: { title: "settings", fill: () => import("./settings-view.js") },
};
const filled = new Set<string>();

async function showView(focus: boolean): Promise<void> {
  const asked = location.hash.slice(1);
  const name = Object.hasOwn(VIEWS, asked) ? asked : "try";
  const { title, fill } = VIEWS[name]!;
  for (const other of Object.keys(VIEWS)) byId(`view-${other}`).hidden = other !== name;
  document.body.dataset["view"] = name;
  document.title = `bitpane: ${title}`;
  for (const link of document.querySelectorAll(".tabs a, .top-end a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (focus) {
    byId(`view-${name}`).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  if (!fill || filled.has(name)) return;
  filled.add(name);
  (await fill()).start();
}

async function openFiles(files: readonly File[]): Promise<void> {
  for (const file of files) {
    if (file.type.startsWith("image/")) {
      location.hash = "try";
      await showPhoto(file, file.name);
    }
  }
  const model = files.filter((file) => !file.type.startsWith("image/") && !/\.txt$/i.test(file.name));
  if (model.length > 0) await openPicked(model);
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

/** Files chosen in the models view. */
function acceptFiles(): void {
  const input = byId<HTMLInputElement>("open-file");
  input.addEventListener("change", () => {
    void openFiles([...(input.files ?? [])]);
    input.value = "";
  });
}

function start(): void {
  startNotice();
  startLoading();
  startStory();
  startPhoto();
  acceptDrops();
  acceptFiles();
  addEventListener("hashchange", () => void showView(true));
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the hash is the view's
    document.querySelector<HTMLElement>(".view:not([hidden])")?.focus();
  });
  void showView(false);
  listen("text", () => void keepOffline());
  listen("vision", () => void keepOffline());
  const wanted = new URLSearchParams(location.search).get("model");
  if (wanted) void openAddress(wanted);
}

/** Once a model has been used, the page stays for when there is no network. */
async function keepOffline(): Promise<void> {
  const { keepPage } = await import("./offline.js");
  await keepPage();
}

start();
