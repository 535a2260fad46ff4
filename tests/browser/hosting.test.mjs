/** Where pages live: static hosts without headers, folders, frames, extensions, under the strictest policy. */
import assert from "node:assert/strict";
import { createReadStream, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { faulty, sha256 } from "./fault_server.mjs";
import { attempt, STORY } from "./loads.mjs";
import { FLAGS, launch, openPage, serve, withPackage } from "./harness.mjs";

const PKG = fileURLToPath(new URL("../../pkg", import.meta.url));
const TYPES = { ".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

/** A host like GitHub Pages: files below a folder, and no header but their type. */
async function staticHost(folder, pages) {
  const server = createServer((request, response) => {
    const path = new URL(request.url, "http://localhost").pathname;
    if (!path.startsWith(folder)) return response.writeHead(404).end();
    const name = path.slice(folder.length);
    if (Object.hasOwn(pages, name)) return pages[name](request, response);
    return void file(join(PKG, name.replace(/^pkg\//, "")), response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  server.unref();
  return { url: `http://localhost:${server.address().port}${folder}`, close: () => server.close() };
}

async function file(path, response) {
  const found = await stat(path).catch(() => null);
  if (!found?.isFile()) return response.writeHead(404).end();
  response.writeHead(200, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream", "Content-Length": found.size });
  createReadStream(path).pipe(response);
}

const html = (body) => (_, response) => response.writeHead(200, { "Content-Type": "text/html" })
  .end(`<!doctype html><link rel="icon" href="data:,">${body}`);

/** Loads the model beside the page, and tells what computes and what it writes. */
const RUN = `
  const { TextModel } = await import("./pkg/index.js");
  const lm = await TextModel.load("model.gguf", { contextLength: 64 });
  let text = "";
  for await (const piece of lm.generate("Once", { maxTokens: 5, temperature: 0 })) text += piece.text;
  const { threads, threadsReason } = lm.info.backend;
  await lm.dispose();
  return { text, threads, threadsReason, isolated: globalThis.crossOriginIsolated };`;
const run = (frame) => frame.evaluate(`(async () => {${RUN}})()`);

test("W03 under the strictest policy: loading, the cache, generation; nothing is violated", async () => {
  const server = await serve({ "/model.gguf": faulty(STORY) });
  const tab = await openPage(browser, `${server.url}blank.html`);
  for (let i = 0; i < 2; i += 1) assert.ok((await attempt(tab.page, "/model.gguf")).text?.length > 3);
  await withPackage(tab.page, ({ cache }) => cache.clear());
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await server.close();
});

test("below a folder of a static host, without isolation: one thread, and the reason", async () => {
  const host = await staticHost("/some/folder/", { "index.html": html(""), "model.gguf": faulty(STORY) });
  const tab = await openPage(browser, `${host.url}index.html`);
  const result = await run(tab.page);
  assert.ok(result.text.length > 3);
  assert.deepEqual([result.isolated, result.threads], [false, 1]);
  assert.match(result.threadsReason, /not cross-origin isolated/);
  assert.deepEqual(tab.faults, []);
  await tab.close();
  host.close();
});

test("the service worker isolates pages of a static host: several threads, after one more load of the page", async () => {
  const host = await staticHost("/some/folder/", {
    "index.html": html('<script src="isolation.js"></script>'),
    "model.gguf": faulty(STORY),
    "isolation.js": (_, response) => void file(join(PKG, "isolation.js"), response),
  });
  const tab = await openPage(browser, `${host.url}index.html`);
  await tab.page.waitForFunction(() => globalThis.crossOriginIsolated);
  const result = await run(tab.page);
  assert.ok(result.text.length > 3);
  assert.equal(result.isolated, true);
  assert.doesNotMatch(result.threadsReason, /isolated/);
  // It is there at once the next time, and lets everything else be.
  await tab.page.reload();
  assert.equal(await tab.page.evaluate(() => globalThis.crossOriginIsolated), true);
  assert.equal((await run(tab.page)).text, result.text);
  assert.deepEqual(tab.faults, []);
  await tab.close();
  host.close();
});

test("inside a frame of the same site and of another one", async () => {
  const inner = await staticHost("/inner/", { "index.html": html(""), "model.gguf": faulty(STORY) });
  const outer = await staticHost("/", {
    "index.html": html(`<iframe src="${inner.url.replace("localhost", "127.0.0.1")}index.html"></iframe><iframe src="/same.html"></iframe>`),
    "same.html": html(""),
    "model.gguf": faulty(STORY),
  });
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`${outer.url}index.html`);
  const frames = page.frames().filter((frame) => frame !== page.mainFrame());
  assert.equal(frames.length, 2);
  const [a, b] = [await run(frames[0]), await run(frames[1])];
  assert.ok(a.text.length > 3);
  assert.equal(a.text, b.text);
  await context.close();
  inner.close();
  outer.close();
});

test("in a page of a browser extension", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "bitpane-extension-"));
  const profile = mkdtempSync(join(tmpdir(), "bitpane-profile-"));
  mkdirSync(join(folder, "pkg"));
  cpSync(PKG, join(folder, "pkg"), { recursive: true });
  writeFileSync(join(folder, "model.gguf"), STORY);
  writeFileSync(join(folder, "page.html"), "<!doctype html><title>extension</title>");
  writeFileSync(join(folder, "background.js"), "");
  writeFileSync(join(folder, "manifest.json"), JSON.stringify({
    manifest_version: 3, name: "bitpane", version: "1",
    background: { service_worker: "background.js" },
    content_security_policy: { extension_pages: "script-src 'self' 'wasm-unsafe-eval'; object-src 'self'" },
    cross_origin_embedder_policy: { value: "require-corp" },
    cross_origin_opener_policy: { value: "same-origin" },
  }));
  const args = [...FLAGS.filter((flag) => flag !== "--headless"), "--headless=new", `--load-extension=${folder}`, `--disable-extensions-except=${folder}`];
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROME ?? "/usr/bin/chromium", args, headless: false, ignoreDefaultArgs: ["--disable-extensions"],
  });
  try {
    const worker = context.serviceWorkers()[0] ?? await context.waitForEvent("serviceworker", { timeout: 10_000 }).catch(() => null);
    if (!worker) return t.skip("this browser loads no extensions from a folder");
    const page = await context.newPage();
    await page.goto(`chrome-extension://${new URL(worker.url()).host}/page.html`);
    const result = await run(page);
    assert.ok(result.text.length > 3);
    assert.equal(result.isolated, true);
    t.diagnostic(`${result.threads} threads: ${result.threadsReason}`);
  } finally {
    await context.close();
    for (const made of [folder, profile]) rmSync(made, { recursive: true, force: true });
  }
});

test("W07 the built-in models are the ones of the manifest", async () => {
  const { readFile } = await import("node:fs/promises");
  const manifest = JSON.parse(await readFile(new URL("../data/default_models.json", import.meta.url), "utf8"));
  for (const { file: name, sha256: wanted, bytes } of Object.values(manifest)) {
    const model = await readFile(new URL(`../../www/models/${name}`, import.meta.url));
    assert.deepEqual([model.length, sha256(model)], [bytes, wanted]);
  }
});
