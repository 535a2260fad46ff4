/** Aborts, queues, disposal and deaths: what happens to a generation that is not left alone. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openPage, serve, unlessShared, withPackage } from "./harness.mjs";

const STORIES = "data/lm/stories260K/stories260K.F32.gguf";
const URL_OF_STORIES = `/shared/${STORIES}`;
const skip = unlessShared(STORIES);

let server;
let browser;
let tab;

before(async () => {
  server = await serve();
  browser = await launch();
  tab = await openPage(browser, `${server.url}blank.html`);
  await tab.page.evaluate(() => {
    /** All tokens of a greedy run. */
    globalThis.greedy = async (lm, options = {}) => {
      const tokens = [];
      for await (const { token } of lm.generate("Once upon a time", { maxTokens: 200, temperature: 0, ignoreEos: true, ...options })) {
        tokens.push(token);
      }
      return tokens;
    };
  });
});
after(async () => {
  await browser?.close();
  await server?.close();
});

function inPage(run, args = { url: URL_OF_STORIES }) {
  return withPackage(tab.page, run, args);
}

test("guessing ahead, by look-up or with a draft model, leaves the text as it is", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url, { draft: url });
    const code = (promise) => promise.then(() => "none", (error) => `${error.code} ${error.key}`);
    const plain = await greedy(lm);
    const { guessedTokens: none } = lm.stats;
    const drafted = await greedy(lm, { speculative: { maxDraft: 4, minP: 0 } });
    const { guessedTokens, acceptedTokens } = lm.stats;
    const errors = [
      await code(greedy(lm, { speculative: { maxDraft: 99 } })),
      await code(greedy(lm, { speculative: { depth: 1 } })),
      await code(greedy(lm, { speculative: 3 })),
      await code(TextModel.load(url, { lora: [{ scale: 1 }] })),
      await code(TextModel.load(url, { lora: [{ source: url }] })),
    ];
    await lm.dispose();
    const alone = await TextModel.load(url);
    const lookedUp = await greedy(alone, { speculative: true });
    const looked = alone.stats.guessedTokens;
    await alone.dispose();
    return { plain, none, drafted, guessedTokens, acceptedTokens, lookedUp, looked, errors };
  });
  assert.deepEqual(result.drafted, result.plain);
  assert.deepEqual(result.lookedUp, result.plain);
  assert.equal(result.none, 0);
  // The draft model is the model itself, and never unsure: all guesses stand.
  assert.ok(result.guessedTokens > 100 && result.acceptedTokens === result.guessedTokens, JSON.stringify(result));
  assert.ok(result.looked > 0);
  assert.deepEqual(result.errors, [
    "BadArgument maxDraft", "BadArgument depth", "BadArgument speculative", "BadArgument lora", "BadConfig general.type",
  ]);
});

test("an abort throws AbortError, and the next run is as if it had not been", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const wanted = await greedy(lm);
    const runs = [];
    for (const after of [0, 1, 7, 60]) {
      const controller = new AbortController();
      let seen = 0;
      let error;
      let lateMs = 0;
      try {
        if (after === 0) controller.abort();
        for await (const piece of lm.generate("Once upon a time", {
          maxTokens: 400, temperature: 0, ignoreEos: true, signal: controller.signal,
        })) {
          seen += 1;
          if (seen === after) {
            controller.abort();
            lateMs = performance.now();
          }
          void piece;
        }
      } catch (thrown) {
        error = shown(thrown);
        if (lateMs > 0) lateMs = performance.now() - lateMs;
      }
      const { finishReason, decodeTokens } = lm.stats;
      runs.push({ after, seen, error, lateMs, finishReason, decodeTokens, same: String(await greedy(lm)) === String(wanted) });
    }
    await lm.dispose();
    return { runs, n: wanted.length };
  });
  assert.equal(result.n, 200);
  for (const { after, seen, error, lateMs, finishReason, decodeTokens, same } of result.runs) {
    assert.equal(error?.name, "AbortError", `after ${after}`);
    assert.equal(seen, after);
    if (after > 0) assert.equal(finishReason, "abort");
    if (after > 0) assert.ok(decodeTokens >= after && decodeTokens < 400, `${decodeTokens} tokens`);
    assert.ok(lateMs < 50, `the abort took ${lateMs} ms`);
    assert.ok(same, `the run after an abort after ${after} tokens differs`);
  }
});

