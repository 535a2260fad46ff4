/** Files of fewer bits, made in a real browser. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openPage, serve, unlessShared, withPackage } from "./harness.mjs";

const STORIES = "data/lm/stories260K/stories260K.F32.gguf";
const DEIT = "data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors";
const PHOTO = "data/images/parrot.jpg";

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

const at = (path) => `${server.url}shared/${path}`;

test("a written file loads and writes the same text as a load with quantize", { skip: unlessShared(STORIES) }, async () => {
  const found = await inPage(async ({ quantizeFile, TextModel }, { url }) => {
    const heard = [];
    const { blob, report } = await quantizeFile(url, { type: "Q8_0", onProgress: (p) => heard.push(p.status) });
    const text = async (source, options) => {
      const lm = await TextModel.load(source, options);
      let out = "";
      for await (const piece of lm.generate("Once", { maxTokens: 24, temperature: 0 })) out += piece.text;
      await lm.dispose();
      return out;
    };
    return {
      size: blob.size, report, heard,
      written: await text(blob, {}),
      onLoad: await text(url, { quantize: "Q8_0" }),
    };
  }, { url: at(STORIES) });
  assert.equal(found.report.bytesAfter, found.size);
  assert.ok(found.size < found.report.bytesBefore / 2);
  assert.ok(found.written.length > 20);
  assert.equal(found.written, found.onLoad);
});

test("a survey, a curve, plans within budgets, and the smallest one named", { skip: unlessShared(STORIES) }, async () => {
  const found = await inPage(async ({ Quantizer }, { url }) => {
    const quantizer = await Quantizer.open(url);
    const { survey, curve } = quantizer;
    const targetBytes = Math.round((curve[0].bytes + curve.at(-1).bytes) / 2);
    const plan = await quantizer.plan({ targetBytes });
    const { blob, report } = await quantizer.write(plan);
    const refused = await quantizer.plan({ targetBytes: 10 }).catch((e) => ({ code: e.code, message: e.message }));
    const edited = { tensors: [{ name: "nonsense", type: "Q8_0" }] };
    const unknown = await quantizer.write(edited).catch((e) => ({ code: e.code, tensor: e.tensor }));
    await quantizer.dispose();
    return { survey, curve, targetBytes, plan, size: blob.size, bits: report.bitsPerWeight, refused, unknown };
  }, { url: at(STORIES) });
  assert.equal(found.survey.lossUnit, "relative");
  assert.ok(found.survey.tensors.some((t) => t.choices.length > 4 && t.sensitivity > 0));
  assert.ok(found.curve.every((p, i) => i === 0 || p.loss <= found.curve[i - 1].loss));
  assert.ok(found.size <= found.targetBytes, `${found.size} of ${found.targetBytes}`);
  assert.equal(found.size, found.plan.bytes);
  assert.ok(Math.abs(found.bits - found.plan.bitsPerWeight) < 1e-6);
  assert.equal(found.refused.code, "BudgetInfeasible");
  assert.match(found.refused.message, /smallest possible is \d+/);
  assert.deepEqual(found.unknown, { code: "BadArgument", tensor: "nonsense" });
});

test("Q12: an aborted quantization leaves the source usable", { skip: unlessShared(DEIT) }, async () => {
  const found = await inPage(async ({ quantizeFile, VisionModel }, { url }) => {
    const bytes = await (await fetch(url)).arrayBuffer();
    const stop = new AbortController();
    const name = await quantizeFile(bytes, { type: "Q4_0", signal: stop.signal, onProgress: () => stop.abort() })
      .then(() => "finished", (e) => e.name);
    const again = await VisionModel.load(bytes, { quantize: "Q8_0" });
    const { parameters } = again.info;
    await again.dispose();
    return { name, parameters, length: bytes.byteLength };
  }, { url: at(DEIT) });
  assert.equal(found.name, "AbortError");
  assert.ok(found.parameters > 5_000_000 && found.length > 20_000_000);
});

test("DeiT-Tiny in 4 bits: how long it takes on one thread, and that it sees", { skip: unlessShared(DEIT, PHOTO) }, async () => {
  const found = await inPage(async ({ quantizeFile, VisionModel }, { url, photo }) => {
    const file = await (await fetch(url)).blob();
    const picture = await (await fetch(photo)).blob();
    const times = [];
    let blob;
    for (let i = 0; i < 3; i += 1) {
      const start = performance.now();
      ({ blob } = await quantizeFile(file, { type: "Q4_0", threads: 1 }));
      times.push(performance.now() - start);
    }
    const top = async (source) => {
      const model = await VisionModel.load(source);
      const [best] = await model.classify(picture, { topK: 1 });
      await model.dispose();
      return best.index;
    };
    return { times, size: blob.size, small: await top(blob), whole: await top(file) };
  }, { url: at(DEIT), photo: at(PHOTO) });
  console.log(`DeiT-Tiny to Q4_0, ${found.size} bytes: ${found.times.map((t) => t.toFixed(0)).join(", ")} ms`);
  assert.ok(found.size < 4_000_000);
  assert.equal(found.small, found.whole);
});
