/** The package where it may also live: in workers of the page's own, in a SharedWorker, from a CDN, as elements. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { launch, openPage, serve, unlessBuiltIn } from "./harness.mjs";

const skip = unlessBuiltIn("story", "photo");
const READY = 60_000;

const script = (text) => (_, response) => response.writeHead(200, { "Content-Type": "text/javascript" }).end(text);
const WRITE = `
  async function write(entry, threads) {
    const { TextModel } = await import(entry);
    const model = await TextModel.load("/models/story.gguf", threads ? { threads } : {});
    let text = "";
    for await (const piece of model.generate("Once upon a time", { maxTokens: 16, temperature: 0 })) text += piece.text;
    await model.dispose();
    return { text, threads: model.info.backend.threads, reason: model.info.backend.threadsReason };
  }`;

let server;
let browser;

before(async () => {
  server = await serve({
    "/dedicated.js": script(`${WRITE}; onmessage = () => write("/pkg/index.js").then(postMessage, (e) => postMessage({ failed: String(e) }));`),
    "/shared.js": script(`${WRITE}
      onconnect = ({ ports: [port] }) => {
        port.onmessage = async ({ data: entry }) => {
          try {
            const first = await write(entry);
            const { TextModel } = await import(entry);
            const model = await TextModel.load("/models/story.gguf");
            const second = await TextModel.load("/models/story.gguf").then(() => "loaded", (error) => error.message);
            for await (const _ of model.generate("Once", { maxTokens: 1 }));
            const { wasmBytes } = model.stats;
            await model.dispose();
            port.postMessage({ ...first, second, wasmBytes, hasWorker: typeof Worker });
          } catch (error) {
            port.postMessage({ failed: String(error) });
          }
        };
      };`),
  });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

async function story(page) {
  return page.evaluate(`(async () => { ${WRITE}; return (await write("/pkg/index.js", 1)).text; })()`);
}

test("in a worker of the page's own and in a SharedWorker: the same story", { skip }, async () => {
  const tab = await openPage(browser, `${server.url}blank.html`);
  const expected = await story(tab.page);
  assert.ok(expected.length > 10);
  const dedicated = await tab.page.evaluate(() => new Promise((resolve) => {
    const worker = new Worker("/dedicated.js", { type: "module" });
    worker.onmessage = ({ data }) => resolve(data);
    worker.postMessage("go");
  }));
  assert.equal(dedicated.text, expected, JSON.stringify(dedicated));
  const shared = await tab.page.evaluate(() => new Promise((resolve) => {
    const { port } = new SharedWorker("/shared.js", { type: "module" });
    port.onmessage = ({ data }) => resolve(data);
    port.postMessage("/pkg/direct.js");
  }));
  assert.equal(shared.text, expected, JSON.stringify(shared));
  assert.match(shared.second, /one model at a time/);
  assert.ok(shared.wasmBytes > 4e6, `${shared.wasmBytes} bytes: not those of the memory that the second model is in`);
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("from another host, as a CDN would serve it", { skip }, async () => {
  const open = (type) => ({ "Content-Type": type, "Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin" });
  const cdn = await serve(new Proxy({}, {
    has: () => true,
    getOwnPropertyDescriptor: () => ({ configurable: true, enumerable: true, value: undefined }),
    get: (_, path) => async (_request, response) => {
      const type = String(path).endsWith(".js") ? "text/javascript" : String(path).endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
      const bytes = await readFile(new URL(`../..${String(path)}`, import.meta.url)).catch(() => undefined);
      if (bytes) response.writeHead(200, open(type)).end(bytes);
      else response.writeHead(404).end();
    },
  }));
  // A page that loads scripts of a CDN has to say so in its policy, or has none.
  const own = await serve({ "/free.html": (_, response) => {
    response.removeHeader("Content-Security-Policy");
    response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>x</title><link rel=icon href=data:,>");
  } });
  const tab = await openPage(browser, `${own.url}free.html`);
  const text = await tab.page.evaluate(async (entry) => {
    const { TextModel } = await import(entry);
    const model = await TextModel.load(`${location.origin}/models/story.gguf`, { threads: 2 });
    let text = "";
    for await (const piece of model.generate("Once upon a time", { maxTokens: 16, temperature: 0 })) text += piece.text;
    return [text, model.info.backend.threads];
  }, `${cdn.url}pkg/index.js`);
  assert.equal(text[0], await story(tab.page));
  assert.equal(text[1], 2);
  await tab.close();
  await own.close();
  await cdn.close();
});

test("W03 the elements write and see under the strictest policy", { skip }, async () => {
  const tab = await openPage(browser, `${server.url}blank.html`);
  const { page } = tab;
  await page.evaluate(async () => {
    await import("/pkg/elements.js");
    document.body.innerHTML = '<bitpane-chat src="/models/story.gguf" max-tokens="12"></bitpane-chat><bitpane-classify src="/models/photo.gguf" top-k="3"></bitpane-classify>';
  });
  await page.fill("bitpane-chat input", "<b>There</b> was a dog.");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("bitpane-chat").messages.length === 2, null, { timeout: READY });
  const rows = await page.$$eval("bitpane-chat .row", (all) => all.map((row) => row.textContent));
  assert.equal(rows[0], "<b>There</b> was a dog.");
  assert.ok(rows[1].length > 0);
  const picture = await page.screenshot();
  await page.setInputFiles("bitpane-classify input", { name: "a.png", mimeType: "image/png", buffer: picture });
  await page.waitForSelector("bitpane-classify li", { timeout: READY });
  assert.equal(await page.locator("bitpane-classify li").count(), 3);
  assert.equal(await page.locator("bitpane-classify img").isVisible(), true);
  await page.evaluate(() => document.querySelector("bitpane-chat").setAttribute("src", "/none.gguf"));
  await page.fill("bitpane-chat input", "x");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => /HttpStatus/.test(document.querySelector("bitpane-chat").root.querySelector(".state").textContent), null, { timeout: READY });
  assert.deepEqual(tab.faults.filter((fault) => !fault.includes("404")), []);
  await tab.close();
});
