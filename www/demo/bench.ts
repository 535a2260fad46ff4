/**
 * bench.html?model=URL&threads=N&prompt=128&decode=64&quantize=Q4_0&runs=3&build=simd128 runs a model and
 * sets `window.result`: the best run's figures, or `{ error: { code, message } }`.
 */
import type { Backend, BuildName, LoadOptions } from "./pkg/index.js";
import { confirmed } from "./confirm.js";
import { byId, formatBytes, formatMs, formatRate, make } from "./dom.js";
import { codeOf, complain, say, startNotice } from "./notice.js";
import { bitpane } from "./package.js";
import { hashOf, resultIn, type SharedResult } from "./share.js";

/** What `window.result` holds. */
export interface BenchResult {
  /** Prompt tokens per second; null for vision models. */
  promptTps: number | null;
  /** New tokens per second; null for vision models. */
  decodeTps: number | null;
  /** Milliseconds from normalised pixels to logits; null for language models. */
  imageMs: number | null;
  loadMs: number;
  wasmBytes: number;
  backend: Backend;
  bitsPerWeight: number;
  weightBytes: number;
}

declare global {
  interface Window {
    result?: BenchResult | { error: { code: string; message: string } };
  }
}

interface Plan {
  prompt: number;
  decode: number;
  runs: number;
  options: LoadOptions;
}

async function bench(url: URL, plan: Plan): Promise<BenchResult> {
  const { inspect } = await bitpane();
  const { kind } = await inspect(url);
  return kind === "vision" ? benchVision(url, plan) : benchText(url, plan);
}

async function benchText(url: URL, { prompt, decode, runs, options }: Plan): Promise<BenchResult> {
  const { TextModel } = await bitpane();
  const start = performance.now();
  const model = await TextModel.load(url, options);
  const loadMs = performance.now() - start;
  let promptTps = 0;
  let decodeTps = 0;
  for (let run = 0; run < runs; run += 1) {
    // Another prompt each time: what is still in the context would not be computed again.
    const tokens = Array.from({ length: prompt }, (_, i) => (7 + run * 13 + i * 31) % model.info.nOutput);
    for await (const piece of model.generate(tokens, { maxTokens: decode, temperature: 0, ignoreEos: true })) void piece;
    const { promptTokens, cachedTokens, promptMs, decodeTokens, decodeMs } = model.stats;
    promptTps = Math.max(promptTps, ((promptTokens - cachedTokens) * 1000) / promptMs);
    // The first token comes with the prompt's scores.
    decodeTps = Math.max(decodeTps, ((decodeTokens - 1) * 1000) / decodeMs);
    say(`run ${run + 1} of ${runs}`);
  }
  const { wasmBytes } = model.stats;
  await model.dispose();
  const { backend, bitsPerWeight, weightBytes } = model.info;
  return { promptTps, decodeTps, imageMs: null, loadMs, wasmBytes, backend, bitsPerWeight, weightBytes };
}

async function benchVision(url: URL, { runs, options }: Plan): Promise<BenchResult> {
  const { VisionModel } = await bitpane();
  const start = performance.now();
  const model = await VisionModel.load(url, options);
  const loadMs = performance.now() - start;
  const side = model.info.imageSize;
  const pixels = Float32Array.from({ length: 3 * side * side }, (_, i) => Math.sin(i * 0.37));
  let imageMs = Infinity;
  for (let run = 0; run < runs; run += 1) {
    await model.logits(pixels, { shape: [1, 3, side, side] });
    imageMs = Math.min(imageMs, model.stats.imageMs);
    say(`run ${run + 1} of ${runs}`);
  }
  const { wasmBytes } = model.stats;
  await model.dispose();
  const { backend, bitsPerWeight, weightBytes } = model.info;
  return { promptTps: null, decodeTps: null, imageMs, loadMs, wasmBytes, backend, bitsPerWeight, weightBytes };
}

/** What can be passed on of a result. */
function shared(result: BenchResult, model: string): SharedResult {
  const { promptTps, decodeTps, imageMs, loadMs, wasmBytes, weightBytes, bitsPerWeight, backend } = result;
  const { build, kernel, threads } = backend;
  const cores = navigator.hardwareConcurrency || 1;
  return { model, promptTps, decodeTps, imageMs, loadMs, wasmBytes, weightBytes, bitsPerWeight, build, kernel, threads, cores };
}

