/**
 * Many texts and many images with one model each: memory must stay flat. `SOAK=full` runs 200 texts and 500
 * images, as a person may in a long day; the tests run a part of that.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, openPage, serve, unlessBuiltIn, withPackage } from "./harness.mjs";

const FULL = process.env.SOAK === "full";
const [TEXTS, IMAGES] = FULL ? [200, 500] : [30, 60];
/** What the page's own heap may grow by, from the end of the first fifth to the end. */
const HEAP_BYTES = 3e6;

test(`${TEXTS} texts and ${IMAGES} images: memory stays flat`, { skip: unlessBuiltIn("story", "photo") }, async () => {
  const server = await serve();
  const browser = await launch();
  const { page, faults } = await openPage(browser, `${server.url}blank.html`);
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Performance.enable");
  const heap = async () => {
    await devtools.send("HeapProfiler.collectGarbage");
    const { metrics } = await devtools.send("Performance.getMetrics");
    return metrics.find(({ name }) => name === "JSHeapUsedSize").value;
  };
  await withPackage(page, async ({ TextModel, VisionModel }) => {
    globalThis.lm = await TextModel.load("/models/story.gguf", { cache: false });
    globalThis.vit = await VisionModel.load("/models/photo.gguf", { cache: false });
    globalThis.texts = async (n) => {
      for (let i = 0; i < n; i += 1) {
        for await (const piece of globalThis.lm.generate(`One day number ${i}`, { maxTokens: 40, seed: i })) void piece;
      }
      return globalThis.lm.stats.wasmBytes;
    };
    globalThis.images = async (n) => {
      const canvas = new OffscreenCanvas(320, 240);
      const context = canvas.getContext("2d");
      for (let i = 0; i < n; i += 1) {
        context.fillStyle = `hsl(${i * 17} 70% 50%)`;
        context.fillRect(0, 0, 320, 240);
        await globalThis.vit.classify(await canvas.convertToBlob(), { topK: 3 });
      }
      return globalThis.vit.stats.wasmBytes;
    };
  });
  const part = (n, of) => Math.ceil(n / of);
  const before = [await page.evaluate("texts(" + part(TEXTS, 5) + ")"), await page.evaluate("images(" + part(IMAGES, 5) + ")"), await heap()];
  const after = [await page.evaluate("texts(" + (TEXTS - part(TEXTS, 5)) + ")"), await page.evaluate("images(" + (IMAGES - part(IMAGES, 5)) + ")"), await heap()];
  console.log(`soak: wasm ${before.slice(0, 2)} then ${after.slice(0, 2)} bytes, heap ${before[2]} then ${after[2]}`);
  assert.deepEqual(after.slice(0, 2), before.slice(0, 2), "WebAssembly memory has grown");
  assert.ok(after[2] - before[2] < HEAP_BYTES, `the heap has grown by ${after[2] - before[2]} bytes`);
  assert.deepEqual(faults, []);
  await browser.close();
  await server.close();
});
