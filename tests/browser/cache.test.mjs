/** Group C of the fault catalogue: caches that are full, absent, damaged, shared. Each row of it is named. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { etagOf, faulty, sha256 } from "./fault_server.mjs";
import { attempt, cached, emptied, lastOf, STORY } from "./loads.mjs";
import { changed, withPackage } from "./harness.mjs";
import { assertGood, at, browser, elsewhere, good, server, tab, until, warnings, withStoryPage } from "./story_page.mjs";

withStoryPage();

const cachedBytes = (result) => lastOf(result.events, "download").cached;

/** Does something with the file `extension` of the only entry of the private file system. */
function tamper(page, extension, change) {
  return page.evaluate(`(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("bitpane-cache");
    for await (const [name, handle] of folder.entries()) {
      if (!name.endsWith(".${extension}")) continue;
      const change = ${change};
      const bytes = change && new Uint8Array(await (await handle.getFile()).arrayBuffer());
      const changed = change && change(bytes);
      if (!changed) { await folder.removeEntry(name); continue; }
      const writable = await handle.createWritable();
      await writable.write(changed);
      await writable.close();
    }
  })()`);
}

test("the second load comes from the cache and asks for no byte of the file", async () => {
  const answer = faulty(STORY);
  const path = at(answer);
  const first = await attempt(tab.page, path);
  assertGood(first);
  assert.equal(cachedBytes(first), 0);
  answer.seen.bytes = 0;
  answer.seen.requests.length = 0;
  const second = await attempt(tab.page, path);
  assertGood(second);
  assert.equal(cachedBytes(second), STORY.length);
  assert.equal(answer.seen.bytes, 0);
  assert.deepEqual(answer.seen.requests.map(({ method }) => method), ["HEAD"]);
  answer.seen.requests.length = 0;
  assertGood(await attempt(tab.page, path, { cache: { revalidate: false } }));
  assert.equal(answer.seen.requests.length, 0);
});

test("without a network a kept model loads", async () => {
  let isDown = false;
  const answer = faulty(STORY);
  const path = at((request, response) => (isDown ? request.socket.destroy() : answer(request, response)));
  assertGood(await attempt(tab.page, path));
  isDown = true;
  assertGood(await attempt(tab.page, path));
});

test("list, export, delete, clear, estimate, persist", async () => {
  const paths = [at(faulty(STORY)), at(faulty(STORY))];
  for (const path of paths) assertGood(await attempt(tab.page, path));
  const result = await withPackage(tab.page, async ({ cache }, [a, b]) => {
    const list = await cache.list();
    const blob = await cache.export(a);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
    const estimate = await cache.estimate();
    const persisted = await cache.persist();
    const deleted = [await cache.delete(a), await cache.delete(a)];
    const left = (await cache.list()).map(({ url }) => new URL(url).pathname);
    const missing = await cache.export(a).catch(shown);
    await cache.clear();
    return {
      list: list.map(({ url, ...entry }) => ({ path: new URL(url).pathname, ...entry })), estimate, persisted, deleted, left, missing,
      empty: await cache.list(), hash: Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join(""),
    };
  }, paths);
  assert.deepEqual(result.list.map(({ path }) => path), [paths[1], paths[0]]);
  assert.ok(result.list.every(({ bytes, totalBytes, complete }) => bytes === STORY.length && totalBytes === bytes && complete));
  assert.equal(result.hash, sha256(STORY));
  assert.equal(result.estimate.modelBytes, 2 * STORY.length);
  assert.ok(result.estimate.quota > result.estimate.usage && typeof result.persisted === "boolean");
  assert.deepEqual(result.deleted, [true, false]);
  assert.deepEqual(result.left, [paths[1]]);
  assert.equal(result.missing.code, "BadArgument");
  assert.deepEqual(result.empty, []);
});

/** The store script with a `write` that fails after so many bytes of data, or for records. */
const failingWrites = (condition) => changed("store.js", "const written = handle.write(bytes, { at });", `
  globalThis.bitpaneWritten = (globalThis.bitpaneWritten ?? 0) + (bytes.length > 4096 ? bytes.length : 0);
  if (${condition}) throw new DOMException("full", "QuotaExceededError");
  const written = handle.write(bytes, { at });`);

for (const [what, condition] of [
  ["at 10 %", `bitpaneWritten > ${STORY.length * 0.1}`],
  ["at 99 %", `bitpaneWritten > ${STORY.length * 0.99}`],
  ["on the record", "bytes.length < 4096"],
]) {
  test(`C01 the disk is full ${what}: the model runs from memory, and says so; nothing is left`, async () => {
    const path = at(faulty(STORY));
    await elsewhere(async (page) => {
      const result = await attempt(page, path);
      assertGood(result);
      assert.equal(warnings(result).length, 1);
      assert.match(warnings(result)[0], /not cached \(\d+ of \d+ bytes used\).*full/);
      assert.deepEqual(await cached(page), []);
      assert.deepEqual(await filesOf(page), []);
    }, { patch: { "/pkg/store.js": failingWrites(condition) } });
  });
}

