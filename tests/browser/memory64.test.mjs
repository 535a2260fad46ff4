/** Models that take more than 4 GiB: the build with 64-bit memories, which is there for them and for nothing else. */
import assert from "node:assert/strict";
import { freemem } from "node:os";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { test } from "node:test";
import { faulty } from "./fault_server.mjs";
import { deepModel, headerOnly, randomModel, splitModel } from "./gguf.mjs";
import { changed, withPackage } from "./harness.mjs";
import { attempt, lastOf, STORY } from "./loads.mjs";
import { at, browser, elsewhere, server, tab, warnings, withStoryPage } from "./story_page.mjs";

withStoryPage();

const GIB = 2 ** 30;
/** Of 20 MB: more than {@link narrow} gives. */
const MODEL = randomModel();
/** Where 32-bit memories end at 16 MiB, a small model is what one beyond 4 GiB is elsewhere. */
const narrow = () => ({ "/pkg/threads.js": changed("threads.js", /(?<!_)MAX_PAGES = \[.*?\]/, "MAX_PAGES = [256]") });
/** The header of a model that no memory here holds. */
const HUGE = headerOnly({ n_embd: 8192, n_ff: 32768, n_layer: 64, n_head: 64 });
/** The header of one that takes some 6 GB. */
const LARGE = headerOnly({ n_embd: 4096, n_ff: 16384, n_layer: 22, n_head: 32 });

/** Tokens and logits of a model, and what ran. */
function compute(page, path, options = {}) {
  return withPackage(page, async ({ TextModel }, { path, options }) => {
    const events = [];
    let lm;
    try {
      lm = await TextModel.load(path, { threads: 1, cache: false, contextLength: 64, ...options, onProgress: (p) => events.push(p) });
      const tokens = [];
      for await (const { token } of lm.generate([1, 70, 71], { maxTokens: 4, temperature: 0, ignoreEos: true })) tokens.push(token);
      const logits = (await lm.logits([1, 5, 9, 70])).map((row) => Array.from(row));
      const { backend, weightBytes } = lm.info;
      return { tokens, logits, backend, weightBytes, wasmBytes: lm.stats.wasmBytes, events };
    } catch (error) {
      return { error: { ...shown(error), needed: error.needed, available: error.available }, events };
    } finally {
      await lm?.dispose();
    }
  }, { path, options });
}

const computed = ({ tokens, logits, error }) => ({ tokens, logits, error });
/** Whether anything of the 64-bit build was asked for. */
const askedFor64 = (log) => log.filter((path) => /relaxed64|bitpane64/.test(path)).length > 0;

/** An answer that sends a file as it is made, without parts. */
function streamed({ length, chunks }) {
  return (_, response) => {
    response.writeHead(200, { "Content-Length": length, "Accept-Ranges": "none" });
    // Whoever has read enough goes.
    pipeline(Readable.from(chunks()), response).catch(() => undefined);
  };
}

/** Makes the page's engine one without 64-bit memories. */
function refuse64() {
  const { validate } = WebAssembly;
  WebAssembly.validate = (bytes) => !String(bytes).endsWith("5,3,1,4,1") && validate.call(WebAssembly, bytes);
}

test("the 64-bit build computes the same bits, with one thread and with several", async () => {
  for (const shape of [{ n_layer: 4 }, { n_layer: 4, type: 2 }, { n_layer: 2, type: 0 }]) {
    const path = at(faulty(randomModel(shape)));
    const wanted = await compute(tab.page, path, { build: "relaxed" });
    assert.equal(wanted.logits?.length, 4, JSON.stringify(wanted.error));
    assert.ok(wanted.logits.flat().every(Number.isFinite) && new Set(wanted.logits.flat()).size > 100);
    for (const [build, threads] of [["relaxed64", 1], ["relaxed64-threads", 1], ["relaxed64-threads", 2]]) {
      const found = await compute(tab.page, path, { build, threads });
      assert.deepEqual(computed(found), computed(wanted), build);
      const { backend } = found;
      assert.deepEqual([backend.build, backend.threads, backend.isa], [build, threads, "relaxed-simd"]);
    }
  }
});

test("a session that one build has saved the other takes up", async () => {
  const path = at(faulty(randomModel({ n_layer: 4 })));
  const write = (build, session) => withPackage(tab.page, async ({ TextModel }, { path, build, session }) => {
    const lm = await TextModel.load(path, { threads: 1, cache: false, contextLength: 64, build });
    const prompt = [1, 70, 71, 72];
    if (session) await lm.restoreSession(Uint8Array.from(session));
    const tokens = [];
    for await (const { token } of lm.generate(prompt, { maxTokens: 6, temperature: 0, ignoreEos: true })) tokens.push(token);
    const saved = Array.from(await lm.saveSession());
    await lm.dispose();
    return { tokens, saved };
  }, { path, build, session });
  const wanted = await write("relaxed");
  const wide = await write("relaxed64");
  assert.deepEqual(wide, wanted);
  assert.deepEqual((await write("relaxed64", wanted.saved)).tokens, wanted.tokens);
  assert.deepEqual((await write("relaxed", wide.saved)).tokens, wanted.tokens);
});

