/** The third engine, Safari's: loading, threads, the cache, a photo, the page itself, in WebKitGTK. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { faulty, sha256 } from "./fault_server.mjs";
import { attempt, cached, emptied, lastOf, STORY } from "./loads.mjs";
import { serve, unlessBuiltIn, withPackage } from "./harness.mjs";
import { launchWebKit, noWebKit } from "./webkit.mjs";

if (noWebKit) console.log(`skipped: ${noWebKit}`);
const options = { skip: noWebKit || unlessBuiltIn("story", "photo"), timeout: 180_000 };

const answers = {};
let server;
let alone;
let page;
let n = 0;
let good;

before(async () => {
  if (options.skip) return;
  [server, alone] = await Promise.all([serve(answers), serve({}, { isolated: false })]);
  page = await launchWebKit();
  await page.goto(`${server.url}blank.html`);
}, { timeout: 120_000 });
after(async () => {
  await page?.close();
  await Promise.all([server?.close(), alone?.close()]);
});

function at(answer) {
  const path = `/faults/${(n += 1)}/model.gguf`;
  answers[path] = answer;
  return path;
}

test("WebKit: a model loads and writes, with one thread and with several", options, async (t) => {
  const result = await attempt(page, at(faulty(STORY)), { cache: false });
  assert.ok(result.text?.length > 3, JSON.stringify(result.error));
  good = result.text;
  const features = await withPackage(page, ({ detectFeatures }) => detectFeatures());
  t.diagnostic(`${page.version}, ${features.build}: ${features.buildReason}`);
  assert.equal(features.simd128, true);
  if (features.crossOriginIsolated) {
    assert.equal((await attempt(page, at(faulty(STORY)), { cache: false, threads: 2 })).text, good);
  }
});

test("WebKit: the cache keeps the file, where this build of the engine can", options, async (t) => {
  const answer = faulty(STORY);
  const path = at(answer);
  assert.equal((await attempt(page, path)).text, good);
  const kept = await cached(page);
  t.diagnostic(`${kept.length} files kept`);
  answer.seen.bytes = 0;
  const second = await attempt(page, path);
  assert.equal(second.text, good);
  if (kept.length === 0) return; // no storage here: loading works all the same
  assert.equal(lastOf(second.events, "download").cached, STORY.length);
  assert.equal(answer.seen.bytes, 0);
  await emptied(page);
  assert.deepEqual(await cached(page), []);
});

test("WebKit: cuts are gone on with, wrong bytes are refused", options, async () => {
  const cut = faulty(STORY, (i) => (i < 3 ? { cut: 400_000 } : {}));
  assert.equal((await attempt(page, at(cut), { cache: false })).text, good);
  const { error } = await attempt(page, at(faulty(STORY, () => ({ flip: 1_000_000 }))), { sha256: sha256(STORY), cache: false });
  assert.equal(error.code, "IntegrityError");
});

test("WebKit: a picture is classified", options, async () => {
  const top = await withPackage(page, async ({ VisionModel }) => {
    const vit = await VisionModel.load("/models/photo.gguf", { cache: false });
    const { width, height } = { width: 48, height: 32 };
    const picture = new ImageData(width, height);
    picture.data.forEach((_, i, data) => (data[i] = (i * 37) % 256));
    try {
      return (await vit.classify(picture, { topK: 3 })).map(({ label, score }) => ({ label, score }));
    } finally {
      await vit.dispose();
    }
  });
  assert.equal(top.length, 3);
  assert.ok(top.every(({ label, score }) => label.length > 1 && score > 0 && score <= 1), JSON.stringify(top));
});

test("WebKit: without isolation one thread does it, and the page opens", options, async () => {
  await page.goto(`${alone.url}blank.html`);
  const result = await attempt(page, "/models/story.gguf", { cache: false, threads: "auto" });
  assert.equal(result.text, good);
  await page.goto(alone.url);
  const title = await page.evaluate(`new Promise((resolve, reject) => {
    const look = (left) => {
      if (document.querySelector("h1")?.textContent) resolve(document.title);
      else if (left === 0) reject(new Error("no heading"));
      else setTimeout(look, 100, left - 1);
    };
    look(100);
  })`);
  assert.match(title, /bitpane/i);
});
