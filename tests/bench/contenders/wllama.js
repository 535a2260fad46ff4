// wllama from npm: llama.cpp as WebAssembly.
import { Wllama } from "/npm/@wllama/wllama/esm/index.js";

let wllama;

export async function load({ url, threads }) {
  wllama = new Wllama(
    { default: "/npm/@wllama/wllama/esm/wasm/wllama.wasm" },
    { suppressNativeLog: true },
  );
  const blob = await (await fetch(url)).blob();
  await wllama.loadModel([blob], { n_ctx: 2048, n_parallel: 1, n_threads: threads, n_gpu_layers: 0 });
  return { version: Wllama.getLibllamaVersion(), threads: wllama.getNumThreads() };
}

export async function measure({ promptLen, decodeLen, prompt }) {
  const { timings } = await wllama.createCompletion({
    prompt: prompt.text,
    // The first token comes from the prompt's own pass: one more makes `decodeLen` steps.
    max_tokens: decodeLen + 1,
    temperature: 0,
    ignore_eos: true,
  });
  // It may have the first token, the same for all prompts, in its cache.
  const cached = promptLen - timings.prompt_n;
  if (cached < 0 || cached > 1 || timings.predicted_n !== decodeLen + 1) {
    throw new Error(`unexpected token counts: ${JSON.stringify(timings)}`);
  }
  return {
    promptTps: timings.prompt_n / (timings.prompt_ms / 1000),
    decodeTps: decodeLen / (timings.predicted_ms / 1000),
  };
}
