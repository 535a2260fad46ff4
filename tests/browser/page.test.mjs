/** The page as people use it, with its built-in models, under a strict Content-Security-Policy. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { changed, launch, openPage, serve, unlessBuiltIn, unlessShared } from "./harness.mjs";

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

/** Opens the page, has the built-in models write and see, and waits for both. */
async function ready(options, path = "") {
  const tab = await openPage(browser, server.url + path, options);
  await tab.page.click("#story-write");
  await tab.page.click(".sample");
  await tab.page.waitForSelector(".class", { timeout: READY });
  await tab.page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  return tab;
}

const written = (page) => page.textContent("#story-made");
const inShared = (path) => new URL(`../../../shared/${path}`, import.meta.url).pathname;
const tooWide = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

async function goTo(page, view) {
  await page.click(`a[href$="#${view}"]`);
  await page.waitForSelector(`#view-${view}:not([hidden])`);
}

for (const [width, height] of [[1280, 900], [390, 844]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`at ${width} px, ${colorScheme}: a story and five classes with two clicks`, { skip }, async () => {
      const tab = await ready({ viewport: { width, height }, colorScheme });
      const { page } = tab;
      assert.ok((await written(page)).length > 50);
      assert.equal(await page.locator(".class").count(), 5);
      assert.match(await page.textContent("#story-line"), /tokens a second/);
      assert.match(await page.textContent("#photo-line"), /ms for this image/);
      const dark = await page.evaluate(() => {
        const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
        return r + g + b < 384;
      });
      assert.equal(dark, colorScheme === "dark");
      for (const view of ["try", "chat", "models", "precision", "settings"]) {
        await goTo(page, view);
        const overflow = await tooWide(page);
        assert.ok(overflow <= 0, `${view}: ${overflow} px too wide`);
      }
      assert.match(await page.textContent("#story-readings"), /bits a weight.*relaxed-simd/s);
      assert.deepEqual(tab.faults, []);
      await tab.close();
    });
  }
}

test("what a visitor gets before choosing a model is less than 100 KB, all of it from here", async () => {
  const alone = await serve();
  const tab = await openPage(browser, alone.url);
  await tab.page.waitForLoadState("networkidle");
  const asked = [...alone.log];
  const sizes = await tab.page.evaluate((paths) => {
    return Promise.all(paths.map(async (path) => (await (await fetch(path)).arrayBuffer()).byteLength));
  }, asked);
  const sum = sizes.reduce((a, b) => a + b, 0);
  assert.ok(sizes.length > 10 && sum > 20_000, `${sizes.length} answers, ${sum} bytes`);
  assert.ok(sum < 100_000, `${sum} bytes`);
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await alone.close();
});

