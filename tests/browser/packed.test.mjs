/** Row C08 of the fault catalogue: packed weights that are kept, and never used where they do not fit. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { faulty } from "./fault_server.mjs";
import { randomModel } from "./gguf.mjs";
import { changed, openPage, serve, withPackage } from "./harness.mjs";
import { lastOf } from "./loads.mjs";
import { at, browser, elsewhere, tab, warnings, withStoryPage } from "./story_page.mjs";

withStoryPage();

/** Floats, so that there is something to quantize. */
const MODEL = randomModel({ n_layer: 2, type: 0 });
const NEWER = randomModel({ n_layer: 2, type: 0 }, 2);

/** Loads with `quantize` and tells the tokens, what the listener heard, and the entry of the cache. */
function load(page, path, options = {}) {
  return withPackage(page, async ({ TextModel, cache }, { path, options }) => {
    const events = [];
    let lm;
    try {
      lm = await TextModel.load(path, { threads: 1, contextLength: 64, quantize: "Q4_0", ...options, onProgress: (p) => events.push(p) });
      const tokens = [];
      for await (const { token } of lm.generate([1, 70, 71], { maxTokens: 8, temperature: 0, ignoreEos: true })) tokens.push(token);
      const logits = await lm.logits([1, 5, 9]);
      const { formats, notes, weightBytes, parameters } = lm.info;
      const entry = (await cache.list()).find(({ url }) => url === new URL(path, location.href).href);
      return { tokens, logits: Array.from(logits.at(-1)), info: { formats, notes, weightBytes, parameters }, events, packedBytes: entry?.packedBytes };
    } catch (error) {
      return { error: shown(error), events };
    } finally {
      await lm?.dispose();
    }
  }, { path, options });
}

const cachedBytes = (result) => lastOf(result.events, "download").cached;
/** Whether a load has taken the packed weights: they are fewer bytes than the file. */
const tookPacked = (result) => cachedBytes(result) > 0 && cachedBytes(result) < MODEL.length / 2;

/** What a load gives, without what differs from load to load. */
const outcome = ({ tokens, logits, info, error }) => ({ tokens, logits, info, error });

/** Changes the file `extension` of the packed weights. */
function tamper(page, extension, change) {
  return page.evaluate(`(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("bitpane-cache");
    let n = 0;
    for await (const [name, handle] of folder.entries()) {
      if (!name.endsWith(".json") || !(await (await handle.getFile()).text()).includes("#packed")) continue;
      const file = await folder.getFileHandle(name.replace("json", "${extension}"));
      const bytes = (${change})(new Uint8Array(await (await file.getFile()).arrayBuffer()));
      const writable = await file.createWritable();
      await writable.write(bytes);
      await writable.close();
      n += 1;
    }
    return n;
  })()`);
}

/** A change to the text of a record, whose checksum is then right. */
const rewriting = (change) => `(bytes) => {
  const json = (${change})(new TextDecoder().decode(bytes).slice(17));
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(json)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return new TextEncoder().encode(hash.toString(16).padStart(16, "0") + "\\n" + json);
}`;

test("C08 packed weights go from and into a memory that threads share", async () => {
  const path = at(faulty(MODEL));
  const plain = await load(tab.page, path, { cache: false });
  const [first, second] = [await load(tab.page, path, { threads: 2 }), await load(tab.page, path, { threads: 2 })];
  for (const result of [first, second]) assert.deepEqual(warnings(result), []);
  assert.ok(first.packedBytes > 0 && tookPacked(second));
  assert.deepEqual([outcome(first), outcome(second)], [outcome(plain), outcome(plain)]);
});

test("C08 what a load has quantized is kept beside the file, and the next load takes it as it is", async () => {
  const answer = faulty(MODEL);
  const path = at(answer);
  const plain = await load(tab.page, path, { cache: false });
  assert.equal(plain.error, undefined, JSON.stringify(plain.error));
  const first = await load(tab.page, path);
  assert.equal(cachedBytes(first), 0);
  assert.ok(first.packedBytes > 0 && first.packedBytes < MODEL.length / 2, `${first.packedBytes} bytes`);
  answer.seen.bytes = 0;
  const second = await load(tab.page, path);
  assert.ok(tookPacked(second));
  assert.equal(answer.seen.bytes, 0);
  for (const result of [first, second]) {
    assert.deepEqual(warnings(result), []);
    assert.deepEqual(outcome(result), outcome(plain));
  }
});

test("C08 another type, and none: the file is read, and its own packed weights are kept", async () => {
  const path = at(faulty(MODEL));
  await load(tab.page, path);
  for (const options of [{ quantize: "Q8_0" }, { quantize: undefined, cache: { packed: true } }]) {
    const expected = await load(tab.page, path, { ...options, cache: false });
    const first = await load(tab.page, path, options);
    assert.equal(cachedBytes(first), MODEL.length, "from the file");
    const second = await load(tab.page, path, options);
    assert.equal(cachedBytes(second), second.packedBytes);
    assert.deepEqual(outcome(first), outcome(expected));
    assert.deepEqual(outcome(second), outcome(expected));
  }
  const without = await load(tab.page, at(faulty(MODEL)), { cache: { packed: false } });
  assert.equal(without.packedBytes, undefined);
});

