/** Group M of the fault catalogue: memory, traps, workers. Rows about threads are in threads.test.mjs. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { faulty } from "./fault_server.mjs";
import { headerOnly } from "./gguf.mjs";
import { attempt, lastOf, STORY } from "./loads.mjs";
import { changed, FLAGS, launch, openPage, serve, withPackage } from "./harness.mjs";

const answers = { "/model.gguf": faulty(STORY) };
let server;
let browser;
let tab;
let good;

before(async () => {
  server = await serve(answers);
  browser = await launch();
  tab = await openPage(browser, `${server.url}blank.html`);
  good = (await attempt(tab.page, "/model.gguf")).text;
  assert.ok(good.length > 3);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** Runs on a page whose package differs in some scripts. */
async function elsewhere(patch, run) {
  const patched = await serve({ ...answers, ...patch });
  const other = await openPage(browser, `${patched.url}blank.html`);
  try {
    return await run(other.page);
  } finally {
    await other.close();
    await patched.close();
  }
}

test("M01 too little memory: OutOfMemory with numbers, before the weights are there", async () => {
  const stalling = faulty(STORY, () => ({ stall: 1_000_000 }));
  answers["/stalling.gguf"] = stalling;
  const { error, ms } = await attempt(tab.page, "/stalling.gguf", { memoryLimit: 16_000_000, cache: false, download: { stallMs: 20_000 } });
  assert.equal(error.code, "OutOfMemory");
  assert.ok(error.needed > error.available && error.available < 16_000_000, JSON.stringify(error));
  assert.match(error.message, /needs \d+\.\d MB \(weights \d+\.\d MB, a context of \d+ tokens \d+(\.\d)? [kM]B, .*available; /);
  assert.ok(ms < 10_000);
  const fitting = /contextLength (\d+)/.exec(error.message);
  if (fitting) {
    const options = { memoryLimit: 16_000_000, contextLength: Number(fitting[1]), cache: false };
    assert.equal((await attempt(tab.page, "/model.gguf", options)).error, undefined);
  }
  assert.equal((await attempt(tab.page, "/model.gguf")).text, good);
});

test("M01 iOS has less, and more than engines give or a device has is never tried", async () => {
  const of = (shape) => {
    const path = `/header-${Object.values(shape).join("-")}.gguf`;
    answers[path] = faulty(headerOnly(shape));
    return path;
  };
  const [large, huge] = [of({ n_embd: 2048, n_ff: 8192, n_layer: 24, n_head: 16 }), of({ n_embd: 8192, n_ff: 32768, n_layer: 64, n_head: 64 })];
  const phone = await openPage(browser, `${server.url}blank.html`, { userAgent: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)" });
  const { error } = await attempt(phone.page, large);
  assert.equal(error.code, "OutOfMemory");
  assert.ok(error.available <= 2 ** 30 && error.needed > 2 ** 30, JSON.stringify(error));
  await phone.close();
  // Of these files there is no more than the header: where the memory suffices, that is what is wrong.
  assert.equal((await attempt(tab.page, large)).error.code, "Truncated");
  const most = (await attempt(tab.page, huge)).error;
  assert.equal(most.code, "OutOfMemory");
  assert.ok(most.available <= 2 ** 34 && most.needed > most.available);
});

test("M02 memory that cannot grow, at every growth: OutOfMemory or a model that works; the next load works", async (t) => {
  const script = readFileSync(new URL("../../pkg/threads.js", import.meta.url), "utf8");
  const min = Number(/FIRST_PAGES = (\d+)/.exec(script)[1]);
  let pages = 0;
  const limited = (request, response) => changed("threads.js", /initial: FIRST_PAGES, maximum, shared/, `initial: FIRST_PAGES, maximum: ${pages}, shared`)(request, response);
  const needed = (await withPackage(tab.page, async ({ TextModel }) => {
    const lm = await TextModel.load("/model.gguf", { build: "relaxed" });
    for await (const piece of lm.generate("Once", { maxTokens: 5 })) void piece;
    const { wasmBytes } = lm.stats;
    await lm.dispose();
    return wasmBytes;
  })) / 65_536;
  const step = Number(process.env.MEMORY_STEP ?? Math.max(1, Math.ceil((needed - min) / 12)));
  const outcomes = {};
  await elsewhere({ "/pkg/threads.js": limited }, async (page) => {
    for (pages = min; pages <= needed + step; pages += step) {
      const result = await attempt(page, "/model.gguf", { build: "relaxed" });
      outcomes[pages] = result.error?.code ?? "works";
      if (result.error) assert.equal(result.error.code, "OutOfMemory", `${pages} pages: ${result.error.message}`);
      else assert.equal(result.text, good, `${pages} pages`);
    }
    pages = 65_536;
    assert.equal((await attempt(page, "/model.gguf", { build: "relaxed" })).text, good);
  });
  const codes = Object.values(outcomes);
  t.diagnostic(`${codes.length} limits from ${min} to ${Math.round(needed)} pages: ${codes.filter((code) => code === "OutOfMemory").length} OutOfMemory`);
  assert.ok(codes.includes("OutOfMemory") && codes.at(-1) === "works", JSON.stringify(outcomes));
});

for (const value of [0, -1, 1.5, NaN, 2 ** 31, 1e9, "many", null]) {
  test(`M04 contextLength ${value}: a typed error`, async () => {
    const error = await withPackage(tab.page, async ({ TextModel }, text) => {
      const value = text === "NaN" ? NaN : JSON.parse(text);
      return TextModel.load("/model.gguf", { contextLength: value }).then((lm) => lm.dispose().then(() => "loaded"), shown);
    }, Number.isNaN(value) ? "NaN" : JSON.stringify(value));
    assert.ok(["BadArgument", "OutOfMemory"].includes(error.code), JSON.stringify(error));
    if (error.code === "BadArgument") assert.equal(error.key, "contextLength");
  });
}

/** A module whose function `f` really does what its name says. */
const TRAPS = {
  unreachable: [0x00],
  "integer divide by zero": [0x41, 1, 0x41, 0, 0x6d, 0x1a],
  "memory access out of bounds": [0x41, 0x7f, 0x28, 2, 0, 0x1a],
  "a stack overflow": [0x10, 0],
};

for (const [what, code] of Object.entries(TRAPS)) {
  test(`M05 ${what} in the runtime: InstancePoisoned, also later; a new load computes the same`, async () => {
    const body = [0, ...code, 0x0b];
    const bytes = [
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1, 0x66, 0, 0,
      10, body.length + 2, 1, body.length, ...body,
    ];
    const trap = `
      if (globalThis.bitpaneTrap !== false && (globalThis.bitpaneSteps = (globalThis.bitpaneSteps ?? 0) + 1) > 2) {
        new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(${JSON.stringify(bytes)}))).exports.f();
      }`;
    const glue = changed("runtime/bitpane.js", /(\n {4}step\(\w+\) \{)/, `$1${trap}`);
    const result = await elsewhere({ "/pkg/runtime/bitpane.js": glue }, (page) => withPackage(page, async ({ TextModel }) => {
      const lm = await TextModel.load("/model.gguf", { build: "relaxed" });
      const run = async () => {
        for await (const piece of lm.generate("Once", { maxTokens: 9 })) void piece;
      };
      return { first: await run().catch(shown), later: await lm.tokenize("x").catch(shown) };
    }));
    assert.equal(result.first.code, "InstancePoisoned", JSON.stringify(result));
    assert.equal(result.later.code, "InstancePoisoned");
    assert.equal((await attempt(tab.page, "/model.gguf", { build: "relaxed" })).text, good);
  });
}

for (const [which, steps] of [["first", 0], ["second", 60]]) {
  // The page begins to watch the worker with the first of calls that follow each other.
  test(`M06 a worker that is ended in the middle of its ${which} call: every pending call rejects with WorkerCrashed`, { timeout: 60_000 }, async () => {
    const end = `if ((globalThis.bitpaneSteps = (globalThis.bitpaneSteps ?? 0) + 1) > ${steps}) {
      self.close();
      for (const end = performance.now() + 50; performance.now() < end;);
    }`;
    const ending = changed("runtime/bitpane.js", /(\n {4}step\(\w+\) \{)/, `$1 ${end}`);
    const result = await elsewhere({ "/pkg/runtime/bitpane.js": ending }, (page) => withPackage(page, async ({ TextModel }, isSecond) => {
      const lm = await TextModel.load("/model.gguf", { build: "relaxed" });
      const run = async (maxTokens) => {
        for await (const piece of lm.generate("Once", { maxTokens, ignoreEos: true })) void piece;
        return { code: "none" };
      };
      const first = isSecond ? (await run(1).catch(shown)).code : "none";
      const start = performance.now();
      const outcomes = await Promise.all([run(300).catch(shown), lm.tokenize("x").catch(shown)]);
      return { first, outcomes, ms: performance.now() - start };
    }, steps > 0));
    assert.equal(result.first, "none");
    for (const { code } of result.outcomes) assert.equal(code, "WorkerCrashed", JSON.stringify(result));
    assert.ok(result.ms < 5000, `${result.ms} ms`);
  });
}

test("M06 a worker that never answers: WorkerCrashed", async () => {
  await elsewhere({
    "/pkg/worker.js": (_, response) => response.writeHead(200, { "Content-Type": "text/javascript" }).end("void 0;"),
    "/pkg/engine.js": changed("engine.js", "const HELLO_MS = 30_000", "const HELLO_MS = 300"),
  }, async (page) => {
    const { error } = await attempt(page, "/model.gguf");
    assert.equal(error.code, "WorkerCrashed");
  });
});

test("M09 dispose: twice, and calls after it; a generation under way rejects with Disposed", async () => {
  const result = await withPackage(tab.page, async ({ TextModel }) => {
    const lm = await TextModel.load("/model.gguf", { threads: 1 });
    const run = async () => {
      for await (const piece of lm.generate("Once", { maxTokens: 2000, ignoreEos: true })) void piece;
    };
    const running = run().catch(shown);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await lm.dispose();
    await lm.dispose();
    return { running: await running, after: await lm.tokenize("x").catch(shown), bytes: lm.stats.wasmBytes };
  });
  assert.equal(result.running.code, "Disposed");
  assert.equal(result.after.code, "Disposed");
  assert.equal(result.bytes, 0);
});

test("M10 a page from the back/forward cache, and one that was frozen, goes on with its model", { timeout: 60_000 }, async (t) => {
  const flags = FLAGS.filter((flag) => flag !== "--disable-back-forward-cache");
  const keeping = await chromium.launch({
    executablePath: process.env.CHROME ?? "/usr/bin/chromium", args: flags, ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
  try {
    // A page of which nothing may be stored, as the other tests have, is never kept.
    const plain = await serve({ ...answers }, { isolated: false, cacheControl: "max-age=60" });
    const { page } = await openPage(keeping, `${plain.url}blank.html`);
    const before = await withPackage(page, async ({ TextModel }) => {
      globalThis.lm = await TextModel.load("/model.gguf");
      globalThis.run = async () => {
        let text = "";
        for await (const piece of globalThis.lm.generate("Once", { maxTokens: 5, temperature: 0 })) text += piece.text;
        return text;
      };
      addEventListener("pageshow", (event) => { globalThis.persisted = event.persisted; });
      return globalThis.run();
    });
    assert.equal(before, good);
    await page.goto(`${plain.url}blank.html?other`);
    await page.evaluate(() => { setTimeout(() => history.back()); });
    // A page that comes back as it was loads nothing.
    await page.waitForFunction(() => location.search === "" && globalThis.persisted !== undefined);
    const after = await page.evaluate(async () => ({ persisted: globalThis.persisted, text: await globalThis.run?.() }));
    assert.equal(after.persisted, true, "the page was not kept");
    assert.equal(after.text, good);

    const session = await page.context().newCDPSession(page);
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    await new Promise((resolve) => setTimeout(resolve, 500));
    await session.send("Page.setWebLifecycleState", { state: "active" });
    assert.equal(await page.evaluate(() => globalThis.run()), good);
    await plain.close();
  } finally {
    await keeping.close();
  }
  t.diagnostic("kept and frozen");
});

test("M11 buffers that cannot be sent: BadArgument; a large one is taken in portions", async () => {
  const result = await withPackage(tab.page, async ({ TextModel }) => {
    const detached = new ArrayBuffer(100);
    structuredClone(detached, { transfer: [detached] });
    const bytes = await (await fetch("/model.gguf")).arrayBuffer();
    const lm = await TextModel.load(bytes, { threads: 1 });
    await lm.dispose();
    return { detached: await TextModel.load(detached).catch(shown), kept: bytes.byteLength };
  });
  assert.equal(result.detached.code, "BadArgument");
  assert.equal(result.kept, STORY.length);
});

test("aborts within 50 ms wherever a generation is, and the engine goes on", async () => {
  const times = await withPackage(tab.page, async ({ TextModel }) => {
    const lm = await TextModel.load("/model.gguf", { threads: 1 });
    const run = async (prompt, options) => {
      let text = "";
      for await (const piece of lm.generate(prompt, { temperature: 0, ...options })) text += piece.text;
      return text;
    };
    const wanted = await run("Once", { maxTokens: 5 });
    const times = [];
    for (const after of [0, 1, 5, 20, 60]) {
      const abort = new AbortController();
      const long = run("Once upon a time there was a dog. ".repeat(20), { maxTokens: 400, ignoreEos: true, signal: abort.signal });
      const ended = long.then(() => "ended", (error) => error.name);
      await new Promise((resolve) => setTimeout(resolve, after));
      const start = performance.now();
      abort.abort();
      const name = await ended;
      times.push({ name, ms: performance.now() - start, same: (await run("Once", { maxTokens: 5 })) === wanted });
    }
    await lm.dispose();
    return times;
  });
  for (const { name, ms, same } of times) {
    assert.equal(name, "AbortError");
    assert.ok(ms <= 50, `${ms} ms`);
    assert.ok(same);
  }
});

test("a load tells bytes, speed and the time left", async () => {
  const answer = faulty(STORY, () => ({}));
  answers["/told.gguf"] = answer;
  const { events } = await attempt(tab.page, "/told.gguf", { cache: false });
  const told = lastOf(events, "download");
  assert.deepEqual([told.loaded, told.total, told.cached, told.file, told.files], [STORY.length, STORY.length, 0, 1, 1]);
  assert.ok(told.bytesPerSecond >= 0);
  assert.equal(events.at(-1).status, "ready");
});
