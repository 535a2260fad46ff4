/** Runs models in pages of their own and compares what they compute, bit by bit. */
import assert from "node:assert/strict";
import { openPage, serve, withPackage } from "./harness.mjs";

/** Runs `run(bitpane, args)` in a page of its own, behind `answers`; what it returns, and the paths asked for. */
export async function onPage(browser, run, args, { answers = {}, prepare, isolated = true } = {}) {
  const server = await serve(answers, { isolated });
  const tab = await openPage(browser, `${server.url}blank.html`);
  try {
    if (prepare) await tab.page.evaluate(prepare);
    const result = await withPackage(tab.page, run, args);
    assert.deepEqual(tab.faults, []);
    return { result, asked: server.log };
  } finally {
    await tab.close();
    await server.close();
  }
}

/** What a model computes: the SHA-256 of its logits' bytes, and greedy tokens of a language model. */
export async function compute({ TextModel, VisionModel }, { path, ...options }) {
  const isText = path.endsWith(".gguf");
  const model = await (isText ? TextModel : VisionModel).load(`/shared/${path}`, options);
  const tokens = [];
  let rows;
  if (isText) {
    for await (const { token } of model.generate([1], { maxTokens: 24, temperature: 0, ignoreEos: true })) {
      if (token !== null) tokens.push(token);
    }
    // A prompt in one piece takes the other kernels: several rows at once.
    rows = await model.logits([1, ...tokens.slice(0, 8)]);
  } else {
    const pixels = Float32Array.from({ length: 3 * 224 * 224 }, (_, i) => Math.sin(i * 0.37));
    rows = [await model.logits(pixels, { shape: [1, 3, 224, 224] })];
  }
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(rows).arrayBuffer());
  const { backend } = model.info;
  await model.dispose();
  const hash = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const finite = rows.every((row) => row.length >= 64 && row.every(Number.isFinite));
  return { tokens, hash, finite, backend };
}

export function assertSame(found, wanted) {
  assert.ok(wanted.finite);
  assert.deepEqual(found.tokens, wanted.tokens);
  assert.equal(found.hash, wanted.hash, "the logits differ");
}
