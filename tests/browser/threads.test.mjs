/** Several threads: the same bits as one, ways to have fewer, and ends that leave nothing behind. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { assertSame, compute, onPage as onPageOf } from "./computing.mjs";
import { changed, launch, openPage, serve, unlessShared, withPackage } from "./harness.mjs";

const STORIES = "data/lm/stories260K/stories260K.F32.gguf";
const Q4_0 = "data/lm/babyllama_tok105/babyllama105.Q4_0.gguf";
const Q8_0 = "data/lm/babyllama_tok105/babyllama105.Q8_0.gguf";
const Q4_K = "golden/quant/llama-Q4_K.gguf";
const DEIT = "data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors";
const MODELS = [
  { path: STORIES }, { path: Q8_0 }, { path: Q4_0 }, { path: Q4_K },
  { path: Q8_0, kvType: "F16" }, { path: Q8_0, kvType: "Q8_0" }, { path: Q8_0, kvType: "Q4_0" },
  { path: DEIT, quantize: "Q8_0" }, { path: DEIT, quantize: "Q4_0" },
];
const BUILDS = ["relaxed-threads", "simd128-threads", "relaxed64-threads"];

let browser;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());

const onPage = (...args) => onPageOf(browser, ...args);

for (const model of MODELS) {
  const name = Object.values(model).join(" as ");
  test(`${name}: the same bits with 1 to 4 threads`, { skip: unlessShared(model.path) }, async () => {
    const { result: wanted } = await onPage(compute, { ...model, threads: 1 });
    assert.equal(wanted.backend.threads, 1);
    for (const build of BUILDS) {
      for (const threads of [1, 2, 3, 4]) {
        const { result: found } = await onPage(compute, { ...model, build, threads });
        assert.deepEqual([found.backend.build, found.backend.threads], [build, threads]);
        assertSame(found, wanted);
      }
    }
  });
}

/** A worker that starts a build with its threads and has them run regions: what no call of the package does. */
const STRESS = `
import { settleThreads, startRuntime } from "/pkg/threads.js";
self.onmessage = async ({ data: { name, threads, regions, panicIn } }) => {
  const choice = { name, reason: "", threads, isGuess: false, threadsReason: "asked for" };
  let n = 0;
  try {
    const runtime = await startRuntime(choice);
    ({ n } = await settleThreads(runtime));
    runtime.glue.checkPool(regions, panicIn);
    self.postMessage({ n });
  } catch (error) {
    self.postMessage({ n, error: String(error.message), panic: globalThis.bitpanePanic });
  }
};`;
const answers = { "/stress.js": (_, response) => response.writeHead(200, { "Content-Type": "text/javascript" }).end(STRESS) };

function stress(_, orders) {
  return Promise.all(orders.map((order) => new Promise((resolve, reject) => {
    const worker = new Worker("/stress.js", { type: "module" });
    worker.onmessage = ({ data }) => {
      worker.terminate();
      resolve(data);
    };
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage(order);
  })));
}

for (const name of BUILDS) {
  test(`${name}: ten thousand regions run every part once, with 1 to 4 threads`, async () => {
    for (const threads of [1, 2, 3, 4]) {
      const { result } = await onPage(stress, [{ name, threads, regions: 10_000 }], { answers });
      assert.deepEqual(result, [{ n: threads }]);
    }
  });
}

test("any number of threads from 1 to 16 works, and no other", { skip: unlessShared(STORIES) }, async () => {
  const { result } = await onPage(async ({ TextModel }, path) => {
    const said = [];
    for (let threads = 1; threads <= 16; threads += 1) {
      const lm = await TextModel.load(`/shared/${path}`, { threads });
      let text = "";
      for await (const piece of lm.generate("Once", { maxTokens: 8, temperature: 0 })) text += piece.text;
      said.push({ n: lm.info.backend.threads, text, reason: lm.info.backend.threadsReason });
      await lm.dispose();
    }
    const wrong = [];
    for (const threads of [0, 17, 1.5, -1, "2", NaN]) wrong.push(await TextModel.load("x", { threads }).catch(shown));
    return { said, wrong };
  }, STORIES);
  result.said.forEach(({ n, text, reason }, i) => {
    assert.equal(n, i + 1);
    assert.ok(text.length > 5);
    assert.equal(text, result.said[0].text);
    assert.match(reason, /asked for/);
  });
  for (const error of result.wrong) assert.deepEqual([error.code, error.key], ["BadArgument", "threads"]);
});

/** Loads with the options and says what the backend is and what five tokens are. */
async function load({ TextModel, detectFeatures }, { path, ...options }) {
  const features = await detectFeatures();
  const lm = await TextModel.load(`/shared/${path}`, options).catch(shown);
  if (lm.code) return { features, error: lm };
  let text = "";
  for await (const piece of lm.generate("Once", { maxTokens: 5, temperature: 0 })) text += piece.text;
  const { backend } = lm.info;
  await lm.dispose();
  return { features, backend, text };
}

