/** The page as people use it, with its built-in models, under a strict Content-Security-Policy. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BUILD, changed, launch, openPage, serve, unlessBuiltIn, unlessShared } from "./harness.mjs";

const skip = unlessBuiltIn("story", "photo");
const STORIES = "data/lm/stories260K/stories260K.Q8_0.gguf";
const PHOTO = "data/images/parrot.jpg";
const READY = 60_000;

let server;
let browser;

before(async () => {
  server = await serve();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** Opens the page and waits until the story and the first drawing have been dealt with. */
async function ready(options, path = "") {
  const tab = await openPage(browser, server.url + path, options);
  await tab.page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  await tab.page.waitForSelector(".class", { timeout: READY });
  return tab;
}

const written = (page) => page.textContent("#story-made");

for (const [width, height] of [[1280, 900], [390, 844]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`at ${width} px, ${colorScheme}: a story and five classes without being asked`, { skip }, async () => {
      const tab = await ready({ viewport: { width, height }, colorScheme });
      const { page } = tab;
      assert.ok((await written(page)).length > 50);
      assert.equal(await page.locator(".class").count(), 5);
      assert.match(await page.textContent("#story-line"), /tokens a second/);
      assert.match(await page.textContent("#photo-line"), /ms for this image/);
      assert.match(await page.textContent("#story-readings"), /bits a weight.*relaxed-simd/s);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${overflow} px too wide`);
      const dark = await page.evaluate(() => {
        const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
        return r + g + b < 384;
      });
      assert.equal(dark, colorScheme === "dark");
      assert.deepEqual(tab.faults, []);
      await tab.close();
    });
  }
}

test("the keyboard alone writes, stops and changes the theme", { skip }, async () => {
  const tab = await ready({ viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "skip");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  const path = [await focused()];
  for (let i = 0; i < 3; i += 1) {
    await page.keyboard.press("Tab");
    path.push(await focused());
  }
  assert.ok(path.includes("story-write"), path.join(", "));
  await page.focus("#story-prompt");
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.type("One day a dog");
  await page.keyboard.press("Control+Enter");
  await page.waitForFunction(() => document.getElementById("story-given").textContent === "One day a dog");
  await page.waitForSelector("#story-text[data-state=done]");
  await page.focus("#theme");
  await page.keyboard.press("Enter");
  assert.equal(await page.getAttribute("#theme", "aria-pressed"), "true");
  assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  await page.reload();
  assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  await page.focus("#photo-file");
  assert.equal(await focused(), "photo-file");
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("Stop and Escape end a long story", { skip }, async () => {
  // Each step of the runtime takes 10 ms longer, so that there is something to stop.
  const slow = "const until = performance.now() + 10; while (performance.now() < until);";
  const steady = await serve({ [`/pkg/${BUILD}/bitpane.js`]: changed(`${BUILD}/bitpane.js`, /(\n {4}step\(\w+\) \{)/, `$1${slow}`) });
  const tab = await openPage(browser, steady.url, { viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  await page.click("summary");
  await page.fill("#max-tokens", "1500");
  for (const stop of [() => page.click("#story-stop"), () => page.keyboard.press("Escape")]) {
    await page.click("#story-write");
    await page.waitForFunction(() => document.getElementById("story-made").textContent.length > 5);
    await stop();
    await page.waitForSelector("#story-text[data-state=done]", { timeout: 2000 });
    const n = Number(/([\d,]+) written/.exec(await page.textContent("#story-line"))[1].replace(",", ""));
    assert.ok(n > 0 && n < 400, `${n} tokens written`);
    assert.equal(await page.isDisabled("#story-stop"), true);
    assert.equal(await page.isEnabled("#story-write"), true);
  }
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await steady.close();
});

test("a photo from a file, a model from a file and from an address", { skip: skip || unlessShared(STORIES, PHOTO) }, async () => {
  const tab = await ready({ viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  const before = await page.textContent("#photo-classes");
  await page.setInputFiles("#photo-file", new URL(`../../../shared/${PHOTO}`, import.meta.url).pathname);
  await page.waitForFunction((old) => document.getElementById("photo-classes").textContent !== old, before);
  assert.equal(await page.getAttribute("#photo-preview", "alt"), "parrot.jpg");

  await page.setInputFiles("#open-file", new URL(`../../../shared/${STORIES}`, import.meta.url).pathname);
  await page.waitForFunction(() => document.getElementById("story-name").textContent === "stories260K.Q8_0.gguf");
  await page.click("#story-write");
  await page.waitForSelector("#story-text[data-state=done]");
  assert.ok((await written(page)).length > 50);

  await page.fill("#open-address", `/shared/${STORIES.replace("Q8_0", "F32")}`);
  await page.selectOption("#open-precision", "Q4_0");
  await page.click(".open-url button");
  await page.waitForFunction(() => document.getElementById("story-name").textContent === "stories260K.F32.gguf");
  const bits = Number.parseFloat(await page.textContent("#story-readings dd"));
  assert.ok(bits < 12, `${bits} bits a weight`);
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("hostile names and files are shown as text", { skip }, async () => {
  const tab = await ready({ viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  const name = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>.gguf`;
  await page.setInputFiles("#open-file", { name, mimeType: "", buffer: Buffer.from("<svg onload=alert(1)>") });
  await page.waitForSelector("#notice[data-kind=bad]");
  const notice = await page.textContent("#notice");
  assert.ok(notice.includes("<img src=x"), notice);
  assert.ok(notice.includes("BadMagic"), notice);
  assert.equal(await page.locator("#notice *").count(), 0);
  await page.fill("#story-prompt", name);
  await page.click("#story-write");
  await page.waitForSelector("#story-text[data-state=done]");
  assert.equal(await page.locator("#story-text img, #story-text script").count(), 0);
  assert.notEqual(await page.title(), "owned");
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("hostile text from a model stays text and fetches nothing", { skip }, async () => {
  const payloads = [
    "<img src=/stolen onerror=\"document.title='owned'\">", "<script>document.title='owned'</script>",
    "<svg onload=\"document.title='owned'\">", "</textarea></div><b>bold</b>", "[x](javascript:alert(1))",
    "![](/stolen?q=1)", "\u001b[31mred", "\u202etxt.exe", "x".repeat(100_000),
  ];
  // The runtime's steps give out the payloads before anything else.
  const inject = `
    globalThis.payloads ??= ${JSON.stringify(payloads)};
    if (globalThis.payloads.length > 0) return { type: "piece", text: globalThis.payloads.shift(), token: 1 };`;
  const hostile = await serve({ [`/pkg/${BUILD}/bitpane.js`]: changed(`${BUILD}/bitpane.js`, /(\n {4}step\(\w+\) \{)/, (line) => line + inject) });
  const tab = await openPage(browser, hostile.url, { viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  const text = await written(page);
  for (const payload of payloads) assert.ok(text.includes(payload), payload.slice(0, 40));
  assert.equal(await page.locator("#story-made *").count(), 0);
  assert.notEqual(await page.title(), "owned");
  assert.deepEqual(hostile.log.filter((path) => path.startsWith("/stolen")), []);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${overflow} px too wide`);
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await hostile.close();
});

test("?model= of another site asks first; of no scheme that is allowed, refuses", { skip }, async () => {
  const other = await ready({}, "?model=https://models.example/x.gguf%3Cb%3E");
  await other.page.waitForSelector("#confirm[open]");
  assert.equal(await other.page.textContent("#confirm-host"), "models.example");
  await other.page.keyboard.press("Escape");
  await other.page.waitForFunction(() => document.getElementById("notice").textContent.includes("not loaded"));
  assert.deepEqual(other.faults, []);
  await other.close();
  for (const address of ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x"]) {
    const tab = await ready({}, `?model=${encodeURIComponent(address)}`);
    await tab.page.waitForSelector("#notice[data-kind=bad]");
    assert.match(await tab.page.textContent("#notice"), /only http: and https:/);
    assert.deepEqual(tab.faults, []);
    await tab.close();
  }
});

test("without built-in models the page says so and works on", { skip: unlessShared(STORIES) }, async () => {
  const bare = await serve({
    "/models/models.json": (_, response) => response.end(JSON.stringify({ story: null, photo: null })),
  });
  const tab = await openPage(browser, bare.url);
  await tab.page.waitForFunction(() => document.getElementById("notice").textContent.includes("no built-in"));
  assert.equal(await tab.page.isDisabled("#story-write"), true);
  await tab.page.setInputFiles("#open-file", new URL(`../../../shared/${STORIES}`, import.meta.url).pathname);
  await tab.page.click("#story-write");
  await tab.page.waitForSelector("#story-text[data-state=done]");
  assert.ok((await written(tab.page)).length > 50);
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await bare.close();
});

test("bench.html sets window.result", { skip: unlessShared(STORIES) }, async () => {
  const tab = await openPage(browser, `${server.url}bench.html?model=/shared/${STORIES}&threads=1&prompt=64&decode=16`);
  await tab.page.waitForFunction(() => window.result !== undefined, null, { timeout: READY });
  const result = await tab.page.evaluate(() => window.result);
  assert.ok(result.promptTps > 0 && result.decodeTps > 0 && result.loadMs > 0, JSON.stringify(result));
  assert.equal(result.imageMs, null);
  assert.ok(result.wasmBytes > 0);
  assert.equal(result.backend.threads, 1);
  assert.deepEqual(tab.faults, []);
  await tab.page.goto(`${server.url}bench.html?model=/none.gguf`);
  await tab.page.waitForFunction(() => window.result !== undefined);
  assert.equal((await tab.page.evaluate(() => window.result)).error.code, "HttpStatus");
  await tab.close();
});
