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

test("A01: an abort throws AbortError, and the next run is as if it had not been", { skip }, async () => {
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

test("A01: leaving the loop stops the computation; its figures are there at once", { skip }, async () => {
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

test("A02: generations at the same time wait for each other and equal serial ones", { skip }, async () => {
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

test("A01: a queued generation can be aborted before it starts", { skip }, async () => {
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

test("A04, A05, A07, A08: bad arguments are named", { skip }, async () => {
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
      "temperature infinite": generate("a", { temperature: Infinity }),
      "a BigInt": generate("a", { maxTokens: 5n }),
      "an array": generate("a", { temperature: [1] }),
      "beyond 2^53": generate("a", { maxTokens: 2 ** 53 }),
      "a Proxy that throws": generate("a", new Proxy({}, { ownKeys() { throw new Error("no"); } })),
      nKeep: generate("a", { contextShift: true, nKeep: -2 }),
      contextShift: generate("a", { contextShift: 1 }),
      session: () => lm.restoreSession("bytes"),
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
      shards: () => TextModel.load([42]),
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

test("A04: a context that fills up ends the generation; a prompt beyond it is refused", { skip }, async () => {
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

test("A01: an abort within a long prompt leaves no trace", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const prompt = Array.from({ length: 400 }, (_, i) => 3 + (i * 7) % 500);
    const all = async (signal) => {
      const tokens = [];
      for await (const { token } of lm.generate(prompt, { maxTokens: 20, temperature: 0, ignoreEos: true, signal })) tokens.push(token);
      return tokens;
    };
    const controller = new AbortController();
    const aborted = all(controller.signal).catch(shown);
    setTimeout(() => controller.abort(), 4);
    const error = await aborted;
    const after = await all();
    const cached = lm.stats.cachedTokens;
    await lm.dispose();
    const fresh = await TextModel.load(url);
    const tokens = [];
    for await (const { token } of fresh.generate(prompt, { maxTokens: 20, temperature: 0, ignoreEos: true })) tokens.push(token);
    await fresh.dispose();
    return { name: error.name, after, tokens, cached };
  });
  assert.equal(result.name, "AbortError");
  assert.deepEqual(result.after, result.tokens);
});

test("A03: loads and generations at the same time are apart", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const first = await TextModel.load(url);
    const alone = await greedy(first);
    const running = greedy(first);
    const [second, third] = await Promise.all([TextModel.load(url), TextModel.load(url)]);
    const all = await Promise.all([running, greedy(second), greedy(third)]);
    for (const lm of [first, second, third]) await lm.dispose();
    return { alone, all };
  });
  for (const tokens of result.all) assert.deepEqual(tokens, result.alone);
});

test("A09: a thousand short generations take no more memory", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const bytes = [];
    const texts = new Set();
    for (let run = 0; run < 1000; run += 1) {
      texts.add(String(await greedy(lm, { maxTokens: 3 })));
      if (run === 20 || run === 999) bytes.push(lm.stats.wasmBytes);
    }
    await lm.dispose();
    return { bytes, texts: texts.size };
  });
  assert.equal(result.texts, 1);
  assert.ok(result.bytes[1] - result.bytes[0] <= 1 << 20, `grew from ${result.bytes[0]} to ${result.bytes[1]}`);
});

test("a full context may forget half and go on", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url, { contextLength: 32 });
    const n = (await greedy(lm, { maxTokens: 100, contextShift: true, nKeep: 4 })).length;
    const { finishReason, forgottenTokens } = lm.stats;
    let long = 0;
    for await (const piece of lm.generate(Array(40).fill(5), { maxTokens: 9, ignoreEos: true, contextShift: true })) long += Number(piece.token !== null);
    const chat = await lm.chat.completions.create({
      messages: [{ role: "user", content: "a dog and a cat ".repeat(20) }], max_tokens: 40, temperature: 0, context_shift: true,
    });
    await lm.dispose();
    return { n, finishReason, forgottenTokens, long, chat: chat.usage.completion_tokens };
  });
  assert.equal(result.n, 100);
  assert.equal(result.finishReason, "length");
  assert.ok(result.forgottenTokens > 60, `${result.forgottenTokens} forgotten`);
  assert.equal(result.long, 9);
  assert.ok(result.chat > 0);
});

test("a saved session goes on where it was; damaged bytes are refused", { skip }, async () => {
  const result = await inPage(async ({ TextModel }, { url }) => {
    const lm = await TextModel.load(url);
    const first = [...await lm.tokenize("Once upon a time", { addSpecial: true }), ...await greedy(lm)];
    const bytes = await lm.saveSession();
    const next = async (model) => {
      const tokens = [];
      for await (const { token } of model.generate(first, { maxTokens: 20, temperature: 0, ignoreEos: true })) tokens.push(token);
      return { tokens, cached: model.stats.cachedTokens };
    };
    const fresh = await TextModel.load(url);
    const cold = await next(fresh);
    await fresh.dispose();
    const other = await TextModel.load(url);
    const n = await other.restoreSession(bytes);
    const warm = await next(other);
    const errors = [];
    const damaged = bytes.slice();
    damaged[bytes.length >> 1] ^= 4;
    for (const given of [new Uint8Array(0), bytes.slice(0, 30), damaged]) errors.push(await other.restoreSession(given).catch(shown));
    await other.dispose();
    await lm.dispose();
    return { n, wanted: first.length - 1, cold, warm, errors };
  });
  assert.equal(result.n, result.wanted);
  assert.deepEqual(result.errors.map(({ code, key }) => [code, key]), [["BadMagic", "session"], ["Truncated", "session"], ["IntegrityError", "session"]]);
  assert.deepEqual([result.cold.cached, result.warm.cached], [0, result.n]);
  assert.deepEqual(result.warm.tokens, result.cold.tokens);
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
