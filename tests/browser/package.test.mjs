/** The package in a real browser, with the reference models of ../shared. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { BUILD, launch, openPage, serve, SHARED, unlessShared, withPackage } from "./harness.mjs";

const STORIES = "data/lm/stories260K/stories260K.F32.gguf";
const STORIES_GOLDEN = "data/lm/stories260K/golden_greedy.json";
const DEIT = "data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors";
const DEIT_GOLDEN = "data/vit/deit_tiny_reference_logits.json";
const PHOTO = "data/images/parrot.jpg";
const PHOTO_NAME = "parrot.jpg";

let server;
let browser;
let tab;

before(async () => {
  server = await serve();
  browser = await launch();
  tab = await openPage(browser, `${server.url}blank.html`);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

function inPage(run, args) {
  return withPackage(tab.page, run, args);
}

async function golden(path) {
  return JSON.parse(await readFile(join(SHARED, path), "utf8"));
}

test("detectFeatures chooses a build", async () => {
  const features = await inPage((bitpane) => bitpane.detectFeatures());
  assert.equal(features.simd128, true);
  assert.equal(features.build, BUILD);
  assert.match(features.buildReason, /all that the best build needs/);
  assert.equal(features.crossOriginIsolated, true);
  assert.equal(features.maxThreads > 1, BUILD.endsWith("threads"));
  assert.match(features.threadsReason, features.maxThreads > 1 ? /guess/ : /one thread/);
});

test("greedy tokens of stories260K are the reference's", { skip: unlessShared(STORIES, STORIES_GOLDEN) }, async () => {
  const { token_ids: wanted } = await golden(STORIES_GOLDEN);
  const result = await inPage(async ({ TextModel }, { url, n }) => {
    const progress = [];
    const lm = await TextModel.load(url, { onProgress: (p) => progress.push(p) });
    const tokens = [];
    let text = "";
    for await (const piece of lm.generate([1], { maxTokens: n, temperature: 0, ignoreEos: true })) {
      if (piece.token !== null) tokens.push(piece.token);
      text += piece.text;
    }
    const again = await lm.detokenize(tokens);
    const { info, stats } = lm;
    await lm.dispose();
    return { tokens, text, again, info, stats, progress };
  }, { url: `/shared/${STORIES}`, n: wanted.length - 1 });
  assert.deepEqual([1, ...result.tokens], wanted);
  assert.equal(result.text.trim(), result.again.trim());
  assert.equal(result.info.architecture, "llama");
  assert.equal(result.info.kind, "text");
  assert.equal(result.info.backend.build, BUILD);
  assert.equal(result.info.backend.isa, "relaxed-simd");
  assert.ok(result.info.backend.threads >= 1 && result.info.backend.threads <= 8);
  // In kernel order, padding included.
  assert.ok(result.info.bitsPerWeight >= 32 && result.info.bitsPerWeight < 33, `${result.info.bitsPerWeight} bits`);
  assert.equal(result.stats.decodeTokens, wanted.length - 1);
  assert.equal(result.stats.finishReason, "length");
  assert.ok(result.stats.wasmBytes > result.info.weightBytes);
  const statuses = new Set(result.progress.map((p) => p.status));
  assert.deepEqual([...statuses].sort(), ["download", "ready", "repack"]);
  assert.equal(result.progress.at(-1).status, "ready");
  for (const p of result.progress) if (p.total !== undefined) assert.ok(p.loaded <= p.total);
});

test("every kind of source loads the same model", { skip: unlessShared(STORIES) }, async () => {
  const texts = await inPage(async ({ TextModel }, { url }) => {
    const bytes = await (await fetch(url)).arrayBuffer();
    const sources = [
      url, new URL(url, location.href), [url], new Blob([bytes]), new File([bytes], "m.gguf"), bytes,
      new Blob([bytes]).stream(),
    ];
    const texts = [];
    for (const source of sources) {
      const lm = await TextModel.load(source);
      let text = "";
      for await (const piece of lm.generate("Once upon a time", { maxTokens: 12, temperature: 0 })) text += piece.text;
      texts.push(text);
      await lm.dispose();
    }
    if (bytes.byteLength === 0) throw new Error("the caller's buffer was taken away");
    return texts;
  }, { url: `/shared/${STORIES}` });
  assert.equal(texts.length, 7);
  assert.ok(texts[0].length > 10);
  assert.equal(new Set(texts).size, 1);
});

test("tokenize, detokenize, logits, perplexity", { skip: unlessShared(STORIES) }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const ids = await lm.tokenize("Once upon a time", { addSpecial: true });
    const rows = await lm.logits(ids, { last: 2 });
    const all = await lm.logits(ids);
    const story = "Once upon a time, there was a little girl. She was very happy.";
    const measured = await lm.perplexity(story, { context: 16 });
    const { record } = await lm.perplexity(story, { context: 16, record: true });
    const { divergence } = await lm.perplexity(story, { context: 16, against: record });
    const damaged = await lm.perplexity(story, { context: 16, against: record.slice(0, 9) }).catch((error) => error.code);
    const text = await lm.detokenize(ids.slice(1));
    await lm.dispose();
    return {
      ids, text, measured, divergence, damaged, lengths: rows.map((row) => row.length), all: all.length,
      same: rows[1].every((v, i) => v === all.at(-1)[i]),
    };
  }, { url: `/shared/${STORIES}` });
  assert.equal(result.ids[0], 1);
  assert.equal(result.text.trim(), "Once upon a time");
  assert.deepEqual(result.lengths, [512, 512]);
  assert.equal(result.all, result.ids.length);
  assert.ok(result.same);
  assert.ok(result.measured.nll > 0.1 && result.measured.nll < 3, `nll ${result.measured.nll}`);
  assert.ok(Math.abs(result.measured.perplexity - Math.exp(result.measured.nll)) < 1e-9);
  assert.ok(Math.abs(result.divergence.mean) < 1e-6 && result.divergence.sameTop === 1, JSON.stringify(result.divergence));
  assert.equal(result.damaged, "Truncated");
});

test("DeiT-Tiny quantized to Q8_0 while loading sees what the reference sees", {
  skip: unlessShared(DEIT, DEIT_GOLDEN, PHOTO),
}, async () => {
  const [wanted] = (await golden(DEIT_GOLDEN)).deit_tiny.images[PHOTO_NAME].top10;
  const result = await inPage(async ({ VisionModel }, { url, photo }) => {
    const progress = [];
    const vit = await VisionModel.load(url, { quantize: "Q8_0", onProgress: (p) => progress.push(p.status) });
    const blob = await (await fetch(photo)).blob();
    const image = new Image();
    image.src = photo;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const bitmap = await createImageBitmap(blob);
    const data = context.getImageData(0, 0, canvas.width, canvas.height);
    const best = {};
    for (const [name, source] of Object.entries({ blob, image, canvas, bitmap, data })) {
      best[name] = (await vit.classify(source, { topK: 3 }))[0];
    }
    if (bitmap.width === 0) throw new Error("the caller's bitmap was taken away");
    const top = await vit.classify(blob);
    const logits = await vit.logits(new Float32Array(3 * 224 * 224), { shape: [1, 3, 224, 224] });
    const features = await vit.features(blob);
    const { info, stats } = vit;
    await vit.dispose();
    const finite = logits.every(Number.isFinite);
    return { best, top, n: logits.length, finite, features: features.length, info, stats, progress };
  }, { url: `/shared/${DEIT}`, photo: `/shared/${PHOTO}` });
  for (const [name, found] of Object.entries(result.best)) assert.equal(found.index, wanted, name);
  assert.equal(result.top.length, 5);
  assert.ok(result.top.every((c, i) => i === 0 || c.score <= result.top[i - 1].score));
  assert.ok(result.top.reduce((sum, c) => sum + c.score, 0) <= 1.0001);
  assert.deepEqual([result.n, result.features], [1000, 192]);
  assert.ok(result.finite);
  assert.equal(result.info.imageSize, 224);
  assert.ok(result.info.bitsPerWeight < 10, `${result.info.bitsPerWeight} bits`);
  assert.ok(result.stats.imageMs > 0);
  assert.ok(result.progress.includes("quantize"));
});

test("inspect reads the header only", { skip: unlessShared(STORIES, DEIT) }, async () => {
  const urls = [`/shared/${STORIES}`, `/shared/${DEIT}`];
  const [gguf, safetensors] = await inPage(({ inspect }, list) => Promise.all(list.map((url) => inspect(url))), urls);
  assert.deepEqual([gguf.container, gguf.kind, gguf.architecture], ["gguf", "text", "llama"]);
  assert.deepEqual([safetensors.container, safetensors.kind, safetensors.architecture], ["safetensors", "vision", "vit"]);
  assert.equal(gguf.bitsPerWeight, 32);
  const embedding = gguf.tensors.find((tensor) => tensor.name === "token_embd.weight");
  assert.deepEqual(embedding, { name: "token_embd.weight", type: "F32", shape: [512, 64], bytes: 512 * 64 * 4 });
  assert.deepEqual(gguf.metadata["tokenizer.ggml.tokens"], { length: 512 });
});

test("the tests above left no trace of a fault", () => {
  assert.deepEqual(tab.faults, []);
});