test("M08 without isolation there is one thread, and the reason names the headers", { skip: unlessShared(STORIES) }, async () => {
  const alone = { isolated: false };
  for (const threads of ["auto", 4]) {
    const { result, asked } = await onPage(load, { path: STORIES, threads }, alone);
    const { features, backend } = result;
    assert.deepEqual([features.crossOriginIsolated, features.build, features.maxThreads], [false, "relaxed", 1]);
    assert.deepEqual([backend.build, backend.threads], ["relaxed", 1]);
    assert.match(backend.threadsReason, /Cross-Origin-Opener-Policy: same-origin/);
    assert.equal(features.threadsReason, backend.threadsReason);
    assert.ok(result.text.length > 3);
    assert.deepEqual(asked.filter((path) => path.includes("/thread.js")), []);
  }
  const { result } = await onPage(load, { path: STORIES, build: "relaxed-threads" }, alone);
  assert.equal(result.error.code, "RuntimeUnavailable");
  assert.match(result.error.message, /not cross-origin isolated/);
});

test("auto takes what is measured, at most the guess", { skip: unlessShared(STORIES) }, async () => {
  const { result: { features, backend } } = await onPage(load, { path: STORIES });
  assert.ok(backend.threads >= 1 && backend.threads <= features.maxThreads);
  if (features.maxThreads > 1) {
    assert.match(backend.threadsReason, backend.threads === features.maxThreads ? /guess/ : /not faster/);
  }
});

test("a build for one thread has one, whatever is asked", { skip: unlessShared(STORIES) }, async () => {
  const { result: { backend } } = await onPage(load, { path: STORIES, build: "simd128", threads: 3 });
  assert.deepEqual([backend.build, backend.threads], ["simd128", 1]);
  assert.match(backend.threadsReason, /"simd128" has no more/);
});

test("M03 where no shared memory is granted one thread does it", { skip: unlessShared(STORIES) }, async () => {
  const refused = "if (shared) throw new RangeError(\"no\"); const memory = ";
  const answers = { "/pkg/threads.js": changed("threads.js", "const memory = ", refused) };
  const { result: { backend, text } } = await onPage(load, { path: STORIES, threads: 2 }, { answers });
  assert.deepEqual([backend.build, backend.threads], ["relaxed", 1]);
  assert.match(backend.threadsReason, /grants no shared memory/);
  assert.ok(text.length > 3);
});

test("M03 less memory is taken where 4 GiB are refused", { skip: unlessShared(STORIES) }, async () => {
  const answers = { "/pkg/threads.js": changed("threads.js", "65_536, 32_768", "70_000, 32_768") };
  const { result: { backend } } = await onPage(load, { path: STORIES, threads: 2 }, { answers });
  assert.deepEqual([backend.build, backend.threads], ["relaxed-threads", 2]);
});

test("M07 threads that do not start are done without, and the reason says so", { skip: unlessShared(STORIES) }, async () => {
  const script = changed("thread.js", "self.postMessage(report)", 'self.postMessage({ failed: "deliberate" })');
  const { result } = await onPage(load, { path: STORIES, threads: 3 }, { answers: { "/pkg/thread.js": script } });
  assert.equal(result.backend.threads, 1);
  assert.match(result.backend.threadsReason, /2 of 3 threads do not start: .*deliberate/);
  assert.ok(result.text.length > 3);
});

