/** Every view in both themes, judged by axe-core. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { launch, openPage, serve, unlessBuiltIn } from "./harness.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
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

async function violations(page) {
  await page.evaluate(() => document.getAnimations().forEach((animation) => animation.finish?.()));
  await page.evaluate(`${AXE}; undefined`);
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  assert.ok(passes.length > 10, "axe has looked at the page");
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
}

/** What a view has to show before it is judged. */
const FILLED = {
  try: async (page) => {
    await page.click("#story-write");
    await page.click(".sample");
    await page.waitForSelector(".class", { timeout: READY });
    await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
    await page.waitForFunction(() => document.getElementById("photo-line").textContent.includes("image"));
  },
  chat: async (page) => {
    await page.fill("#chat-input", "There was a dog.");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#chat-send", { timeout: READY });
  },
  models: (page) => page.waitForSelector(".preset"),
  precision: (page) => page.waitForSelector("#precision-run"),
  settings: (page) => page.waitForSelector(".setting"),
};

for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 390]) {
    test(`no violation in any view, ${colorScheme}, ${width} px`, { skip: unlessBuiltIn("story", "photo") }, async () => {
      const tab = await openPage(browser, server.url, { colorScheme, viewport: { width, height: 900 }, reducedMotion: "reduce" });
      const { page } = tab;
      const found = {};
      for (const [view, fill] of Object.entries(FILLED)) {
        await page.click(`a[href$="#${view}"]`);
        await page.waitForSelector(`#view-${view}:not([hidden])`);
        const before = view === "try" || view === "chat" ? await violations(page) : [];
        await fill(page);
        found[view] = [...before, ...(await violations(page))];
      }
      await page.goto(`${server.url}bench.html`);
      await page.fill("#bench-decode", "4");
      await page.click("#bench-run");
      await page.waitForFunction(() => window.result !== undefined, null, { timeout: READY });
      found.bench = await violations(page);
      await page.goto(`${server.url}?model=https://models.example/x.gguf`);
      await page.waitForSelector("#confirm[open]");
      found.confirm = await violations(page);
      assert.deepEqual(found, Object.fromEntries(Object.keys(found).map((view) => [view, []])));
      assert.deepEqual(tab.faults, []);
      await tab.close();
    });
  }
}