/** Names in the private file system. */
function filesOf(page) {
  return page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("bitpane-cache");
    const names = [];
    for await (const name of folder.keys()) names.push(name);
    return names;
  });
}

test("C01 a file larger than the budget is not kept; within it the last used ones stay", async () => {
  const [a, b, c] = [at(faulty(STORY)), at(faulty(STORY)), at(faulty(STORY))];
  const small = await attempt(tab.page, a, { cache: { maxBytes: 1_000_000 } });
  assertGood(small);
  assert.match(warnings(small)[0], /larger than the cache/);
  assert.deepEqual(await cached(tab.page), []);
  const cache = { maxBytes: 2.5 * STORY.length };
  for (const path of [a, b, a, c]) assertGood(await attempt(tab.page, path, { cache }));
  assert.deepEqual((await cached(tab.page)).map(({ url }) => url), [c, a]);
});

const noFiles = 'Object.defineProperty(StorageManager.prototype, "getDirectory", { value: () => Promise.reject(new DOMException("no", "SecurityError")) });';
const noDatabase = 'Object.defineProperty(globalThis, "indexedDB", { get() { throw new DOMException("no", "SecurityError"); } });';

test("C02 no private file system: IndexedDB keeps the model, and goes on with a download", async () => {
  let isWell = false;
  const answer = faulty(STORY, (i) => (isWell ? {} : i === 0 ? { cut: 1_500_000 } : { cut: 0 }));
  const path = at(answer);
  await elsewhere(async (page) => {
    const cut = await attempt(page, path, { download: { retries: 1 } });
    assert.equal(cut.error.code, "Truncated");
    isWell = true;
    answer.seen.bytes = 0;
    const first = await attempt(page, path);
    assertGood(first);
    assert.equal(cachedBytes(first), 1 << 20);
    assert.ok(answer.seen.bytes <= STORY.length - (1 << 20));
    const second = await attempt(page, path);
    assertGood(second);
    assert.equal(cachedBytes(second), STORY.length);
    assert.deepEqual(warnings(second), []);
    assert.equal((await cached(page)).length, 1);
    await emptied(page);
  }, { patch: { "/pkg/store.js": changed("store.js", /^/, noFiles) } });
});

test("C02 nothing to keep files in: the model runs from memory, and says so", async () => {
  const path = at(faulty(STORY));
  await elsewhere(async (page) => {
    const result = await attempt(page, path);
    assertGood(result);
    assert.match(warnings(result)[0], /nothing can be kept/);
    assert.deepEqual(await cached(page), []);
  }, { patch: { "/pkg/store.js": changed("store.js", /^/, noFiles + noDatabase) } });
});

for (const [what, extension, change] of [
  ["its data is gone", "bin", "null"],
  ["its record is gone", "json", "null"],
  ["its data is cut short", "bin", "(bytes) => bytes.subarray(0, 1500000)"],
  ["one bit of its data has flipped", "bin", "(bytes) => { bytes[1800000] ^= 4; return bytes; }"],
  ["its record is no JSON", "json", "(bytes) => bytes.subarray(0, 40)"],
  ["one bit of its record has flipped", "json", "(bytes) => { bytes[60] ^= 1; return bytes; }"],
  ["both are empty", "json", "() => new Uint8Array(0)"],
]) {
  test(`C03 an entry of which ${what}: seen and mended`, async () => {
    const answer = faulty(STORY);
    const path = at(answer);
    assertGood(await attempt(tab.page, path));
    await tamper(tab.page, extension, change);
    answer.seen.bytes = 0;
    assertGood(await attempt(tab.page, path));
    assert.ok(answer.seen.bytes > 0 && answer.seen.bytes <= STORY.length, `${answer.seen.bytes} bytes`);
    const again = await attempt(tab.page, path);
    assertGood(again);
    assert.equal(cachedBytes(again), STORY.length);
  });
}

test("C03 an entry that is removed between the look and the reading", async () => {
  const path = at(faulty(STORY));
  assertGood(await attempt(tab.page, path));
  await elsewhere(async (page) => {
    assertGood(await attempt(page, path));
    assertGood(await attempt(page, path));
  }, { patch: { "/pkg/kept.js": changed("kept.js", "const slot = await store.open(key);", "await store.remove(key); const slot = await store.open(key);") } });
});

test("C04 two tabs load one address: one writes, the other waits and reads; a tab that dies gives up the lock", async () => {
  const slow = faulty(STORY, (i) => ({ delay: i === 0 ? 300 : 0 }));
  const path = at(slow);
  const context = await browser.newContext();
  const pages = await Promise.all([context.newPage(), context.newPage()]);
  for (const page of pages) await page.goto(`${server.url}blank.html`);
  for (const result of await Promise.all(pages.map((page) => attempt(page, path)))) {
    assertGood(result);
    assert.deepEqual(warnings(result), []);
  }
  assert.ok(slow.seen.bytes <= 1.1 * STORY.length);

  let isWell = false;
  const answer = faulty(STORY, () => (isWell ? {} : { stall: 1000 }));
  const stalling = at(answer);
  void attempt(pages[0], stalling, { download: { stallMs: 60_000 } }).catch(() => undefined);
  await until(() => answer.seen.answers > 0);
  let hasWaited = false;
  await pages[1].exposeFunction("waits", () => { hasWaited = true; });
  const waiting = attempt(pages[1], stalling);
  await until(() => hasWaited);
  isWell = true;
  await pages[0].close();
  assertGood(await waiting);
  await context.close();
});

