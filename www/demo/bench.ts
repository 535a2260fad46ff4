/**
 * bench.html?model=URL&threads=N&prompt=128&decode=64&quantize=Q4_0&runs=3&build=simd128 runs a model and
 * sets `window.result`: the best run's figures, or `{ error: { code, message } }`.
 */
import {
  BitpaneError, inspect, TextModel, VisionModel, type Backend, type BuildName, type LoadOptions,
} from "./pkg/index.js";
import { confirmed } from "./confirm.js";
import { byId, formatBytes, formatMs, formatRate, make } from "./dom.js";
import { complain, say } from "./notice.js";

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
  const { kind } = await inspect(url);
  return kind === "vision" ? benchVision(url, plan) : benchText(url, plan);
}

async function benchText(url: URL, { prompt, decode, runs, options }: Plan): Promise<BenchResult> {
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

function showResult(result: BenchResult): void {
  const rate = (value: number | null): string => (value === null ? "" : `${formatRate(value)} tokens a second`);
  const rows: [string, string][] = [
    ["Prompt", rate(result.promptTps)],
    ["Writing", rate(result.decodeTps)],
    ["Image", result.imageMs === null ? "" : formatMs(result.imageMs)],
    ["Load", formatMs(result.loadMs)],
    ["Weights", `${formatBytes(result.weightBytes)}, ${result.bitsPerWeight.toFixed(2)} bits each`],
    ["WebAssembly memory", formatBytes(result.wasmBytes)],
    ["Kernel", `${result.backend.kernel} (build ${result.backend.build}, threads: ${result.backend.threads})`],
  ];
  const table = byId<HTMLTableElement>("bench-table");
  const lines = rows.filter(([, value]) => value !== "").map(([name, value]) => {
    const line = make("tr");
    const head = make("th", "", name);
    head.scope = "row";
    line.append(head, make("td", "", value));
    return line;
  });
  table.tBodies[0]?.replaceChildren(...lines);
  table.hidden = false;
}

function readPlan(query: URLSearchParams): Plan {
  const count = (key: string, fallback: number): number => {
    const value = Number(query.get(key) ?? fallback);
    return Number.isInteger(value) && value > 0 ? value : fallback;
  };
  const options: LoadOptions = {};
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
  try {
    const url = new URL(address, document.baseURI);
    if (url.origin !== location.origin && !(await confirmed(url))) return say("The model was not loaded.");
    say("loading");
    const result = await bench(url, readPlan(query));
    showResult(result);
    say("done");
    window.result = result;
  } catch (error) {
    complain(error, "The run failed");
    const code = error instanceof BitpaneError ? error.code : "unknown";
    window.result = { error: { code, message: String(error) } };
  }
}

const query = new URLSearchParams(location.search);
const address = byId<HTMLInputElement>("bench-model");
byId<HTMLFormElement>("bench-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (address.value.trim()) void run(address.value.trim(), query);
});
const wanted = query.get("model");
if (wanted) {
  address.value = wanted;
  void run(wanted, query);
}
