/** What tests of loads through an address that misbehaves share: a server, a page, and what the model writes there. */
import assert from "node:assert/strict";
import { after, before, beforeEach } from "node:test";
import { faulty } from "./fault_server.mjs";
import { attempt, emptied, STORY } from "./loads.mjs";
import { launch, openPage, serve } from "./harness.mjs";

/** Answers by path; a page of their server; the text that a load has to give. Those are there once the tests run. */
export const answers = {};
export let server;
export let browser;
export let tab;
export let good;
let n = 0;

/** Opens them before the tests of this file, and empties the cache before each. */
export function withStoryPage() {
  before(async () => {
    server = await serve(answers);
    browser = await launch();
    tab = await openPage(browser, `${server.url}blank.html`);
    good = (await run(faulty(STORY), { cache: false })).text;
    assert.ok(good.length > 3);
  });
  beforeEach(() => emptied(tab.page));
  after(async () => {
    await browser?.close();
    await server?.close();
  });
}

/** The path of an answer, served from now on. */
export function at(answer, name = "model.gguf") {
  const path = `/faults/${(n += 1)}/${name}`;
  answers[path] = answer;
  return path;
}

/** Loads from an answer. */
export const run = (answer, options) => attempt(tab.page, at(answer), options);

/** The model has loaded, and computes what it should. */
export function assertGood(result, what = "") {
  assert.equal(result.error, undefined, `${what} ${JSON.stringify(result.error)}`);
  assert.equal(result.text, good, what);
}

/** Runs on a page of another origin, whose package differs in some scripts, or that has been prepared. */
export async function elsewhere(work, { patch = {}, prepare } = {}) {
  const patched = await serve({ ...answers, ...patch });
  const other = await openPage(browser, `${patched.url}blank.html`);
  try {
    if (prepare) await other.page.evaluate(prepare);
    return await work(other.page);
  } finally {
    await other.close();
    await patched.close();
  }
}

/** Waits for something that another process does. */
export async function until(condition) {
  for (let i = 0; i < 500 && !condition(); i += 1) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(condition(), "it does not happen");
}

/** What the listener of a load was warned of. */
export const warnings = (result) => result.events.filter(({ status }) => status === "warning").map(({ message }) => message);