test("a model that 32-bit memories do not hold gets the 64-bit build by itself, and no other does", async () => {
  const path = at(faulty(MODEL));
  server.log.length = 0;
  const wanted = await compute(tab.page, path);
  assert.equal((await compute(tab.page, path, { memoryLimit: 10_000_000 })).error.code, "OutOfMemory");
  assert.deepEqual([wanted.backend.build, askedFor64(server.log)], ["relaxed", false]);
  await elsewhere(async (page) => {
    for (const [threads, build] of [[1, "relaxed64"], [2, "relaxed64-threads"]]) {
      const found = await compute(page, path, { threads });
      assert.deepEqual(computed(found), computed(wanted));
      assert.deepEqual([found.backend.build, found.backend.threads], [build, threads]);
      assert.match(found.backend.buildReason, /more than 32-bit memories/);
    }
    // What is asked for stays, and so does a limit of the caller's.
    const forced = (await compute(page, path, { build: "relaxed" })).error;
    assert.ok(forced.code === "OutOfMemory" && forced.needed > forced.available && forced.available <= 256 * 65_536, JSON.stringify(forced));
    const limited = (await compute(page, path, { memoryLimit: 18_000_000 })).error;
    assert.ok(limited.code === "OutOfMemory" && limited.available <= 256 * 65_536, JSON.stringify(limited));
    assert.doesNotMatch(limited.message, /64-bit/);
  }, { patch: narrow() });
});

test("also in several files, with a draft, and where there are no workers", async () => {
  const whole = at(faulty(MODEL));
  const wanted = await compute(tab.page, whole);
  const names = splitModel(3).map((bytes, i) => at(faulty(bytes), `model-0000${i + 1}-of-00003.gguf`));
  const small = at(faulty(randomModel({ n_layer: 8 })));
  await elsewhere(async (page) => {
    const split = await compute(page, names);
    assert.deepEqual(computed(split), computed(wanted));
    assert.equal(split.backend.build, "relaxed64");
    // A draft beside a model that fits alone: both begin anew.
    const drafted = await compute(page, small, { draft: whole });
    assert.deepEqual([drafted.error, drafted.backend?.build], [undefined, "relaxed64"]);
    const direct = await page.evaluate(`(async () => {
      const { TextModel } = await import("/pkg/direct.js");
      const lm = await TextModel.load(${JSON.stringify(whole)}, { threads: 1, cache: false, contextLength: 64 });
      const { build } = lm.info.backend;
      const logits = (await lm.logits([1, 5, 9, 70])).map((row) => Array.from(row));
      await lm.dispose();
      return { build, logits };
    })()`);
    assert.deepEqual(direct, { build: "relaxed64", logits: wanted.logits });
  }, { patch: narrow() });
});

test("a stream cannot be begun anew, which the error says; with the build asked for it is read once", async () => {
  const path = at(faulty(MODEL));
  const wanted = await compute(tab.page, path);
  const result = await elsewhere((page) => withPackage(page, async ({ TextModel }, path) => {
    const load = async (options) => TextModel.load((await fetch(path)).body, { threads: 1, contextLength: 64, ...options });
    const error = await load({}).catch(shown);
    const lm = await load({ build: "relaxed64" });
    const logits = (await lm.logits([1, 5, 9, 70])).map((row) => Array.from(row));
    await lm.dispose();
    return { error, logits };
  }, path), { patch: narrow() });
  assert.equal(result.error.code, "OutOfMemory");
  assert.match(result.error.message, /a stream cannot be begun anew: build: "relaxed64"/);
  assert.deepEqual(result.logits, wanted.logits);
});