function rowsOf(result: SharedResult): [term: string, value: string, unit?: string][] {
  const { promptTps, decodeTps, imageMs } = result;
  const big: [string, string, string?][] = [];
  if (promptTps !== null) big.push(["Reading", formatRate(promptTps), "tokens a second"]);
  if (decodeTps !== null) big.push(["Writing", formatRate(decodeTps), "tokens a second"]);
  if (imageMs !== null) big.push(["An image", formatMs(imageMs), `${formatRate(1000 / imageMs)} a second`]);
  return [
    ...big,
    ["Load", formatMs(result.loadMs)],
    ["Weights", `${formatBytes(result.weightBytes)}, ${result.bitsPerWeight.toFixed(2)} bits each`],
    ["Memory", formatBytes(result.wasmBytes)],
    ["Threads", `${result.threads} on ${result.cores} logical cores`],
    ["Build", result.build],
    ["Kernel", result.kernel],
  ];
}

function showResult(result: SharedResult, isForeign: boolean): void {
  byId("bench-result").hidden = false;
  byId("bench-model-name").textContent = result.model;
  byId("bench-origin").textContent = isForeign ? "As the link tells it; it was not measured here." : "Measured just now, in this tab.";
  byId("bench-headline").replaceChildren();
  byId("bench-figures").replaceChildren();
  for (const [term, value, unit] of rowsOf(result)) {
    const group = make("div", unit === undefined ? "" : "big");
    group.append(make("dt", "", unit === undefined ? term : `${term}, ${unit}`), make("dd", "", value));
    byId(unit === undefined ? "bench-figures" : "bench-headline").append(group);
  }
  const link = new URL(location.href);
  link.search = "";
  link.hash = hashOf(result);
  byId("bench-copy-link").onclick = () => void copy(link.href, "The link is copied.");
  const text = [result.model, ...rowsOf(result).map(([term, value, unit]) => `${term}: ${value}${unit ? ` (${unit})` : ""}`)];
  byId("bench-copy-text").onclick = () => void copy(text.join("\n"), "The figures are copied.");
}

async function copy(text: string, done: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch {
    say(text); // no clipboard here: to be copied by hand
  }
}

function readPlan(query: URLSearchParams): Plan {
  const count = (key: string, fallback: number): number => {
    const value = Number(query.get(key) || fallback);
    return Number.isInteger(value) && value > 0 ? value : fallback;
  };
  const options: LoadOptions = { cache: false };
  const quantize = query.get("quantize");
  if (quantize) options.quantize = quantize;
  const threads = query.get("threads");
  if (threads) options.threads = threads === "auto" ? "auto" : Number(threads);
  const build = query.get("build");
  // Whatever else it says, `load` refuses.
  if (build) options.build = build as BuildName;
  return { prompt: count("prompt", 128), decode: Math.max(2, count("decode", 64)), runs: count("runs", 3), options };
}

async function run(address: string, query: URLSearchParams): Promise<void> {
  const button = byId<HTMLButtonElement>("bench-run");
  try {
    const url = new URL(address, document.baseURI);
    if (url.origin !== location.origin && !(await confirmed(url))) return say("The model was not loaded.");
    button.disabled = true;
    say("loading");
    const result = await bench(url, readPlan(query));
    showResult(shared(result, nameOf(url)), false);
    say("");
    window.result = result;
  } catch (error) {
    complain(error, "The run failed");
    window.result = { error: { code: codeOf(error) ?? "unknown", message: String(error) } };
  } finally {
    button.disabled = false;
  }
}

function nameOf(url: URL): string {
  return (url.pathname.split("/").pop() || url.host).slice(0, 120);
}

function start(): void {
  startNotice();
  const query = new URLSearchParams(location.search);
  const address = byId<HTMLInputElement>("bench-address");
  const model = byId<HTMLSelectElement>("bench-model");
  model.addEventListener("change", () => {
    byId("bench-address-field").hidden = model.value !== "";
  });
  byId<HTMLFormElement>("bench-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = new URLSearchParams(query);
    for (const key of ["threads", "prompt", "decode"]) chosen.set(key, byId<HTMLInputElement>(`bench-${key}`).value);
    const which = model.value || address.value.trim();
    if (which) void run(which, chosen);
  });
  const foreign = resultIn(location.hash);
  if (foreign) showResult(foreign, true);
  const wanted = query.get("model");
  if (!wanted) return;
  model.value = "";
  byId("bench-address-field").hidden = false;
  address.value = wanted;
  for (const key of ["threads", "prompt", "decode"]) {
    const value = Number(query.get(key));
    if (value > 0) byId<HTMLInputElement>(`bench-${key}`).value = String(value);
  }
  void run(wanted, query);
}

start();