test("the keyboard alone writes, changes the view and the theme", { skip }, async () => {
  const tab = await openPage(browser, server.url, { viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "view-try");
  const path = [];
  for (let i = 0; i < 4; i += 1) {
    await page.keyboard.press("Tab");
    path.push(await focused());
  }
  assert.ok(path.includes("story-write"), path.join(", "));
  await page.focus("#story-prompt");
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.type("One day a dog");
  await page.keyboard.press("Control+Enter");
  await page.waitForFunction(() => document.getElementById("story-given").textContent === "One day a dog");
  await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  await page.focus("#theme");
  await page.keyboard.press("Enter");
  assert.equal(await page.getAttribute("#theme", "aria-pressed"), "true");
  assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  await page.focus('.tabs a[href="#chat"]');
  await page.keyboard.press("Enter");
  await page.waitForSelector("#view-chat:not([hidden])");
  assert.equal(await focused(), "view-chat");
  await page.reload();
  assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  assert.equal(await page.isVisible("#view-chat"), true);
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("Stop and Escape end a long story", { skip }, async () => {
  // Each step of the runtime takes 10 ms longer, so that there is something to stop.
  const steady = await serve({ "/pkg/runtime/bitpane.js": slowed() });
  const tab = await openPage(browser, steady.url, { viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  await keepSettings(page, { maxTokens: 1500 });
  for (const stop of [() => page.click("#story-stop"), () => page.keyboard.press("Escape")]) {
    await page.click("#story-write");
    // More than a word: the first token comes with the prompt's scores and is not counted before the next.
    await page.waitForFunction(() => document.getElementById("story-made").textContent.length > 40, null, { timeout: READY });
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

/** The glue of the runtime, with steps that take 10 ms longer. */
function slowed() {
  const slow = "const until = performance.now() + 10; while (performance.now() < until);";
  return changed("runtime/bitpane.js", /(\n {4}step\(\w+\) \{)/, `$1${slow}`);
}

/** Leaves settings in the browser, as an earlier visit would have. */
async function keepSettings(page, settings) {
  await page.evaluate((given) => localStorage.setItem("bitpane:settings", JSON.stringify(given)), settings);
  await page.reload();
}

test("a photo from a file, a model from a file and from an address", { skip: skip || unlessShared(STORIES, PHOTO) }, async () => {
  const tab = await ready({ viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  const before = await page.textContent("#photo-classes");
  await page.setInputFiles("#photo-file", inShared(PHOTO));
  await page.waitForFunction((old) => document.getElementById("photo-classes").textContent !== old, before);
  assert.equal(await page.getAttribute("#photo-preview", "alt"), "parrot.jpg");

  await goTo(page, "models");
  await page.setInputFiles("#open-file", inShared(STORIES));
  await page.waitForFunction(() => document.getElementById("story-name").textContent === "stories260K.Q8_0.gguf");
  await goTo(page, "try");
  assert.equal(await page.textContent("#story-chip"), "stories260K.Q8_0.gguf");
  await page.click("#story-write");
  await page.waitForSelector("#story-text[data-state=done]");
  assert.ok((await written(page)).length > 50);

  await goTo(page, "models");
  await page.fill("#open-address", `/shared/${STORIES.replace("Q8_0", "F32")}`);
  await page.selectOption("#open-precision", "Q4_0");
  await page.click(".open-url button");
  await page.waitForFunction(() => document.getElementById("story-name").textContent === "stories260K.F32.gguf");
  const bits = Number.parseFloat(await page.textContent("#story-readings dd"));
  assert.ok(bits < 12, `${bits} bits a weight`);
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("the camera's frames are looked at one at a time, and the light goes out", { skip }, async () => {
  const tab = await openPage(browser, server.url, { permissions: ["camera"] });
  const { page } = tab;
  await page.click("#photo-camera");
  await page.waitForSelector(".class", { timeout: READY });
  await page.waitForFunction(() => Number.parseFloat(document.getElementById("photo-fps").textContent) > 0);
  assert.match(await page.textContent("#photo-fps"), /^[\d.]+ fps of \d+$/);
  const track = await page.evaluateHandle(() => document.getElementById("photo-video").srcObject.getVideoTracks()[0]);
  await goTo(page, "chat");
  assert.equal(await track.evaluate(({ readyState }) => readyState), "ended");
  assert.equal(await page.isVisible("#photo-video"), false);
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("without a camera the page says so", { skip }, async () => {
  const tab = await openPage(browser, server.url);
  await tab.page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"));
  });
  await tab.page.click("#photo-camera");
  await tab.page.waitForSelector("#photo-line[data-kind=bad]", { timeout: READY });
  assert.match(await tab.page.textContent("#photo-line"), /said no/);
  assert.equal(await tab.page.isEnabled("#photo-camera"), true);
  await tab.close();
});

test("two precisions of one file side by side", { skip: unlessShared(STORIES) }, async () => {
  const tab = await openPage(browser, `${server.url}#precision`);
  const { page } = tab;
  await page.setInputFiles("#precision-file", inShared(STORIES.replace("Q8_0", "F32")));
  await page.click("#precision-run");
  await page.waitForFunction(() => document.querySelectorAll(".compare .story-text").length === 3, null, { timeout: READY });
  const bits = await page.$$eval(".compare dl", (lists) => lists.map((list) => Number.parseFloat(list.querySelector("dd").textContent)));
  assert.ok(bits[0] >= 32 && bits[0] > bits[1] && bits[1] > bits[2], bits.join(", "));
  const [first, second] = await page.$$eval(".compare .story-text", (texts) => texts.map((text) => text.textContent));
  assert.equal(first.slice(0, 20), second.slice(0, 20));
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("a file within a budget of bytes, made in the page and compared", { skip: unlessShared(STORIES) }, async () => {
  const tab = await openPage(browser, `${server.url}#precision`);
  const { page } = tab;
  await page.setInputFiles("#precision-file", inShared(STORIES.replace("Q8_0", "F32")));
  await page.click("#budget-measure");
  await page.waitForSelector("#budget-plan:not([hidden]) .curve", { timeout: READY });
  const said = () => page.textContent("#budget-said");
  const middle = await said();
  await page.fill("#budget-slider", "20");
  await page.waitForFunction((old) => document.getElementById("budget-said").textContent !== old, middle);
  const [few, many] = [await said(), middle].map((text) => Number.parseFloat(text));
  assert.ok(few < many, `${few} KB and ${many} KB`);
  assert.match(await page.textContent(".shares"), /%/);
  await page.click("#budget-compare");
  await page.waitForFunction(() => document.querySelectorAll(".compare .story-text").length === 2, null, { timeout: READY });
  const bits = await page.$$eval(".compare dl", (lists) => lists.map((list) => Number.parseFloat(list.querySelector("dd").textContent)));
  assert.ok(bits[1] < bits[0] / 2, bits.join(", "));
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("where the classifier looked, over the picture", { skip }, async () => {
  const tab = await openPage(browser, server.url, { viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  await page.click(".sample");
  await page.waitForSelector(".class", { timeout: READY });
  await page.click("#photo-attention");
  await page.waitForSelector("#photo-overlay:not([hidden])");
  const alphas = await page.waitForFunction(() => {
    const canvas = document.getElementById("photo-overlay");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const seen = new Set(data.filter((_, i) => i % 4 === 3));
    return seen.size > 8 ? seen.size : false;
  });
  assert.ok((await alphas.jsonValue()) > 8, "a veil of several thicknesses");
  await page.click("#photo-attention");
  assert.equal(await page.isVisible("#photo-overlay"), false);
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("W02 hostile names and files are shown as text", { skip }, async () => {
  const tab = await openPage(browser, `${server.url}#models`, { viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  const name = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>.gguf`;
  await page.setInputFiles("#open-file", { name, mimeType: "", buffer: Buffer.from("<svg onload=alert(1)>") });
  await page.waitForSelector("#notice[data-kind=bad]");
  const notice = await page.textContent("#notice");
  assert.ok(notice.includes("<img src=x"), notice);
  assert.ok(notice.includes("BadMagic"), notice);
  assert.equal(await page.locator("#notice *").count(), 0);
  await page.click("#notice-close");
  assert.equal(await page.isVisible("#notice-row"), false);
  await goTo(page, "try");
  await page.fill("#story-prompt", name);
  await page.click("#story-write");
  await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  assert.equal(await page.locator("#story-text img, #story-text script").count(), 0);
  assert.notEqual(await page.title(), "owned");
  assert.deepEqual(tab.faults, []);
  await tab.close();
});

test("W01 hostile text from a model stays text and fetches nothing", { skip }, async () => {
  const payloads = [
    "<img src=/stolen onerror=\"document.title='owned'\">", "<script>document.title='owned'</script>",
    "<svg onload=\"document.title='owned'\">", "</textarea></div><b>bold</b>", "[x](javascript:alert(1))",
    "![](/stolen?q=1)", "\u001b[31mred", "\u202etxt.exe", "x".repeat(100_000),
  ];
  // The runtime's steps give out the payloads before anything else.
  const inject = `
    globalThis.payloads ??= ${JSON.stringify(payloads)};
    if (globalThis.payloads.length > 0) return { type: "piece", text: globalThis.payloads.shift(), token: 1 };`;
  const hostile = await serve({ "/pkg/runtime/bitpane.js": changed("runtime/bitpane.js", /(\n {4}step\(\w+\) \{)/, (line) => line + inject) });
  const tab = await openPage(browser, hostile.url, { viewport: { width: 1280, height: 900 } });
  const { page } = tab;
  await page.click("#story-write");
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

test("W04 an address of another site is asked about first; one of no scheme that is allowed is refused", async () => {
  const other = await openPage(browser, `${server.url}?model=https://models.example/x.gguf%3Cb%3E`);
  await other.page.waitForSelector("#confirm[open]");
  assert.equal(await other.page.textContent("#confirm-host"), "models.example");
  await other.page.keyboard.press("Escape");
  await other.page.waitForFunction(() => document.getElementById("notice").textContent.includes("not loaded"));
  // Typed by the person, or a model of the list: asked all the same.
  await goTo(other.page, "models");
  await other.page.fill("#open-address", "https://models.example/y.gguf");
  await other.page.click(".open-url button");
  await other.page.waitForSelector("#confirm[open]");
  await other.page.keyboard.press("Escape");
  await other.page.click("#presets .preset button");
  await other.page.waitForSelector("#confirm[open]");
  assert.equal(await other.page.textContent("#confirm-host"), "huggingface.co");
  assert.match(await other.page.textContent("#confirm-more"), /145 MB, licence: Apache-2.0/);
  await other.page.keyboard.press("Escape");
  assert.deepEqual(other.faults, []);
  await other.close();
  for (const address of ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x"]) {
    const tab = await openPage(browser, `${server.url}?model=${encodeURIComponent(address)}`);
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
  await tab.page.click("#story-write");
  await tab.page.waitForFunction(() => document.getElementById("story-line").textContent.includes("no built-in"));
  await goTo(tab.page, "models");
  await tab.page.setInputFiles("#open-file", inShared(STORIES));
  await tab.page.waitForFunction(() => document.getElementById("notice").textContent.includes("is ready"));
  await goTo(tab.page, "try");
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

test("a benchmark's result as a link, and links that lie", { skip }, async () => {
  const tab = await openPage(browser, `${server.url}bench.html`, { permissions: ["clipboard-read", "clipboard-write"] });
  const { page } = tab;
  await page.fill("#bench-decode", "8");
  await page.click("#bench-run");
  await page.waitForFunction(() => window.result !== undefined, null, { timeout: READY });
  const shown = await page.textContent("#bench-headline");
  await page.click("#bench-copy-link");
  await page.waitForFunction(() => document.getElementById("notice").textContent.includes("copied"));
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const other = await openPage(browser, link);
  assert.equal(await other.page.textContent("#bench-headline"), shown);
  assert.match(await other.page.textContent("#bench-origin"), /not measured here/);
  await other.close();
  const told = JSON.parse(Buffer.from(link.split("#result=")[1], "base64url"));
  for (const lie of [{ ...told, model: "<img src=x>" }, { ...told, decodeTps: "fast" }, { ...told, cores: -1 }, [], 7]) {
    const liar = await openPage(browser, `${server.url}bench.html#result=${Buffer.from(JSON.stringify(lie)).toString("base64url")}`);
    const believed = await liar.page.isVisible("#bench-result");
    assert.equal(believed, lie.model === "<img src=x>", JSON.stringify(lie));
    assert.equal(await liar.page.locator("#bench-result img").count(), 0);
    assert.deepEqual(liar.faults, []);
    await liar.close();
  }
  assert.deepEqual(tab.faults, []);
  await tab.close();
});
