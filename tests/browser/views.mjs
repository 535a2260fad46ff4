/** Every view of the page, filled by its built-in models, in a given size and theme. */
import { openPage } from "./harness.mjs";

const READY = 60_000;
const PHOTO = ".sample";
export const VIEWS = ["try", "chat", "models", "precision", "settings", "benchmark"];
export const SIZES = [[390, 844], [1280, 900], [2560, 1440]];
export const THEMES = ["light", "dark"];

/**
 * Opens the page and calls `look(view, page)` for each view once it shows what a visitor would see there: a story
 * and a classified photo, a conversation, the models, a file's precision, the settings, a benchmark's start.
 */
export async function eachView(browser, url, { width, height, theme, ...options }, look) {
  const tab = await openPage(browser, url, { viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce", ...options });
  const { page } = tab;
  try {
    await page.click("#story-write");
    await page.click(PHOTO);
    await page.waitForSelector(".class", { timeout: READY });
    await page.waitForSelector("#story-text[data-state=done]", { timeout: READY });
    for (const view of VIEWS) {
      await page.evaluate(() => document.activeElement?.blur());
      if (view === "benchmark") await page.goto(new URL("bench.html", url).href);
      else await page.evaluate((name) => { location.hash = name; }, view);
      if (view !== "benchmark") await page.waitForSelector(`#view-${view}:not([hidden])`);
      await page.waitForTimeout(300);
      await look(view, page);
    }
  } finally {
    await tab.close();
  }
}
