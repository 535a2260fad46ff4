/** Loads of the built-in language model through an address that misbehaves. */
import { readFileSync } from "node:fs";
import { withPackage } from "./harness.mjs";

/** The built-in language model. */
export const STORY = readFileSync(new URL("../../www/models/story.gguf", import.meta.url));

/** Quick retries, so that tests are. */
export const QUICK = { retryDelayMs: 20, stallMs: 400 };

/**
 * Loads `source` and tells what came of it: the text of five greedy tokens or the error, what the listener
 * heard, and how long it took.
 */
export function attempt(page, source, options = {}) {
  return withPackage(page, async ({ TextModel }, { source, options }) => {
    const events = [];
    const start = performance.now();
    let lm;
    let ms;
    try {
      const onProgress = (p) => {
        events.push(p);
        if (p.status === "wait") globalThis.waits?.();
      };
      const given = { threads: 1, ...options, onProgress };
      lm = await TextModel.load(source, given);
      ms = performance.now() - start;
      let text = "";
      for await (const piece of lm.generate("Once", { maxTokens: 5, temperature: 0 })) text += piece.text;
      return { text, events, ms };
    } catch (error) {
      return { error: { ...shown(error), needed: error.needed, available: error.available }, events, ms: performance.now() - start };
    } finally {
      await lm?.dispose();
    }
  }, { source, options: { ...options, download: { ...QUICK, ...options.download } } });
}

/** What is in the cache. */
export function cached(page) {
  return withPackage(page, async ({ cache }) => (await cache.list()).map((entry) => ({ ...entry, url: new URL(entry.url).pathname })));
}

/** Empties the cache. */
export function emptied(page) {
  return withPackage(page, ({ cache }) => cache.clear());
}

/** The last thing of a kind that a listener heard. */
export const lastOf = (events, status) => events.findLast((event) => event.status === status);
