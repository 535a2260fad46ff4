/** The page as an installed app: once a model has been used, it needs no network. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openPage, serve, unlessBuiltIn } from "./harness.mjs";

const READY = 60_000;
let browser;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());

/** Whether the service worker is in charge and has every file that a visit without a network needs. */
function isKept(page) {
  return page.evaluate(async () => {
    const [name] = await caches.keys();
    if (!name || navigator.serviceWorker.controller === null) return false;
    const kept = (await (await caches.open(name)).keys()).map(({ url }) => url);
    const builds = kept.filter((url) => /pkg\/runtime\/\w+\.wasm/.test(url));
    return builds.length === 1 && kept.some((url) => url.endsWith("photo.gguf"));
  });
}

test("after one story the page writes, sees and measures without its server", { skip: unlessBuiltIn("story", "photo") }, async () => {
  const server = await serve();
  const tab = await openPage(browser, server.url);
  const { page } = tab;
  assert.equal(await page.evaluate(async () => (await navigator.serviceWorker.getRegistrations()).length), 0);
  await page.click("#story-write");
  await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  // The files are there once the worker has all of the build that runs here.
  for (const start = Date.now(); !(await isKept(page)); await page.waitForTimeout(200)) {
    assert.ok(Date.now() - start < READY, "the page is not kept");
  }
  await server.close();
  await page.goto(server.url);
  await page.click("#story-write");
  await page.click(".sample");
  await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  assert.match(await page.textContent("#story-line"), /tokens a second/);
  await page.waitForSelector(".class", { timeout: READY });
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  for (const view of ["chat", "models", "precision", "settings"]) {
    await page.click(`a[href$="#${view}"]`);
    await page.waitForSelector(`#view-${view}:not([hidden])`);
  }
  await page.waitForSelector(".setting");
  await page.goto(`${server.url}bench.html?decode=4`);
  await page.click("#bench-run");
  await page.waitForFunction(() => window.result?.decodeTps > 0, null, { timeout: READY });
  await tab.close();
});

test("the manifest names what an installation needs", async () => {
  const server = await serve();
  const tab = await openPage(browser, server.url);
  const manifest = await tab.page.evaluate(async () => (await fetch(document.querySelector("link[rel=manifest]").href)).json());
  assert.ok(manifest.name && manifest.start_url && manifest.display === "standalone");
  const sizes = await tab.page.evaluate(async (icons) => {
    const sizes = [];
    for (const { src, sizes: said } of icons) {
      const image = new Image();
      image.src = src;
      await image.decode();
      sizes.push([said, `${image.naturalWidth}x${image.naturalHeight}`]);
    }
    return sizes;
  }, manifest.icons.filter(({ type }) => type === "image/png"));
  assert.deepEqual(sizes.map(([, real]) => real), sizes.map(([said]) => said));
  assert.ok(sizes.some(([said]) => said === "512x512") && sizes.some(([said]) => said === "192x192"));
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await server.close();
});