test("leaving the loop stops the computation; its figures are there at once", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const wanted = await greedy(lm);
    let seen = 0;
    for await (const piece of lm.generate("Once upon a time", { maxTokens: 400, temperature: 0, ignoreEos: true })) {
      void piece;
      if (++seen === 3) break;
    }
    const left = lm.stats;
    let thrown;
    try {
      for await (const piece of lm.generate("Once upon a time", { maxTokens: 400, ignoreEos: true })) throw new Error(`consumer at ${typeof piece.text}`);
    } catch (error) {
      thrown = error.message;
    }
    const same = String(await greedy(lm)) === String(wanted);
    await lm.dispose();
    return { left, thrown, same };
  });
  assert.equal(result.left.finishReason, "abort");
  assert.ok(result.left.decodeTokens >= 3 && result.left.decodeTokens < 400, `${result.left.decodeTokens} tokens`);
  assert.equal(result.thrown, "consumer at string");
  assert.ok(result.same);
});

test("generations at the same time wait for each other and equal serial ones", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const text = async (prompt) => {
      let all = "";
      for await (const piece of lm.generate(prompt, { maxTokens: 60, temperature: 0.8, seed: 11, ignoreEos: true })) all += piece.text;
      return all;
    };
    const prompts = ["Once upon a time", "Lily had a red ball", "The dog"];
    const serial = [];
    for (const prompt of prompts) serial.push(await text(prompt));
    const order = [];
    const together = await Promise.all(prompts.map(async (prompt, i) => {
      const all = await text(prompt);
      order.push(i);
      return all;
    }));
    await lm.dispose();
    return { serial, together, order };
  });
  assert.deepEqual(result.together, result.serial);
  assert.equal(new Set(result.serial).size, 3);
  assert.deepEqual(result.order, [0, 1, 2]);
});

test("figures say how much of a prompt was still in the context", { skip }, async () => {
  const stats = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const all = [];
    for (const prompt of ["Once upon a time", "Once upon a time", "The dog"]) {
      for await (const piece of lm.generate(prompt, { maxTokens: 2 })) void piece;
      all.push(lm.stats);
    }
    await lm.dispose();
    return all;
  });
  const [first, again, other] = stats;
  assert.equal(first.cachedTokens, 0);
  // The last token is always computed: its scores choose the next one.
  assert.equal(again.cachedTokens, again.promptTokens - 1);
  assert.equal(other.cachedTokens, 1);
});

test("a queued generation can be aborted before it starts", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const controller = new AbortController();
    const first = greedy(lm);
    const second = greedy(lm, { signal: controller.signal }).catch(shown);
    controller.abort();
    const values = await Promise.all([first, second]);
    await lm.dispose();
    return { n: values[0].length, second: values[1] };
  });
  assert.equal(result.n, 200);
  assert.equal(result.second.name, "AbortError");
});

test("disposal ends what runs and what comes after", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const running = greedy(lm, { maxTokens: 480 }).catch(shown);
    const queued = lm.tokenize("x").catch(shown);
    await lm.dispose();
    await lm.dispose();
    const later = await lm.tokenize("x").catch(shown);
    const generated = await greedy(lm).catch(shown);
    return { running: await running, queued: await queued, later, generated, bytes: lm.stats.wasmBytes };
  });
  for (const key of ["running", "queued", "later", "generated"]) assert.equal(result[key].code, "Disposed", key);
  assert.equal(result.bytes, 0);
});

