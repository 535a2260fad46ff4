/** The second engine: loading, the cache, resuming, generation and threads in Firefox. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import puppeteer from "puppeteer-core";
import { faulty, sha256 } from "./fault_server.mjs";
import { attempt, cached, emptied, lastOf, STORY } from "./loads.mjs";
import { serve, withPackage } from "./harness.mjs";

const FIREFOX = process.env.FIREFOX ?? ["/usr/bin/firefox-esr", "/usr/bin/firefox"].find((path) => existsSync(path));
const skip = FIREFOX === undefined ? "no Firefox here" : false;
if (skip) console.log(`skipped: ${skip}`);

const answers = {};
let server;
let browser;
let page;
let n = 0;

before(async () => {
  if (skip) return;
  server = await serve(answers);
  browser = await puppeteer.launch({ browser: "firefox", executablePath: FIREFOX, headless: true, args: ["--no-remote"] });
  page = await browser.newPage();
  await page.goto(`${server.url}blank.html`);
}, { timeout: 120_000 });
after(async () => {
  await browser?.close();
  await server?.close();
});

function at(answer) {
  const path = `/faults/${(n += 1)}/model.gguf`;
  answers[path] = answer;
  return path;
}

let good;

test("Firefox: a model loads and writes, with one thread and with several", { skip, timeout: 120_000 }, async (t) => {
  const result = await attempt(page, at(faulty(STORY)), { cache: false });
  assert.ok(result.text?.length > 3, JSON.stringify(result.error));
  good = result.text;
  const several = await attempt(page, at(faulty(STORY)), { cache: false, threads: 2 });
  assert.equal(several.text, good);
  const features = await withPackage(page, ({ detectFeatures }) => detectFeatures());
  assert.equal(features.crossOriginIsolated, true);
  t.diagnostic(`${features.build}: ${features.buildReason}`);
});

test("Firefox: the build with 64-bit memories writes the same, with one thread and with several", { skip, timeout: 120_000 }, async () => {
  for (const [build, threads] of [["relaxed64", 1], ["relaxed64-threads", 2]]) {
    const result = await attempt(page, at(faulty(STORY)), { cache: false, build, threads });
    assert.equal(result.text, good, JSON.stringify(result.error));
  }
});

test("Firefox: the cache keeps the file", { skip, timeout: 120_000 }, async () => {
  const answer = faulty(STORY);
  const path = at(answer);
  assert.equal((await attempt(page, path)).text, good);
  answer.seen.bytes = 0;
  const second = await attempt(page, path);
  assert.equal(second.text, good);
  assert.equal(lastOf(second.events, "download").cached, STORY.length);
  assert.equal(answer.seen.bytes, 0);
  assert.equal((await cached(page)).length, 1);
  await emptied(page);
  assert.deepEqual(await cached(page), []);
});

test("Firefox: packed weights are kept and taken, in a memory that threads share, too", { skip, timeout: 120_000 }, async () => {
  for (const threads of [1, 2]) {
    const path = at(faulty(STORY));
    const options = { threads, cache: { packed: true } };
    const [first, second] = [await attempt(page, path, options), await attempt(page, path, options)];
    for (const { text, error, events } of [first, second]) {
      assert.equal(text, good, JSON.stringify(error));
      assert.deepEqual(events.filter(({ status }) => status === "warning"), []);
    }
    const [entry] = (await cached(page)).filter(({ url }) => url === path);
    assert.ok(entry.packedBytes > 0);
    assert.equal(lastOf(second.events, "download").cached, entry.packedBytes);
    await emptied(page);
  }
});

test("Firefox: cuts are gone on with; wrong bytes are refused; an abort is quick", { skip, timeout: 120_000 }, async () => {
  const cut = faulty(STORY, (i) => (i < 3 ? { cut: 400_000 } : {}));
  assert.equal((await attempt(page, at(cut))).text, good);
  assert.ok(cut.seen.requests.slice(1).every(({ range }) => /^bytes=[1-9]/.test(range)), "it goes on, and does not begin anew");
  const { error } = await attempt(page, at(faulty(STORY, () => ({ flip: 1_000_000 }))), { sha256: sha256(STORY) });
  assert.equal(error.code, "IntegrityError");
  const aborted = await withPackage(page, async ({ TextModel }, path) => {
    const abort = new AbortController();
    const loading = TextModel.load(path, { signal: abort.signal }).then(() => "loaded", (error) => error.name);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const start = performance.now();
    abort.abort();
    return { name: await loading, ms: performance.now() - start };
  }, at(faulty(STORY, () => ({ stall: 100_000 }))));
  assert.equal(aborted.name, "AbortError");
  assert.ok(aborted.ms < 100, `${aborted.ms} ms`);
});

test("Firefox: a download that was cut goes on in the next load", { skip, timeout: 120_000 }, async () => {
  let isWell = false;
  const answer = faulty(STORY, (i) => (isWell ? {} : i === 0 ? { cut: 1_900_000 } : { cut: 0 }));
  const path = at(answer);
  const first = await attempt(page, path, { download: { retries: 1 } });
  assert.ok(["Truncated", "NetworkError"].includes(first.error?.code), JSON.stringify(first.error));
  isWell = true;
  const second = await attempt(page, path);
  assert.equal(second.text, good);
  assert.ok(lastOf(second.events, "download").cached >= 1 << 20);
});

test("M06 Firefox: a worker that is ended in the middle of a call is noticed", { skip, timeout: 120_000 }, async () => {
  const { changed } = await import("./harness.mjs");
  const ending = changed("runtime/bitpane.js", /(\n {4}step\(\w+\) \{)/, "$1 self.close(); for (const end = performance.now() + 50; performance.now() < end;);");
  const other = await serve({ "/model.gguf": faulty(STORY), "/pkg/runtime/bitpane.js": ending });
  const tab = await browser.newPage();
  await tab.goto(`${other.url}blank.html`);
  const outcome = await withPackage(tab, async ({ TextModel }) => {
    const lm = await TextModel.load("/model.gguf", { build: "relaxed" });
    const run = async () => {
      for await (const piece of lm.generate("Once", { maxTokens: 50 })) void piece;
    };
    return run().catch(shown);
  });
  assert.equal(outcome.code, "WorkerCrashed", JSON.stringify(outcome));
  await tab.close();
  await other.close();
});