for (const [what, extension, change] of [
  ["one bit of the weights has flipped", "bin", "(bytes) => { bytes[bytes.length - 3000] ^= 4; return bytes; }"],
  ["one bit of the header has flipped", "bin", "(bytes) => { bytes[200] ^= 4; return bytes; }"],
  ["the weights are cut short", "bin", "(bytes) => bytes.subarray(0, bytes.length - 70000)"],
  ["the record is damaged", "json", "(bytes) => { bytes[60] ^= 1; return bytes; }"],
  ["the record was not written", "json", "() => new Uint8Array(0)"],
  ["the layout is of another version", "json", rewriting("(json) => json.replace(/\\/\\d+\\\\\"/, '/0\\\\\"')")],
  ["the record lists too few tensors", "json", rewriting("(json) => { const meta = JSON.parse(json); meta.packed.sums.pop(); return JSON.stringify(meta); }")],
  ["the source was another", "json", rewriting("(json) => json.replace(/origin\":\"\\[\\\\\"\\d+:/, (all) => all.replace(/\\d+:/, '1:'))")],
]) {
  test(`C08 ${what}: never used, and made anew without a word`, async () => {
    const path = at(faulty(MODEL));
    const first = await load(tab.page, path);
    assert.equal(await tamper(tab.page, extension, change), 1);
    const second = await load(tab.page, path);
    assert.deepEqual(outcome(second), outcome(first));
    assert.ok(cachedBytes(second) >= MODEL.length, "from the file");
    assert.deepEqual(warnings(second), []);
    const third = await load(tab.page, path);
    assert.ok(tookPacked(third));
    assert.deepEqual(outcome(third), outcome(first));
  });
}

test("C08 the file has changed on the server: its old weights are not used", async () => {
  let body = MODEL;
  const path = at(faulty(MODEL, () => ({ body })));
  await load(tab.page, path);
  body = NEWER;
  const expected = await load(tab.page, path, { cache: false });
  const next = await load(tab.page, path);
  assert.equal(cachedBytes(next), 0);
  assert.deepEqual(outcome(next), outcome(expected));
  const again = await load(tab.page, path);
  assert.ok(tookPacked(again));
  assert.deepEqual(outcome(again), outcome(expected));
});

test("C08 the worker is ended in the middle of writing: the half is never used", async () => {
  const path = `/crash/model.gguf`;
  const answers = { [path]: faulty(MODEL) };
  const own = await serve(answers);
  const { page, close } = await openPage(browser, `${own.url}blank.html`);
  try {
    answers["/pkg/packed.js"] = changed("packed.js", /sums\.push\(loader\.imageSum\(i\)\);/, "$& if (i === 9) { self.close(); await new Promise(() => undefined); }");
    const crashed = await load(page, path);
    assert.equal(crashed.error?.code, "WorkerCrashed", JSON.stringify(crashed.error));
    delete answers["/pkg/packed.js"];
    await page.goto(`${own.url}blank.html`);
    const expected = await load(page, path, { cache: false });
    const next = await load(page, path);
    assert.equal(cachedBytes(next), MODEL.length, "from the file, which is whole");
    assert.deepEqual(outcome(next), outcome(expected));
    assert.ok(tookPacked(await load(page, path)));
  } finally {
    await close();
    await own.close();
  }
});

test("C08 no room: the weights are not kept, those of others give way first, files stay", async () => {
  const [a, b] = [at(faulty(MODEL)), at(faulty(NEWER))];
  const first = await load(tab.page, a);
  const packed = first.packedBytes;
  // Room for both files and the weights of one.
  const cache = { maxBytes: MODEL.length + NEWER.length + 1.5 * packed };
  const second = await load(tab.page, b, { cache });
  assert.equal(second.packedBytes, packed);
  const entries = await withPackage(tab.page, async ({ cache }) => (await cache.list()).map(({ complete, packedBytes }) => ({ complete, packedBytes })));
  assert.deepEqual(entries, [{ complete: true, packedBytes: packed }, { complete: true, packedBytes: undefined }]);
  const tight = await load(tab.page, a, { cache: { maxBytes: MODEL.length + NEWER.length + packed / 2 } });
  assert.equal(tight.packedBytes, undefined);
  assert.deepEqual(outcome(tight), outcome(first));
});

test("C08 the disk is full: the model runs, and says so; the file stays", async () => {
  const path = at(faulty(MODEL));
  const full = changed("store.js", "write: (bytes, at) => writeAll(data, bytes, at)", 'write: () => { throw new DOMException("full", "QuotaExceededError"); }');
  await elsewhere(async (page) => {
    const result = await load(page, path);
    assert.equal(result.error, undefined, JSON.stringify(result.error));
    assert.match(warnings(result)[0], /packed weights are not kept.*full/);
    assert.equal(result.packedBytes, undefined);
    assert.equal(cachedBytes(await load(page, path)), MODEL.length);
  }, { patch: { "/pkg/store.js": full } });
});

test("C08 what is removed with a file, and counted with it", async () => {
  const path = at(faulty(MODEL));
  const { packedBytes } = await load(tab.page, path);
  const result = await withPackage(tab.page, async ({ cache }, path) => {
    const { modelBytes } = await cache.estimate();
    const listed = (await cache.list()).length;
    await cache.delete(path);
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("bitpane-cache");
    const names = [];
    for await (const name of folder.keys()) names.push(name);
    return { modelBytes, listed, names };
  }, path);
  assert.deepEqual(result, { modelBytes: MODEL.length + packedBytes, listed: 1, names: [] });
});