test("C05 a record of another format is dropped, never misread", async () => {
  const answer = faulty(STORY);
  const path = at(answer);
  await elsewhere(async (page) => {
    assertGood(await attempt(page, path));
  }, { patch: { "/pkg/store.js": changed("store.js", "const FORMAT = 1", "const FORMAT = 99") } });
  // Another origin would have another cache: the same page writes the old format and reads with the new one.
  assertGood(await attempt(tab.page, path));
  await tamper(tab.page, "json", `(bytes) => {
    const json = new TextDecoder().decode(bytes).slice(17).replace('"format":1', '"format":99');
    let hash = 0xcbf29ce484222325n;
    for (const byte of new TextEncoder().encode(json)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
    return new TextEncoder().encode(hash.toString(16).padStart(16, "0") + "\\n" + json);
  }`);
  assert.deepEqual(await cached(tab.page), []);
  answer.seen.bytes = 0;
  assertGood(await attempt(tab.page, path));
  assert.equal(answer.seen.bytes, STORY.length);
});

test("C06 the same address with new content: the new one is used, the old one is gone", async () => {
  const newer = Buffer.from(STORY);
  newer[newer.length - 1000] ^= 0x10;
  let body = STORY;
  for (const [what, rule] of [
    ["an ETag", {}],
    ["no ETag but a date", { etag: null, headers: { "Last-Modified": "Thu, 26 Nov 2026 10:00:00 GMT" } }],
    ["no ETag but a hash", { etag: null }],
  ]) {
    body = STORY;
    const answer = faulty(STORY, () => ({ ...rule, body, ...(body === newer && rule.headers && { headers: { "Last-Modified": "Thu, 26 Nov 2026 11:00:00 GMT" } }) }));
    const path = at(answer);
    const option = () => (what.endsWith("hash") ? { sha256: sha256(body) } : {});
    assertGood(await attempt(tab.page, path, option()));
    body = newer;
    answer.seen.bytes = 0;
    const result = await attempt(tab.page, path, option());
    assert.equal(result.error, undefined, JSON.stringify(result.error));
    assert.ok(answer.seen.bytes >= newer.length, what);
    const blob = await withPackage(tab.page, async ({ cache }, path) => {
      const digest = await crypto.subtle.digest("SHA-256", await (await cache.export(path)).arrayBuffer());
      return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
    }, path);
    assert.equal(blob, sha256(newer), what);
    await emptied(tab.page);
  }
  assert.notEqual(etagOf(STORY), etagOf(newer));
});

test("C06 a kept partial file of an older version is not gone on with", async () => {
  const newer = Buffer.from(STORY);
  newer[5000] ^= 0;
  newer[newer.length - 1000] ^= 0x10;
  let isNew = false;
  const path = at(faulty(STORY, (i) => (isNew ? { body: newer } : i === 0 ? { cut: 1_500_000 } : { cut: 0 })));
  assert.equal((await attempt(tab.page, path, { download: { retries: 1 } })).error.code, "Truncated");
  isNew = true;
  const result = await attempt(tab.page, path, { sha256: sha256(newer) });
  assert.equal(result.error, undefined, JSON.stringify(result.error));
});

test("C07 the cache is cleared during a load: Busy, and the load ends well; during a generation: cleared", async () => {
  let isReady = false;
  const answer = faulty(STORY, () => (isReady ? {} : { stall: 1000 }));
  const path = at(answer);
  await withPackage(tab.page, ({ TextModel }, path) => {
    globalThis.loading = TextModel.load(path, { threads: 1, download: { stallMs: 1500, retryDelayMs: 10 } });
  }, path);
  await until(() => answer.seen.answers > 0);
  isReady = true;
  const result = await withPackage(tab.page, async ({ cache }) => {
    const busy = await cache.clear().then(() => "cleared", shown);
    const lm = await globalThis.loading;
    let text = "";
    for await (const piece of lm.generate("Once", { maxTokens: 5, temperature: 0 })) {
      text += piece.text;
      await cache.clear();
    }
    await lm.dispose();
    return { busy, text, left: await cache.list() };
  });
  assert.equal(result.busy.code, "Busy", JSON.stringify(result.busy));
  assert.equal(result.text, good);
  assert.deepEqual(result.left, []);
});

test("C07 the place of a file is taken by something else: the model runs from memory, and says so", async () => {
  const path = at(faulty(STORY));
  await elsewhere(async (page) => {
    const result = await attempt(page, path);
    assertGood(result);
    assert.match(warnings(result)[0], /not cached/);
  }, { patch: { "/pkg/store.js": changed("store.js", "return file.createSyncAccessHandle();", 'throw new DOMException("held", "NoModificationAllowedError");') } });
});