test("an engine without 64-bit memories keeps its error, with a word on why", async () => {
  const [huge, small] = [at(faulty(HUGE)), at(faulty(STORY))];
  server.log.length = 0;
  await elsewhere(async (page) => {
    const { error } = await attempt(page, huge);
    assert.equal(error.code, "OutOfMemory");
    assert.ok(error.needed > 10 * GIB && error.available <= 4 * GIB, JSON.stringify(error));
    assert.match(error.message, /needs \d+\.\d\d GB \(weights .* are available; .*; 32-bit memories end there, and this browser's WebAssembly has no 64-bit memories/);
    const forced = (await attempt(page, small, { build: "relaxed64" })).error;
    assert.equal(forced.code, "RuntimeUnavailable");
    assert.match(forced.message, /"relaxed64".*no 64-bit memories/);
    assert.equal((await withPackage(page, ({ detectFeatures }) => detectFeatures())).memory64, false);
  }, { prepare: refuse64 });
  assert.equal(askedFor64(server.log), false);
});

test("no more is taken than the device has, as far as it tells, nor than engines give", async () => {
  const [huge, large] = [at(faulty(HUGE)), at(faulty(LARGE))];
  const having = (gib) => `Object.defineProperty(Navigator.prototype, "deviceMemory", { get: () => ${gib}, configurable: true })`;
  const of = (gib, path, options) => elsewhere(async (page) => (await attempt(page, path, options)).error, { prepare: having(gib) });
  for (const [gib, least, most] of [[2, 0, 4], [4, 0, 4], [8, 7, 8], [undefined, 7, 8], [64, 15, 16]]) {
    const { code, needed, available } = await of(gib, huge);
    assert.equal(code, "OutOfMemory", `${gib}`);
    assert.ok(needed > available && available > least * GIB && available <= most * GIB, `${gib}: ${available}`);
  }
  assert.equal((await of(4, large)).code, "OutOfMemory");
  // Of this file there is no more than the header: where the memory suffices, that is what is wrong.
  assert.equal((await of(8, large)).code, "Truncated");
  assert.equal((await of(4, large, { memoryLimit: 8 * GIB })).code, "Truncated");
  assert.equal((await of(8, large, { memoryLimit: 5 * GIB })).code, "OutOfMemory");
});

test("a 64-bit memory that cannot grow: OutOfMemory or a model that works", async (t) => {
  const path = at(faulty(STORY));
  const wanted = (await attempt(tab.page, path)).text;
  const outcomes = {};
  for (const pages of [40, 60, 80, 120, 200, 400, 2000]) {
    const patch = { "/pkg/threads.js": changed("threads.js", /WIDE_MAX_PAGES = \[.*?\]/, `WIDE_MAX_PAGES = [${pages}]`) };
    const { error, text } = await elsewhere((page) => attempt(page, path, { build: "relaxed64" }), { patch });
    outcomes[pages] = error?.code ?? "works";
    if (error) assert.equal(error.code, "OutOfMemory", `${pages} pages: ${error.message}`);
    else assert.equal(text, wanted);
  }
  t.diagnostic(JSON.stringify(outcomes));
  assert.deepEqual([outcomes[40], outcomes[2000]], ["OutOfMemory", "works"]);
});

test("packed weights are the same in both: what one has kept the other takes", async () => {
  const model = randomModel({ n_layer: 2, type: 0 });
  for (const [first, second] of [["relaxed", "relaxed64"], ["relaxed64-threads", "relaxed"]]) {
    const path = at(faulty(model));
    const options = { quantize: "Q4_0", cache: true };
    const plain = await compute(tab.page, path, { ...options, cache: false });
    const [kept, taken] = [await compute(tab.page, path, { ...options, build: first }), await compute(tab.page, path, { ...options, build: second })];
    assert.deepEqual([computed(kept), computed(taken)], [computed(plain), computed(plain)]);
    assert.deepEqual([warnings(kept), warnings(taken)], [[], []]);
    // They are fewer bytes than the file.
    const { cached } = lastOf(taken.events, "download");
    assert.ok(cached > 0 && cached < model.length / 2, `${cached}`);
  }
});

/**
 * 68 layers that change nothing, and after them those of a small model, whose weights then lie beyond 4 GiB. (Where
 * an address loses its upper half the allocator may go round for ever, so that the test has a limit of its own.)
 */
const SHAPE = { n_embd: 2048, n_ff: 8192, n_layer: 2, n_head: 16 };
const DEEP_GIB = 8;
const tooSmall = freemem() < DEEP_GIB * GIB ? `a model of 5 GB needs ${DEEP_GIB} GiB of free memory, there are ${(freemem() / GIB).toFixed(1)}` : false;

test("a model of 5 GB loads and writes what its last two layers alone do", { skip: tooSmall, timeout: 600_000 }, async (t) => {
  const deep = deepModel(68, SHAPE);
  assert.ok(deep.length > 4.5 * GIB, `${deep.length}`);
  // By default a context of more layers, and so of more bytes, is held in fewer bits.
  const options = { kvType: "F32" };
  const wanted = await compute(tab.page, at(faulty(randomModel(SHAPE))), options);
  assert.equal(wanted.backend.build, "relaxed");
  const start = performance.now();
  const found = await compute(tab.page, at(streamed(deep)), options);
  t.diagnostic(`${(deep.length / 1e9).toFixed(2)} GB in ${((performance.now() - start) / 1000).toFixed(1)} s, memory ${(found.wasmBytes / GIB).toFixed(2)} GiB`);
  assert.deepEqual(computed(found), computed(wanted));
  assert.equal(found.backend.build, "relaxed64");
  assert.ok(found.weightBytes > 4.5 * GIB && found.wasmBytes > found.weightBytes, JSON.stringify([found.weightBytes, found.wasmBytes]));
});
