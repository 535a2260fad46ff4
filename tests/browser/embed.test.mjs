/** Texts as vectors and documents as scores, from encoders and from language models. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch, openPage, serve, withPackage } from "./harness.mjs";

/** The models of our own goldens, which are part of the repository. */
function model(name) {
  const file = (suffix) => readFileSync(new URL(`../data/arch/${name}.${suffix}`, import.meta.url));
  return { bytes: file("gguf"), golden: JSON.parse(file("json")) };
}

const MODELS = Object.fromEntries(["nomic-bert", "bert-rank", "qwen3moe"].map((name) => [name, model(name)]));

let server;
let browser;
let tab;

before(async () => {
  const answer = ({ bytes }) => (_, response) => response.end(bytes);
  server = await serve(Object.fromEntries(Object.entries(MODELS).map(([name, m]) => [`/${name}.gguf`, answer(m)])));
  browser = await launch();
  tab = await openPage(browser, `${server.url}blank.html`);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

test("an encoder's vectors are the reference's, and it writes nothing", async () => {
  const { golden } = MODELS["nomic-bert"];
  const result = await withPackage(tab.page, async ({ TextModel, inspect }, { ids }) => {
    const code = (promise) => promise.then(() => "none", (error) => `${error.code} ${error.key}`);
    const { kind } = await inspect("nomic-bert.gguf");
    const lm = await TextModel.load("nomic-bert.gguf");
    const tokens = Uint32Array.from(ids);
    const plain = await lm.embed(tokens, { normalize: false });
    const [one, two] = await lm.embed(["abc", "de"]);
    const alone = await lm.embed("abc");
    const text = await lm.detokenize(await lm.tokenize("abc"));
    const errors = [
      await code(lm.logits([1, 2])),
      await code(lm.generate("abc").next()),
      await code(lm.perplexity("abc")),
      await code(lm.rerank("abc", ["de"])),
      await code(lm.embed("abc", { pooling: "median" })),
      await code(lm.embed("abc", { pooled: "mean" })),
      await code(lm.embed([5])),
      await code(lm.embed(tokens, { pooling: "rank" })),
    ];
    const { info } = lm;
    await lm.dispose();
    const length = Math.hypot(...one);
    return { kind, info, plain: [...plain], same: one.every((x, i) => x === alone[i]), differs: two[0] !== one[0], length, text, errors };
  }, { ids: golden.token_ids });
  assert.equal(result.kind, "encoder");
  assert.deepEqual([result.info.kind, result.info.pooling], ["encoder", "mean"]);
  golden.pooled_f32.forEach((want, i) => assert.ok(Math.abs(result.plain[i] - want) < 1e-3, `${result.plain[i]} is not ${want}`));
  assert.ok(result.same && result.differs);
  assert.ok(Math.abs(result.length - 1) < 1e-5);
  assert.equal(result.text, "abc");
  assert.deepEqual(result.errors, [
    "UnsupportedArch undefined", "UnsupportedArch undefined", "UnsupportedArch undefined", "BadArgument query",
    "BadArgument pooling", "BadArgument pooled", "BadArgument texts", "BadArgument pooling",
  ]);
});

test("documents are ranked by a cross-encoder, best first", async () => {
  const { ranked, mixed } = await withPackage(tab.page, async ({ TextModel }) => {
    const lm = await TextModel.load("bert-rank.gguf");
    const ranked = await lm.rerank("abc", ["de", "f g", "de"]);
    const mixed = await lm.rerank("abc", ["f g", "de"]);
    await lm.dispose();
    return { ranked, mixed };
  }, {});
  const score = Object.fromEntries(ranked.map(({ index, score }) => [index, score]));
  assert.equal(ranked.length, 3);
  assert.equal(score[0], score[2]);
  assert.ok(ranked[0].score >= ranked[1].score && ranked[1].score >= ranked[2].score);
  assert.deepEqual(new Set(mixed.map(({ score }) => score)), new Set(ranked.map(({ score }) => score)));
});

test("a language model gives vectors too, and goes on writing", async () => {
  const result = await withPackage(tab.page, async ({ TextModel }) => {
    const lm = await TextModel.load("qwen3moe.gguf");
    const before = await lm.logits([1, 5, 9], { last: 1 });
    const last = await lm.embed(Uint32Array.of(1, 5, 9), { normalize: false });
    const each = await lm.embed(Uint32Array.of(1, 5, 9), { pooling: "none", normalize: false });
    const after = await lm.logits([1, 5, 9], { last: 1 });
    const refused = await lm.rerank("a", ["b"]).then(() => "none", (error) => error.code);
    await lm.dispose();
    return {
      n: [last.length, each.length], same: last.every((x, i) => x === each[2 * last.length + i]),
      kept: before[0].every((x, i) => x === after[0][i]), refused,
    };
  }, {});
  assert.deepEqual(result, { n: [48, 144], same: true, kept: true, refused: "UnsupportedArch" });
});
