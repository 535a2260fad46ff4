// MobileNetV2 from a .tflite file beside LiteRT.js in one Chromium, and what preprocessing takes:
// `node tests/bench/cnn.mjs [--rounds N] [--threads N] [--model FILE.tflite] [--photo FILE]`.
// Both runtimes take turns; the middle of all rounds counts. Needs `cargo xtask build` and `npm ci` in this folder.
import { copyFileSync, mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { MODELS, ROOT } from "./files.mjs";
import { serve } from "./server.mjs";

const DATA = join(ROOT, "../shared/data");
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "15" },
    threads: { type: "string", default: "1" },
    model: { type: "string", default: join(DATA, "cnn/mobilenet_v2_1.0_224_quant.tflite") },
    photo: { type: "string", default: join(DATA, "images/parrot.jpg") },
  },
});
const rounds = Number(values.rounds);
const threads = Number(values.threads);
// Enough for the browser's optimizing compiler to have replaced what it compiled in haste.
const WARM_UP = 20;
const SIZE = 224;

const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

const quick = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 10)];

/** A contender's page, loaded. */
async function open(browser, origin, module, file) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(module, String(error)));
  await page.goto(`${origin}/contenders/page.html?module=${module}`);
  await page.waitForFunction("window.ready", undefined, { timeout: 60_000 });
  const info = await page.evaluate((t) => window.load(t), { url: `${origin}/models/${file}`, threads, kind: "vision" });
  const task = { kind: "vision", size: SIZE, imageShape: [1, 3, SIZE, SIZE] };
  return { page, info, measure: () => page.evaluate((t) => window.measure(t), task) };
}

/** Milliseconds that a page of ours takes from a decoded picture to classes, preprocessing apart. */
async function photo({ page }, url) {
  const run = async ([url, rounds]) => {
    const { VisionModel } = await import("/pkg/index.js");
    const [model, photo] = url;
    const vision = await VisionModel.load(model, { threads: 1, cache: false });
    const bitmap = await createImageBitmap(await (await fetch(photo)).blob());
    const size = vision.info.imageSize;
    const pixels = new Float32Array(3 * size * size);
    const timed = async (work) => {
      const start = performance.now();
      await work();
      return performance.now() - start;
    };
    const samples = [];
    for (let i = 0; i < rounds; i++) {
      const ms = await timed(() => vision.classify(bitmap, { topK: 1 }));
      // The same without preprocessing.
      const logitsMs = await timed(() => vision.logits(pixels, { shape: [1, 3, size, size] }));
      samples.push({ ms, preprocessMs: ms - logitsMs });
    }
    return { width: bitmap.width, height: bitmap.height, samples: samples.slice(-20) };
  };
  return page.evaluate(run, [url, WARM_UP + 20]);
}

mkdirSync(MODELS, { recursive: true });
for (const path of [values.model, values.photo]) copyFileSync(path, join(MODELS, basename(path)));
const server = await serve();
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const flags = ["--no-sandbox", "--disable-background-timer-throttling", "--disable-renderer-backgrounding"];
const browser = await chromium.launch({ executablePath, args: flags });
try {
  const contenders = {};
  for (const module of ["bitpane", "litert"]) {
    contenders[module] = { ...(await open(browser, server.origin, module, basename(values.model))), samples: [] };
    console.error(module, JSON.stringify(contenders[module].info));
  }
  const all = Object.values(contenders);
  for (let i = 0; i < WARM_UP; i++) for (const c of all) await c.measure();
  for (let round = 0; round < rounds; round++) {
    for (const c of round % 2 ? all.toReversed() : all) c.samples.push((await c.measure()).imageMs);
  }
  const [own, peer] = ["bitpane", "litert"].map((name) => median(contenders[name].samples));
  const ratios = contenders.bitpane.samples.map((ms, i) => contenders.litert.samples[i] / ms);
  const files = [values.model, values.photo].map((path) => `${server.origin}/models/${basename(path)}`);
  const shown = await photo(contenders.bitpane, files);
  const result = {
    browser: browser.version(),
    threads,
    rounds,
    bitpaneMs: own,
    litertMs: peer,
    // On a machine with other work the quick rounds say more than the middle: both, of bitpane and LiteRT.js.
    bestMs: [contenders.bitpane, contenders.litert].map((c) => Math.min(...c.samples)),
    quickTenthMs: [contenders.bitpane, contenders.litert].map((c) => quick(c.samples)),
    ratio: peer / own,
    medianOfRatios: median(ratios),
    ratioOfBest: Math.min(...contenders.litert.samples) / Math.min(...contenders.bitpane.samples),
    photo: {
      width: shown.width,
      height: shown.height,
      classifyMs: median(shown.samples.map((s) => s.ms)),
      preprocessMs: median(shown.samples.map((s) => s.preprocessMs)),
      bestMs: Math.min(...shown.samples.map((s) => s.ms)),
    },
  };
  console.log(JSON.stringify(result, null, 1));
} finally {
  await browser.close();
  server.close();
}
