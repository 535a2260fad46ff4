// Where the time of a model goes, by function of the .wasm, in Chromium's CPU profiler on one thread:
//   BITPANE_NAMES=1 cargo xtask build
//   node tests/bench/profile.mjs FILE [--quantize TYPE] [--photo FILE] [--prompt N] [--decode N] [--rounds N]
// A vision model sees noise, or classifies a photo from its bitmap; a language model reads a prompt of N tokens, about, and writes N (64 and 64). The share of
// each function, itself alone, and what it comes to in each round.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import puppeteer from "puppeteer-core";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quantize: { type: "string" }, photo: { type: "string" }, prompt: { type: "string", default: "64" },
    decode: { type: "string", default: "64" }, rounds: { type: "string", default: "10" },
  },
});
if (positionals.length !== 1) throw new Error("which file?");
const file = resolve(positionals[0]);
const TYPES = { ".js": "text/javascript", ".html": "text/html" };
const server = createServer(({ url }, response) => {
  const path = url.startsWith("/pkg/") ? join(ROOT, url) : url.startsWith("/model/") ? file : url === "/photo" ? values.photo : undefined;
  const type = TYPES[/\.\w+$/.exec(url)?.[0]] ?? "application/octet-stream";
  if (path === undefined) return response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>profile</title>");
  response.writeHead(200, { "Content-Type": type, "Content-Length": statSync(path).size });
  return createReadStream(path).pipe(response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const browser = await puppeteer.launch({
  executablePath: process.env.CHROME ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"], protocolTimeout: 600_000,
});
const page = await browser.newPage();
await page.goto(`http://localhost:${server.address().port}/`);

/** In the page: loads the model and makes `work`, which gives the milliseconds of a round. */
async function load({ url, quantize, prompt, decode, text, photo }) {
  const { TextModel, VisionModel } = await import("/pkg/index.js");
  const options = { threads: 1, cache: false, ...(quantize && { quantize }) };
  if (text) {
    const model = await TextModel.load(url, { ...options, contextLength: 2048 });
    let n = 0;
    globalThis.work = async () => {
      const words = Array.from({ length: prompt }, (_, i) => " abcdefgh"[(i * 7 + n) % 9]).join("");
      n += 1;
      for await (const _ of model.generate(words, { maxTokens: decode, temperature: 0, ignoreEos: true }));
      return model.stats.promptMs + model.stats.decodeMs;
    };
    return;
  }
  const model = await VisionModel.load(url, options);
  if (photo) {
    const blob = await (await fetch("/photo")).blob();
    const bitmap = await createImageBitmap(blob);
    globalThis.work = async () => {
      const start = performance.now();
      await model.classify(bitmap);
      return performance.now() - start;
    };
    return;
  }
  const input = Float32Array.from({ length: 3 * 224 * 224 }, Math.random);
  globalThis.work = async () => {
    const start = performance.now();
    await model.logits(input, { shape: [3, 224, 224] });
    return performance.now() - start;
  };
}

const [rounds, prompt, decode] = [values.rounds, values.prompt, values.decode].map(Number);
const text = file.endsWith(".gguf");
await page.evaluate(load, { url: `/model/${basename(file)}`, quantize: values.quantize, prompt, decode, text, photo: values.photo !== undefined });
const run = (n) => page.evaluate(async (n) => {
  const times = [];
  for (let i = 0; i < n; i += 1) times.push(await globalThis.work());
  return times;
}, n);
// The engine optimizes what runs often.
await run(Math.max(2, Math.ceil(rounds / 2)));
const [worker] = page.workers();
await worker.client.send("Profiler.enable");
await worker.client.send("Profiler.setSamplingInterval", { interval: 250 });
await worker.client.send("Profiler.start");
const times = (await run(rounds)).sort((a, b) => a - b);
const { profile } = await worker.client.send("Profiler.stop");
await browser.close();
server.close();

const nameOf = new Map(profile.nodes.map((node) => [node.id, node.callFrame.functionName]));
const micros = new Map();
profile.samples.forEach((id, i) => {
  const name = nameOf.get(id) || "(unnamed)";
  if (name !== "(idle)") micros.set(name, (micros.get(name) ?? 0) + profile.timeDeltas[i]);
});
const total = [...micros.values()].reduce((a, b) => a + b, 0);
/** Without the hashes and paths of crates. */
const short = (name) => name.replace(/\w+\[[0-9a-f]{16}\]::/g, "").replace(/kernels::(?:isa|path\d*)::(?:simd128::)?/g, "");
console.log(`a round: ${times[times.length >> 1].toFixed(2)} ms by median, ${times[0].toFixed(2)} ms at best`);
for (const [name, us] of [...micros].sort((a, b) => b[1] - a[1]).slice(0, 24)) {
  console.log(`${((100 * us) / total).toFixed(1).padStart(5)} % ${(us / 1000 / rounds).toFixed(2).padStart(8)} ms  ${short(name)}`);
}