test("bad arguments are named", { skip }, async () => {
  const cases = await inPage(async ({ TextModel, VisionModel }, { url }) => {
    const lm = await TextModel.load(url);
    const generate = (prompt, options) => async () => {
      for await (const piece of lm.generate(prompt, options)) void piece;
    };
    const attempts = {
      temperature: generate("a", { temperature: -1 }),
      "temperature not a number": generate("a", { temperature: NaN }),
      topP: generate("a", { topP: 2 }),
      maxTokens: generate("a", { maxTokens: -1 }),
      seed: generate("a", { seed: 1.5 }),
      stop: generate("a", { stop: [1] }),
      signal: generate("a", { signal: {} }),
      unknown: generate("a", { temprature: 1 }),
      throws: generate("a", { get temperature() { throw new Error("no"); } }),
      prompt: generate(null),
      "prompt with a token that is not there": generate([1, 512]),
      "no tokens": generate([]),
      text: () => lm.tokenize(null),
      tokens: () => lm.detokenize([1, -1]),
      "token not in the vocabulary": () => lm.detokenize([70000]),
      last: () => lm.logits([1, 2], { last: 3 }),
      quantize: () => TextModel.load(url, { quantize: "Q9" }),
      contextLength: () => TextModel.load(url, { contextLength: 0 }),
      "contextLength beyond the model": () => TextModel.load(url, { contextLength: 100000 }),
      kvType: () => TextModel.load(url, { kvType: "Q1" }),
      sha256: () => TextModel.load(url, { sha256: "" }),
      source: () => TextModel.load(42),
      "source scheme": () => TextModel.load("javascript:alert(1)"),
      "source file": () => TextModel.load("file:///etc/passwd"),
      shards: () => TextModel.load(["a.gguf", "b.gguf"]),
      options: () => TextModel.load(url, null),
      image: () => VisionModel.load(url, { labels: "cat" }),
    };
    const results = {};
    for (const [name, attempt] of Object.entries(attempts)) {
      results[name] = await attempt().then(() => "no error", shown);
    }
    const fine = (await greedy(lm, { maxTokens: 3 })).length;
    await lm.dispose();
    return { results, fine };
  });
  for (const [name, error] of Object.entries(cases.results)) {
    assert.equal(error.code, "BadArgument", `${name}: ${JSON.stringify(error)}`);
    assert.ok(error.key, `${name}: no key in ${JSON.stringify(error)}`);
  }
  assert.equal(cases.fine, 3);
});

test("a context that fills up ends the generation; a prompt beyond it is refused", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url, { contextLength: 32 });
    const ids = await greedy(lm);
    const { stats } = lm;
    const tooLong = await greedy(lm, {}).then(() => lm.generate(Array(40).fill(5)).next()).catch(shown);
    await lm.dispose();
    return { n: ids.length, stats, tooLong };
  });
  assert.equal(result.stats.finishReason, "context");
  assert.equal(result.n + result.stats.promptTokens, 32);
  assert.equal(result.tooLong.code, "ContextOverflow");
});

test("an abort ends a load at once", { skip }, async () => {
  const result = await inPage(async ({ TextModel, inspect }, { url }) => {
    const outcomes = [];
    for (const wait of [0, 1, 20]) {
      const controller = new AbortController();
      const endless = new ReadableStream({ pull: () => new Promise(() => undefined) });
      const start = performance.now();
      const load = TextModel.load(endless, { signal: controller.signal });
      setTimeout(() => controller.abort(), wait);
      const error = await load.catch(shown);
      outcomes.push({ ...error, ms: performance.now() - start - wait });
    }
    const early = await TextModel.load(url, { signal: AbortSignal.abort() }).catch(shown);
    const inspected = await inspect(url, { signal: AbortSignal.abort() }).catch(shown);
    return { outcomes, early, inspected };
  });
  for (const { name, ms } of [...result.outcomes, { ...result.early, ms: 0 }, { ...result.inspected, ms: 0 }]) {
    assert.equal(name, "AbortError");
    assert.ok(ms < 100, `${ms} ms`);
  }
});

test("the tests above left no trace of a fault", () => {
  assert.deepEqual(tab.faults, []);
});
