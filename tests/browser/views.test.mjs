/**
 * How every view looks, in two sizes and both themes, beside how it looked: brightness in squares of 16 pixels,
 * of which few may differ. `UPDATE_VIEWS=1 node --test tests/browser/views.test.mjs` takes new pictures; look at
 * them first (`node tests/browser/screenshots.mjs FOLDER`).
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch, openPage, serve, unlessBuiltIn } from "./harness.mjs";
import { eachView, SIZES, THEMES, VIEWS } from "./views.mjs";

const KEPT = new URL("./views.json", import.meta.url);
const isUpdate = process.env.UPDATE_VIEWS === "1";
/** Pixels of a square's edge. */
const SQUARE = 16;
/** A square differs whose mean brightness, of 255, is further off than this. */
const OFF = 8;
/** Share of squares that may differ: other digits in a figure are a few. */
const SHARE = 0.015;
/** What is written anew each time, and figures of speed: out of sight. */
const CHANGING = "#story-text, #story-line, #photo-line, .hub-note { visibility: hidden !important; }";
/** Words whose width tells the fonts: with others all lines break elsewhere. */
const WORDS = "Small models, few bits, this tab.";

const kept = existsSync(KEPT) ? JSON.parse(readFileSync(KEPT, "utf8")) : { width: 0, views: {} };
const taken = {};
let server;
let browser;
let width;

before(async () => {
  [server, browser] = await Promise.all([serve(), launch()]);
  const tab = await openPage(browser, server.url);
  width = await tab.page.evaluate((words) => {
    const context = document.createElement("canvas").getContext("2d");
    context.font = getComputedStyle(document.body).font;
    return context.measureText(words).width;
  }, WORDS);
  await tab.close();
  if (otherFonts()) console.log(`skipped: ${otherFonts()}`);
});
after(async () => {
  await browser?.close();
  await server?.close();
  if (isUpdate) writeFileSync(KEPT, `${JSON.stringify({ width, views: taken })}\n`);
});

function otherFonts() {
  return !isUpdate && Math.abs(width / kept.width - 1) > 0.005 && `other fonts than those of the pictures (${width} px for ${kept.width})`;
}

/** Mean brightness of each square of what the window shows. */
async function brightness(page) {
  const png = (await page.screenshot()).toString("base64");
  return page.evaluate(async ({ png, square }) => {
    const bytes = Uint8Array.from(atob(png), (c) => c.charCodeAt(0));
    const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const [columns, rows] = [Math.floor(picture.width / square), Math.floor(picture.height / square)];
    const canvas = new OffscreenCanvas(picture.width, picture.height);
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    const { data } = context.getImageData(0, 0, picture.width, picture.height);
    const sums = new Float64Array(columns * rows);
    for (let y = 0; y < rows * square; y += 1) {
      for (let x = 0; x < columns * square; x += 1) {
        const at = (y * picture.width + x) * 4;
        sums[Math.floor(y / square) * columns + Math.floor(x / square)] += 0.3 * data[at] + 0.6 * data[at + 1] + 0.1 * data[at + 2];
      }
    }
    return Array.from(sums, (sum) => Math.round(sum / square ** 2));
  }, { png, square: SQUARE });
}

for (const [w, h] of SIZES.filter(([w]) => w < 2000)) {
  for (const theme of THEMES) {
    test(`every view at ${w} px, ${theme}, looks as it did`, { skip: unlessBuiltIn("story", "photo"), timeout: 180_000 }, async (t) => {
      if (otherFonts()) return t.skip(otherFonts());
      const seen = [];
      await eachView(browser, server.url, { width: w, height: h, theme }, async (view, page) => {
        await page.evaluate((css) => {
          const sheet = new CSSStyleSheet();
          sheet.replaceSync(css);
          document.adoptedStyleSheets.push(sheet);
        }, CHANGING);
        await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
        const name = `${view}-${w}-${theme}`;
        const found = await brightness(page);
        taken[name] = Buffer.from(found).toString("base64");
        seen.push(view);
        if (isUpdate) return;
        const wanted = Buffer.from(kept.views[name] ?? "", "base64");
        assert.equal(found.length, wanted.length, `${name}: no picture of this size is kept`);
        const off = found.filter((value, i) => Math.abs(value - wanted[i]) > OFF).length / found.length;
        t.diagnostic(`${name}: ${(off * 100).toFixed(2)} % of the squares differ`);
        assert.ok(off <= SHARE, `${name}: ${(off * 100).toFixed(1)} % of the squares differ`);
      });
      assert.deepEqual(seen, VIEWS);
      return undefined;
    });
  }
}
