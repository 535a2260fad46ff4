/** Opening models: the built-in ones, files, addresses. */
import { inspect, TextModel, VisionModel, type Progress, type Source } from "./pkg/index.js";
import { confirmed } from "./confirm.js";
import { byId, formatBytes } from "./dom.js";
import { complain, say } from "./notice.js";
import { useTextModel } from "./story.js";
import { useVisionModel } from "./photo.js";

/** Which files lie in models/, written by the build. */
export interface BuiltIn {
  story: string | null;
  photo: string | null;
}

let loading: AbortController | undefined;

/** Loads a built-in model; whether it worked. */
export async function openBuiltIn(kind: "story" | "photo", file: string): Promise<boolean> {
  try {
    if (kind === "story") useTextModel(await TextModel.load(`models/${file}`), "Built-in storyteller");
    else useVisionModel(await VisionModel.load(`models/${file}`), "Built-in photo classifier");
    return true;
  } catch (error) {
    complain(error, "The built-in model cannot be used");
    return false;
  }
}

/** Opens whatever model a source holds; its kind decides which pane gets it. */
export async function openModel(source: Source, name: string): Promise<void> {
  loading?.abort();
  const current = new AbortController();
  loading = current;
  const { signal } = current;
  showLoading(`Reading the header of ${name}`);
  try {
    const header = await inspect(source, { signal });
    const quantize = byId<HTMLSelectElement>("open-precision").value;
    const options = { signal, onProgress: showProgress(name), ...(quantize ? { quantize } : {}) };
    // A file of unknown architecture is loaded all the same: the failure says what is wrong.
    if (header.kind === "vision") useVisionModel(await VisionModel.load(source, options), name);
    else useTextModel(await TextModel.load(source, options), name);
    say(`${name} is ready.`);
  } catch (error) {
    complain(error, `${name} cannot be opened`);
  } finally {
    if (loading === current) {
      loading = undefined;
      byId("loading").hidden = true;
    }
  }
}

function showLoading(text: string, done?: number, total?: number): void {
  if (byId("loading").hidden) {
    byId("loading").hidden = false;
    byId("loading").scrollIntoView({ block: "nearest" });
  }
  byId("loading-text").textContent = text;
  const bar = byId<HTMLProgressElement>("loading-bar");
  if (done === undefined || total === undefined) {
    bar.removeAttribute("value");
  } else {
    bar.max = total;
    bar.value = done;
  }
}

/** Bytes move the bar where their number is known, else tensors do. */
function showProgress(name: string): (progress: Progress) => void {
  let bytes = "";
  let totalKnown = false;
  return (progress) => {
    if (progress.status === "download") {
      totalKnown = progress.total !== undefined;
      bytes = formatBytes(progress.loaded) + (progress.total === undefined ? "" : ` of ${formatBytes(progress.total)}`);
      showLoading(`Loading ${name}: ${bytes}`, ...(totalKnown ? [progress.loaded, progress.total] : []));
    } else if ((progress.status === "repack" || progress.status === "quantize") && !totalKnown) {
      showLoading(`Loading ${name}: ${bytes}`, progress.tensorsDone, progress.tensorsTotal);
    }
  };
}

/** Opens an address, after asking where it belongs to another site. */
export async function openAddress(text: string, ask: boolean): Promise<void> {
  let url: URL;
  try {
    url = new URL(text, document.baseURI);
  } catch {
    return complain(new Error("that is not an address"), "The model cannot be opened");
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    return complain(new Error("only http: and https: addresses can be opened"), "The model cannot be opened");
  }
  if (ask && url.origin !== location.origin && !(await confirmed(url))) return say("The model was not loaded.");
  const name = decodeURIComponentOrNot(url.pathname.split("/").pop() ?? "") || url.host;
  await openModel(url, name);
}

function decodeURIComponentOrNot(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Connects the controls; `openFiles` takes files of any kind. */
export function startModels(openFiles: (files: readonly File[]) => void): void {
  const input = byId<HTMLInputElement>("open-file");
  input.addEventListener("change", () => {
    openFiles([...(input.files ?? [])]);
    input.value = "";
  });
  byId<HTMLFormElement>("open-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const address = byId<HTMLInputElement>("open-address").value.trim();
    if (address) void openAddress(address, false); // typed by the person: no need to ask
  });
  byId("loading-cancel").addEventListener("click", () => loading?.abort());
}
