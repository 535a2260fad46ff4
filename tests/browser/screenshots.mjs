/** `node tests/browser/screenshots.mjs FOLDER [WIDTH]`: pictures of every view, for people to look at. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { launch, serve } from "./harness.mjs";
import { eachView, SIZES, THEMES } from "./views.mjs";

const [folder, only] = process.argv.slice(2);
if (!folder) throw new Error("usage: node tests/browser/screenshots.mjs FOLDER [WIDTH]");
await mkdir(folder, { recursive: true });
const server = await serve();
const browser = await launch();
try {
  for (const [width, height] of SIZES.filter(([width]) => !only || String(width) === only)) {
    for (const theme of THEMES) {
      await eachView(browser, server.url, { width, height, theme }, async (view, page) => {
        const path = join(folder, `${view}-${width}-${theme}.png`);
        await page.screenshot({ path, fullPage: true });
        console.log(path);
      });
    }
  }
} finally {
  await browser.close();
  await server.close();
}
