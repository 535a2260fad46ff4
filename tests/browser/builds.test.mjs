/** The builds of the runtime: which one runs, and that all of them compute the same bits. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { assertSame, compute, onPage as onPageOf } from "./computing.mjs";
import { BUILD, changed, launch, unlessShared } from "./harness.mjs";

const STORIES = "data/lm/stories260K/stories260K.F32.gguf";
const Q4_0 = "data/lm/babyllama_tok105/babyllama105.Q4_0.gguf";
const Q8_0 = "data/lm/babyllama_tok105/babyllama105.Q8_0.gguf";
const Q4_K = "golden/quant/llama-Q4_K.gguf";
const DEIT = "data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors";
/** Models as they are, and ones whose float weights are quantized by the build while they load. */
const MODELS = [
  { path: STORIES }, { path: Q8_0 }, { path: Q4_0 }, { path: Q4_K },
  { path: Q8_0, kvType: "Q8_0" }, { path: Q8_0, kvType: "Q4_0" },
  { path: STORIES, quantize: "Q8_0" }, { path: DEIT, quantize: "Q8_0" }, { path: DEIT, quantize: "Q4_0" },
];
const GLUE = "/pkg/runtime/bitpane.js";
const WASM = "/pkg/runtime/relaxed.wasm.gz";

let browser;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());

const onPage = (...args) => onPageOf(browser, ...args);

/**
 * A clock that stands still: the choice of paths then takes the likeliest for the engine, which
 * is a relaxed dot product whether or not that is the fastest on this machine. Nothing else in the
 * runtime reads the clock.
 */
const favourTheDot = () => changed("runtime/bitpane.js", "performance.now()", "0");

for (const model of MODELS) {
  const name = Object.values(model).join(" as ");
  test(`${name}: the same bits in every build and on every path`, { skip: unlessShared(model.path) }, async () => {
    const { result: plain } = await onPage(compute, { ...model, build: "simd128" });
    const { backend } = plain;
    assert.deepEqual([backend.build, backend.isa], ["simd128", "simd128"]);
    assert.match(backend.kernel, /^[px]16/);
    assert.equal(backend.buildReason, "asked for");
    assert.equal(plain.tokens.length, model.path.endsWith(".gguf") ? 24 : 0);

    const { result: relaxed } = await onPage(compute, { ...model, build: "relaxed" });
    assert.deepEqual([relaxed.backend.build, relaxed.backend.isa], ["relaxed", "relaxed-simd"]);
    assert.match(relaxed.backend.kernelReason, /measured/);
    assertSame(relaxed, plain);

    const { result: wide } = await onPage(compute, { ...model, build: "relaxed64" });
    assert.deepEqual([wide.backend.build, wide.backend.isa], ["relaxed64", "relaxed-simd"]);
    assertSame(wide, plain);

    // Whether or not the dot product is the faster path on this machine. Where it has two bytes only, 8-bit codes take p16.
    const { result: dot } = await onPage(compute, { ...model, build: "relaxed" }, { answers: { [GLUE]: favourTheDot() } });
    assert.match(dot.backend.kernel, /\bd(16|32[us])\b/);
    assertSame(dot, plain);
  });
}

test("an engine that computes the dot product wrongly gets the plain path", { skip: unlessShared(Q4_0) }, async () => {
  // i8x16.relaxed_laneselect in its place: three vectors in and one out as well, but another result.
  const wasm = gunzipSync(await readFile(new URL(`../..${WASM}`, import.meta.url)));
  const dot = Buffer.from([0xfd, 0x93, 0x02]);
  let n = 0;
  for (let at = wasm.indexOf(dot); at >= 0; at = wasm.indexOf(dot, at + 3)) {
    wasm[at + 1] = 0x89;
    n += 1;
  }
  assert.ok(n >= 10, `${n} dot products in the relaxed build`);
  const faulty = (_, response) => response.writeHead(200, { "Content-Type": "application/wasm" }).end(wasm);
  const { result: plain } = await onPage(compute, { path: Q4_0, build: "simd128" });
  const answers = { [WASM]: faulty, [GLUE]: favourTheDot() };
  const { result: found } = await onPage(compute, { path: Q4_0, build: "relaxed" }, { answers });
  assert.deepEqual([found.backend.build, found.backend.kernel], ["relaxed", "p16"]);
  assert.match(found.backend.kernelReason, /wrongly/);
  assertSame(found, plain);
});

/** Makes the page's engine refuse whatever contains the relaxed dot product. */
function refuseRelaxed() {
  const { validate } = WebAssembly;
  WebAssembly.validate = (bytes) => !String(bytes).includes("253,147,2") && validate.call(WebAssembly, bytes);
}

test("without relaxed SIMD the plain build runs, and says why", { skip: unlessShared(STORIES) }, async () => {
  const { result, asked } = await onPage(async (bitpane, path) => {
    const features = await bitpane.detectFeatures();
    const lm = await bitpane.TextModel.load(`/shared/${path}`);
    let text = "";
    for await (const piece of lm.generate("Once upon a time", { maxTokens: 12, temperature: 0 })) text += piece.text;
    const { backend } = lm.info;
    await lm.dispose();
    const forced = await bitpane.TextModel.load(`/shared/${path}`, { build: "relaxed" }).catch(shown);
    return { features, text, backend, forced };
  }, STORIES, { prepare: refuseRelaxed });
  const { features, backend, forced } = result;
  const plain = BUILD.replace("relaxed", "simd128");
  assert.deepEqual([features.relaxedSimd, features.build, backend.build], [false, plain, plain]);
  assert.match(backend.buildReason, /no relaxed SIMD/);
  assert.equal(features.buildReason, backend.buildReason);
  assert.ok(result.text.length > 10);
  assert.deepEqual(asked.filter((path) => path.includes("/relaxed")), []);
  assert.equal(forced.code, "RuntimeUnavailable");
  assert.match(forced.message, /"relaxed".*no relaxed SIMD/);
});

test("a build that does not exist is a bad argument", async () => {
  const { result } = await onPage((bitpane) => bitpane.TextModel.load("x.gguf", { build: "mmx" }).catch(shown));
  assert.deepEqual([result.code, result.key], ["BadArgument", "build"]);
});

test("the build for one thread is that for several but for one bit; other files are refused", async () => {
  const { withOwnMemory } = await import("../../pkg/own-memory.js");
  for (const name of ["simd128", "relaxed", "relaxed64"]) {
    const shared = gunzipSync(await readFile(new URL(`../../pkg/runtime/${name}.wasm.gz`, import.meta.url)));
    const own = withOwnMemory(Uint8Array.from(shared));
    const changes = [...own.keys()].filter((i) => own[i] !== shared[i]);
    assert.deepEqual(changes.map((i) => [shared[i], own[i]]), [name.endsWith("64") ? [0x07, 0x05] : [0x03, 0x01]]);
    assert.throws(() => withOwnMemory(own), RangeError);
    for (const n of [0, 8, 9, 40]) assert.throws(() => withOwnMemory(Uint8Array.from(shared.subarray(0, n))), RangeError);
  }
  // An import of a name that is longer than the file, and a number that does not end.
  const header = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  for (const rest of [[2, 5, 1, 99], [2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [2, 4, 1, 0, 0, 1], [1, 0x7f]]) {
    assert.throws(() => withOwnMemory(Uint8Array.from([...header, ...rest])), RangeError);
  }
});