test("M07 a panic in a thread rejects all calls with its text, and the next load works", { skip: unlessShared(STORIES) }, async () => {
  const answers = { "/pkg/handlers.js": changed("handlers.js", /async tokenize\(.*\) \{/, "$& glue.checkPool(10, 3);") };
  const server = await serve(answers);
  const tab = await openPage(browser, `${server.url}blank.html`); // the panic goes to the console: no check of faults
  const result = await withPackage(tab.page, async ({ TextModel }, path) => {
    const lm = await TextModel.load(`/shared/${path}`, { threads: 2 });
    const errors = await Promise.all([lm.tokenize("x"), lm.logits([1]), lm.perplexity("x")].map((call) => call.catch(shown)));
    errors.push(await lm.logits([1]).catch(shown));
    const next = await TextModel.load(`/shared/${path}`, { threads: 2 });
    const [row] = await next.logits([1]);
    await next.dispose();
    return { errors, finite: row.every(Number.isFinite) };
  }, STORIES);
  for (const error of result.errors) {
    assert.equal(error.code, "InstancePoisoned");
    assert.match(error.message, /a thread of the pool failed: .*deliberate, in region 3/s);
  }
  assert.equal(result.finite, true);
  await tab.close();
  await server.close();
});

test("M07 a trap without a panic in a thread is noticed, too", async () => {
  // The thread's script "traps" at once: as soon as it has said so, a region fails.
  const script = changed("thread.js", "glue.poolWork(index)", "throw new WebAssembly.RuntimeError(\"unreachable\")");
  const server = await serve({ ...answers, "/pkg/thread.js": script });
  const tab = await openPage(browser, `${server.url}blank.html`); // no check of faults, as above
  const [found] = await withPackage(tab.page, stress, [{ name: "relaxed-threads", threads: 2, regions: 3_000_000 }]);
  assert.match(found.panic ?? "", /a thread of the pool failed/);
  await tab.close();
  await server.close();
});

test("M09 dispose in the middle of a computation rejects it, and the next load works", { skip: unlessShared(DEIT) }, async () => {
  const { result } = await onPage(async ({ VisionModel }, path) => {
    const url = `/shared/${path}`;
    const pixels = new Float32Array(3 * 224 * 224).fill(0.1);
    const shape = [1, 3, 224, 224];
    const codes = [];
    for (const ms of [0, 5, 20]) {
      const vit = await VisionModel.load(url, { threads: 3 });
      const call = vit.logits(pixels, { shape }).catch(shown);
      await new Promise((resolve) => setTimeout(resolve, ms));
      await vit.dispose();
      codes.push((await call).code);
    }
    const vit = await VisionModel.load(url, { threads: 3 });
    const row = await vit.logits(pixels, { shape });
    await vit.dispose();
    return { codes, finite: row.every(Number.isFinite) };
  }, DEIT);
  assert.equal(result.codes[0], "Disposed");
  for (const code of result.codes) assert.ok(code === "Disposed" || code === undefined, code);
  assert.equal(result.finite, true);
});

/** Threads of workers in all processes of the browser. */
async function workerThreads() {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  let n = 0;
  for (const { id } of processInfo) {
    const folder = `/proc/${id}/task`;
    for (const task of readdirSync(folder)) {
      if (commandOf(`${folder}/${task}`).startsWith("DedicatedWorker")) n += 1;
    }
  }
  return n;
}

/** A thread's name, or nothing where it has ended since it was listed. */
function commandOf(task) {
  try {
    return readFileSync(`${task}/comm`, "utf8");
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ESRCH") return "";
    throw error;
  }
}

/** Waits until the browser has ended its workers: it does so when it finds time. */
async function settledThreads(wanted) {
  for (let tries = 0; tries < 100; tries += 1) {
    if ((await workerThreads()) <= wanted) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.fail(`${await workerThreads()} threads of workers, not ${wanted}`);
}

test("M09 twenty loads and disposals leave no worker behind", {
  skip: process.platform === "linux" ? unlessShared(STORIES) : "needs /proc",
}, async () => {
  const server = await serve();
  const tab = await openPage(browser, `${server.url}blank.html`);
  const before = await workerThreads();
  const seen = await withPackage(tab.page, async ({ TextModel }, path) => {
    globalThis.lm = await TextModel.load(`/shared/${path}`, { threads: 4 });
    return lm.info.backend.threads;
  }, STORIES);
  assert.equal(seen, 4);
  assert.ok((await workerThreads()) >= before + 4, "the count sees threads");
  await withPackage(tab.page, async ({ TextModel }, path) => {
    await lm.dispose();
    for (let i = 0; i < 20; i += 1) {
      const lm = await TextModel.load(`/shared/${path}`, { threads: 4 });
      if (i % 2) await lm.logits([1, 2, 3]);
      await lm.dispose();
    }
  }, STORIES);
  await settledThreads(before);
  assert.deepEqual(tab.faults, []);
  await tab.close();
  await server.close();
});

test("threads that auto does without are sent home", {
  skip: process.platform === "linux" ? unlessShared(STORIES) : "needs /proc",
}, async () => {
  // By this clock every product takes equally long, so that one thread is as good as any number.
  const clock = changed("runtime/bitpane.js", "performance.now()", "(globalThis.ticks = (globalThis.ticks ?? 0) + 1)");
  const cores = changed("features.js", "globalThis.navigator?.hardwareConcurrency", "8");
  const server = await serve({ "/pkg/runtime/bitpane.js": clock, "/pkg/features.js": cores });
  const tab = await openPage(browser, `${server.url}blank.html`);
  const before = await workerThreads();
  const backend = await withPackage(tab.page, async ({ TextModel }, path) => {
    globalThis.lm = await TextModel.load(`/shared/${path}`);
    return lm.info.backend;
  }, STORIES);
  assert.equal(backend.threads, 1);
  assert.match(backend.threadsReason, /^4 were tried/);
  await settledThreads(before + 1);
  await withPackage(tab.page, () => lm.dispose());
  await tab.close();
  await server.close();
});
