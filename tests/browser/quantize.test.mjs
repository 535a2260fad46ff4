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

/** A Llama as Hugging Face keeps it, in one file and in two with their index; its tokens are bytes. */
function huggingFace() {
  const [width, inner, vocab, heads] = [64, 96, 259, 4];
  const names = { "model.embed_tokens.weight": [vocab, width], "lm_head.weight": [vocab, width], "model.norm.weight": [width] };
  for (const layer of [0, 1]) {
    const at = `model.layers.${layer}.`;
    for (const norm of ["input_layernorm", "post_attention_layernorm"]) names[`${at}${norm}.weight`] = [width];
    for (const part of ["q", "k", "v", "o"]) names[`${at}self_attn.${part}_proj.weight`] = [width, width];
    for (const part of ["gate", "up"]) names[`${at}mlp.${part}_proj.weight`] = [inner, width];
    names[`${at}mlp.down_proj.weight`] = [width, inner];
  }
  let state = 7;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  const tensors = Object.entries(names).map(([name, shape]) => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => (shape.length === 1 ? 1 : random() / 3));
    return { name, shape, values };
  });
  const stored = (some) => {
    const header = {};
    let at = 0;
    for (const { name, shape, values } of some) {
      header[name] = { dtype: "F32", shape, data_offsets: [at, (at += values.byteLength)] };
    }
    const text = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(text.length));
    return Buffer.concat([length, text, ...some.map(({ values }) => Buffer.from(values.buffer))]).toString("base64");
  };
  const [a, b] = [tensors.slice(0, 9), tensors.slice(9)];
  const [first, second] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const weightMap = Object.fromEntries([...a.map(({ name }) => [name, first]), ...b.map(({ name }) => [name, second])]);
  const texts = ["<unk>", "<s>", "</s>", ...Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`)];
  return {
    whole: stored(tensors), shards: { [first]: stored(a), [second]: stored(b) },
    texts: {
      "config.json": JSON.stringify({
        model_type: "llama", hidden_size: width, intermediate_size: inner, num_hidden_layers: 2, num_attention_heads: heads,
        max_position_embeddings: 128, rms_norm_eps: 1e-5, bos_token_id: 1, eos_token_id: 2,
      }),
      "tokenizer.json": JSON.stringify({
        added_tokens: texts.slice(0, 3).map((content, id) => ({ id, content, special: true })),
        model: { type: "BPE", unk_token: "<unk>", vocab: Object.fromEntries(texts.map((text, id) => [text, id])), merges: [], byte_fallback: true },
      }),
    },
    index: JSON.stringify({ weight_map: weightMap }),
  };
}

test("shards with their configuration and tokenizer, picked together, become the file that the whole becomes", async () => {
  const found = await inPage(async ({ pickedModel, quantizeFile, Quantizer, TextModel }, { whole, shards, texts, index }) => {
    const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const file = (name, content) => new File([content], name);
    const beside = Object.entries(texts).map(([name, text]) => file(name, text));
    const parts = Object.entries(shards).map(([name, base64]) => file(name, bytes(base64))).reverse();
    const one = await pickedModel([...beside, file("model.safetensors", bytes(whole)), file("notes.md", "x")]);
    const many = await pickedModel([...parts, ...beside, file("model.safetensors.index.json", index)]);
    const listed = await pickedModel([...parts, ...beside]);
    const hashed = async (blob) => {
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
      return [...digest].join();
    };
    const made = async ({ source, files }) => (await quantizeFile(source, { type: "Q4_0", files })).blob;
    const blobs = [await made(one), await made(many), await made(listed)];
    const quantizer = await Quantizer.open(many.source, { files: many.files });
    const planned = await quantizer.write(await quantizer.plan({ bitsPerWeight: 6 }));
    await quantizer.dispose();
    const lm = await TextModel.load(blobs[1]);
    let text = "";
    for await (const piece of lm.generate("ab", { maxTokens: 8, temperature: 0 })) text += piece.text;
    const { architecture } = lm.info;
    await lm.dispose();
    const failed = (promise) => promise.then(() => "no failure", (e) => e.code);
    return {
      hashes: await Promise.all(blobs.map(hashed)), size: blobs[0].size, bits: planned.report.bitsPerWeight, architecture,
      twice: await failed(quantizeFile([parts[0], parts[0]], { type: "Q4_0", files: one.files })),
      short: await failed(quantizeFile([parts[1], parts[0].slice(0, parts[0].size - 4)], { type: "Q4_0", files: one.files })),
      none: await failed(pickedModel(beside)),
    };
  }, huggingFace());
  assert.equal(new Set(found.hashes).size, 1, found.hashes.join("\n"));
  assert.ok(found.size > 20_000 && found.bits > 4 && found.bits <= 6, `${found.size} bytes, ${found.bits} bits`);
  assert.equal(found.architecture, "llama");
  assert.deepEqual([found.twice, found.short, found.none], ["Duplicate", "Truncated", "BadArgument"]);
});

test("two precisions compared on a text and on an image", { skip: unlessShared(STORIES, DEIT, PHOTO) }, async () => {
  const found = await inPage(async ({ compare }, { stories, deit, photo }) => {
    const text = "Once upon a time there was a little girl who lived in a small house with her dog and her cat.";
    const same = await compare(stories, stories, { text });
    const coarse = await compare(stories, { source: stories, options: { quantize: "Q8_0" } }, { text, context: 16 });
    const picture = await (await fetch(photo)).blob();
    const seen = await compare(deit, { source: deit, options: { quantize: "Q4_0" } }, { images: [picture] });
    const failed = (promise) => promise.then(() => "no failure", (e) => e.code);
    return {
      same, coarse, seen,
      none: await failed(compare(stories, stories, {})),
      kind: await failed(compare(deit, deit, { text })),
    };
  }, { stories: at(STORIES), deit: at(DEIT), photo: at(PHOTO) });
  const { same, coarse, seen } = found;
  assert.ok(Math.abs(same.meanDivergence) < 1e-6 && same.sameTop === 1 && same.divergence.length > 20, JSON.stringify(same.meanDivergence));
  assert.ok(Math.abs(same.perplexity[0] - same.perplexity[1]) < 1e-6);
  assert.ok(coarse.meanDivergence > 1e-6 && coarse.meanDivergence < 0.05, `${coarse.meanDivergence}`);
  const mean = coarse.divergence.reduce((sum, d) => sum + d, 0) / coarse.divergence.length;
  assert.ok(Math.abs(mean - coarse.meanDivergence) < 1e-4 * coarse.meanDivergence);
  assert.ok(coarse.info[1].bitsPerWeight < coarse.info[0].bitsPerWeight / 2);
  assert.ok(seen.divergence.length === 1 && seen.meanDivergence > 1e-4 && seen.meanDivergence < 1, `${seen.meanDivergence}`);
  assert.equal(seen.classes[0][0].length, 5);
  assert.equal(seen.classes[0][0][0].index, seen.classes[1][0][0].index);
  assert.deepEqual([found.none, found.kind], ["BadArgument", "UnsupportedArch"]);
});
