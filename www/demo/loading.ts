/** Opening models: files, addresses, presets; with progress and a way out. */
import type { Progress, Source } from "./pkg/index.js";
import { confirmed } from "./confirm.js";
import { byId, formatBytes, formatSeconds } from "./dom.js";
import { complain, say } from "./notice.js";
import { bitpane } from "./package.js";
import { use } from "./session.js";
import { loadOptions, settings } from "./settings.js";

/** What may come with a source. */
export interface OpenOptions {
  labels?: readonly string[];
}

let loading: AbortController | undefined;

/** Opens whatever model a source holds; its kind decides which view gets it. Whether it worked. */
export async function openModel(source: Source, name: string, { labels }: OpenOptions = {}): Promise<boolean> {
  loading?.abort();
  const current = new AbortController();
  loading = current;
  const { signal } = current;
  showLoading(`Reading the header of ${name}`);
  try {
    const { inspect, TextModel, VisionModel } = await bitpane();
    const header = await inspect(source, { signal });
    const { threads, ...forText } = loadOptions();
    const { quantize } = settings();
    const options = { signal, onProgress: showProgress(name), ...(threads && { threads }), ...(quantize && { quantize }) };
    const shared = { name, source, builtIn: false };
    // A file of unknown architecture is loaded all the same: the failure says what is wrong.
    if (header.kind === "vision") {
      use("vision", { ...shared, model: await VisionModel.load(source, { ...options, ...(labels && { labels }) }) });
    } else {
      use("text", { ...shared, model: await TextModel.load(source, { ...options, ...forText }) });
    }
    say(`${name} is ready.`);
    return true;
  } catch (error) {
    complain(error, `${name} cannot be opened`);
    return false;
  } finally {
    if (loading === current) {
      loading = undefined;
      hideLoading();
    }
  }
}

/**
 * Opens the files of one model, picked or dropped together. A model as Hugging Face keeps it (safetensors with its
 * config.json and tokenizer.json) becomes a GGUF file in this tab first.
 */
export async function openPicked(picked: readonly File[]): Promise<boolean> {
  const name = picked.find(({ name }) => /\.(gguf|safetensors|tflite)$/i.test(name))?.name ?? "The model";
  try {
    showLoading(`Reading ${name}`);
    return await openModel(await gathered(picked, settings().quantize || "F16"), name);
  } catch (error) {
    hideLoading();
    complain(error, `${name} cannot be opened`);
    return false;
  }
}

/** One source of picked files; what lies beside the weights is written into a file of `type` with them. */
export async function gathered(picked: readonly File[], type: string): Promise<Source> {
  const { pickedModel, quantizeFile } = await bitpane();
  const { source, files } = await pickedModel(picked);
  return files ? (await quantizeFile(source, { type, files })).blob : source;
}

/** Opens an address, after asking where it belongs to another site. */
export async function openAddress(text: string, options: OpenOptions = {}): Promise<boolean> {
  let url: URL;
  try {
    url = new URL(text, document.baseURI);
  } catch {
    complain(new Error("that is not an address"), "The model cannot be opened");
    return false;
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    complain(new Error("only http: and https: addresses can be opened"), "The model cannot be opened");
    return false;
  }
  if (url.origin !== location.origin && !(await confirmed(url))) {
    say("The model was not loaded.");
    return false;
  }
  return openModel(url, nameOf(url), options);
}

/** The last part of an address, for people. */
export function nameOf(url: URL): string {
  const last = url.pathname.split("/").pop() ?? "";
  try {
    return decodeURIComponent(last) || url.host;
  } catch {
    return last;
  }
}

/** Shows that something is loading. */
export function showLoading(text: string, done?: number, total?: number): void {
  byId("loading").hidden = false;
  byId("loading-text").textContent = text;
  byId("loading-stage").textContent = byId("loading-numbers").textContent = "";
  const bar = byId<HTMLProgressElement>("loading-bar");
  if (done === undefined || total === undefined) {
    bar.removeAttribute("value");
  } else {
    bar.max = total;
    bar.value = done;
  }
}

function hideLoading(): void {
  byId("loading").hidden = true;
}

/** Bytes move the bar where their number is known, else tensors do; below it what is being done, and how fast. */
function showProgress(name: string): (progress: Progress) => void {
  let stage = "";
  let numbers = "";
  let tensors = "";
  let bar: [number, number] | [] = [];
  let totalKnown = false;
  return (progress) => {
    switch (progress.status) {
      case "download": {
        totalKnown = progress.total !== undefined;
        if (totalKnown) bar = [progress.loaded, progress.total!];
        stage = sourceOf(progress);
        numbers = numbersOf(progress);
        break;
      }
      case "repack":
      case "quantize": {
        const { tensorsDone, tensorsTotal, status } = progress;
        if (!totalKnown) bar = [tensorsDone, tensorsTotal];
        tensors = `${tensorsDone} of ${tensorsTotal} tensors ${status === "quantize" ? "quantized" : "laid out"}`;
        break;
      }
      case "retry":
        stage = `Broken off (${progress.reason}); attempt ${progress.attempt} of ${progress.attempts}`;
        break;
      case "wait":
        stage = "Another tab downloads it: waiting for that";
        break;
      case "verify":
        stage = "The hash is right";
        break;
      default:
        return;
    }
    showLoading(`Loading ${name}`, ...bar);
    byId("loading-stage").textContent = stage;
    byId("loading-numbers").textContent = [numbers, tensors].filter(Boolean).join(" · ");
  };
}

type Transfer = Progress & { status: "download" };

/** Where the bytes come from. */
function sourceOf({ loaded, cached, file, files }: Transfer): string {
  const which = files > 1 ? ` (file ${file} of ${files})` : "";
  if (cached === 0) return `Downloading${which}`;
  return cached === loaded ? `Reading what is kept here${which}` : `Going on with the download${which}; ${formatBytes(cached)} were here`;
}

function numbersOf({ loaded, total, bytesPerSecond, secondsLeft }: Transfer): string {
  const parts = [formatBytes(loaded) + (total === undefined ? "" : ` of ${formatBytes(total)}`)];
  if (bytesPerSecond > 0) parts.push(`${formatBytes(bytesPerSecond)}/s`);
  if (secondsLeft !== undefined && secondsLeft >= 1) parts.push(`${formatSeconds(secondsLeft)} left`);
  return parts.join(" · ");
}

/** Connects the way out. */
export function startLoading(): void {
  byId("loading-cancel").addEventListener("click", () => loading?.abort());
}
