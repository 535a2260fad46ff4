// bitpane through its npm package.
import { TextModel, VisionModel } from "/pkg/index.js";

let model;

export async function load({ url, threads, kind, quantize, kvType }) {
  const options = { threads, quantize, cache: false };
  model =
    kind === "text"
      ? await TextModel.load(url, { ...options, contextLength: 2048, ...(kvType && { kvType }) })
      : await VisionModel.load(url, options);
  const { backend, weightBytes, kvBytes = 0, bitsPerWeight } = model.info;
  return { ...backend, weightBytes, kvBytes, bitsPerWeight };
}

export async function measure({ kind, promptLen, decodeLen, prompt, imageShape }) {
  if (kind === "vision") {
    const n = imageShape.reduce((a, b) => a * b);
    const input = Float32Array.from({ length: n }, Math.random);
    const start = performance.now();
    await model.logits(input, { shape: imageShape });
    return { imageMs: performance.now() - start, wasmBytes: model.stats.wasmBytes };
  }
  const options = { maxTokens: decodeLen + 1, temperature: 0, ignoreEos: true };
  for await (const _ of model.generate(prompt.text, options));
  const { promptTokens, cachedTokens, promptMs, decodeTokens, decodeMs, wasmBytes } = model.stats;
  // The first token, the same for all prompts, may still be in the context.
  if (promptTokens !== promptLen || cachedTokens > 1 || decodeTokens !== decodeLen + 1) {
    throw new Error(`unexpected token counts: ${JSON.stringify(model.stats)}`);
  }
  return {
    promptTps: ((promptTokens - cachedTokens) * 1000) / promptMs,
    decodeTps: (decodeLen * 1000) / decodeMs,
    wasmBytes,
  };
}
