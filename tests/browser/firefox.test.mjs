/** The package and the page in Firefox, where one is installed: driven through WebDriver BiDi. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { firefox } from "playwright-core";
import { serve, unlessBuiltIn } from "./harness.mjs";

const FIREFOX = process.env.FIREFOX ?? "/usr/bin/firefox-esr";
const READY = 120_000;
const skip = existsSync(FIREFOX) ? unlessBuiltIn("story", "photo") : `${FIREFOX} absent`;

test("Firefox writes a story, sees a drawing, and holds a conversation", { skip, timeout: 2 * READY }, async () => {
  const server = await serve();
  const browser = await firefox.launch({ channel: "moz-firefox", executablePath: FIREFOX });
  // This Firefox emulates no preferences of its user.
  const asItIs = { colorScheme: null, reducedMotion: null, forcedColors: null, contrast: null };
  const page = await (await browser.newContext({ ...asItIs, viewport: { width: 1280, height: 900 } })).newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(server.url);
  await page.click("#story-write");
  await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
  assert.match(await page.textContent("#story-line"), /tokens a second/);
  await page.click(".sample");
  await page.waitForSelector(".class", { timeout: READY });
  assert.equal(await page.locator(".class").count(), 5);
  await page.click('.tabs a[href="#chat"]');
  await page.fill("#chat-input", "There was a dog.");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".message[data-role=assistant] .message-tools span", { timeout: READY });
  assert.ok((await page.textContent(".message[data-role=assistant] .message-body")).length > 10);
  assert.deepEqual(faults, []);
  const { build, isolated, agent } = await page.evaluate(async () => {
    const { detectFeatures } = await import("/pkg/index.js");
    return { build: (await detectFeatures()).build, isolated: crossOriginIsolated, agent: navigator.userAgent };
  });
  console.log(`firefox: ${agent}, ${build}, isolated: ${isolated}`);
  await browser.close();
  await server.close();
});
