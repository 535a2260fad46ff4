/** A01 in milliseconds: how soon a worker in the middle of a long prompt is free again after an abort. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { onPage } from "./computing.mjs";
import { randomModel } from "./gguf.mjs";
import { launch } from "./harness.mjs";

/** 80 MB: 128 tokens of a prompt, which pass through it together, take some hundred milliseconds. */
const MODEL = randomModel({ n_embd: 768, n_ff: 3072, n_layer: 8, n_head: 12, n_ctx: 1024 });
const answers = {
  "/long.gguf": (_, response) => response.writeHead(200, { "Content-Length": MODEL.length }).end(MODEL),
};

let browser;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());

async function aborts({ TextModel }, { threads }) {
  const lm = await TextModel.load("/long.gguf", { threads, cache: false });
  const prompt = [1, ...Array.from({ length: 4 * 128 }, (_, i) => 3 + (i * 7) % 250)];
  const answer = async (tokens, options = {}) => {
    const written = [];
    const given = { maxTokens: 8, temperature: 0, ignoreEos: true, ...options };
    for await (const { token } of lm.generate(tokens, given)) written.push(token);
    return written;
  };
  const wanted = await answer(prompt);
  const stepMs = lm.stats.promptMs / 4;
  const runs = [];
  for (const steps of [0.1, 0.2, 0.4, 1.1, 1.3, 2.1, 2.3]) {
    await answer([1, 2], { maxTokens: 1 }); // so that nothing of the prompt is held
    const controller = new AbortController();
    const running = answer(prompt, { signal: controller.signal }).catch(shown);
    await new Promise((resolve) => setTimeout(resolve, steps * stepMs));
    const start = performance.now();
    controller.abort();
    const { name } = await running;
    const rejectedMs = performance.now() - start;
    await lm.tokenize("a");
    const busyMs = performance.now() - start;
    const written = await answer(prompt);
    runs.push({ name, rejectedMs, busyMs, written, cached: lm.stats.cachedTokens });
  }
  const { backend } = lm.info;
  await lm.dispose();
  return { wanted, stepMs, runs, backend };
}

for (const threads of [1, 2]) {
  test(`A01: an abort within a step of a prompt, threads: ${threads}`, async (t) => {
    const { result } = await onPage(browser, aborts, { threads }, { answers });
    const { wanted, stepMs, runs, backend } = result;
    assert.equal(backend.threads, threads);
    for (const { name, rejectedMs, written } of runs) {
      assert.equal(name, "AbortError");
      assert.ok(rejectedMs < 50, `rejected after ${rejectedMs} ms`);
      assert.deepEqual(written, wanted);
    }
    const busy = runs.map(({ busyMs }) => busyMs).sort((a, b) => a - b);
    const told = `${busy.map((ms) => ms.toFixed(0)).join(", ")} ms, a step takes ${stepMs.toFixed(0)} ms`;
    t.diagnostic(`free after ${told}; held then: ${runs.map(({ cached }) => cached).join(", ")} tokens`);
    // The rest of the step would take half of it. A part of a layer is a sixteenth.
    assert.ok(busy[Math.floor(busy.length / 2)] < stepMs / 4, told);
  });
}
