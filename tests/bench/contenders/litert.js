// LiteRT.js from npm, its WebAssembly accelerator (XNNPACK).
import { loadAndCompile, loadLiteRt, Tensor } from "/npm/@litertjs/core/dist/index.js";

let model;

export async function load({ url, threads }) {
  await loadLiteRt("/npm/@litertjs/core/wasm/", { threads: threads > 1 });
  const file = new Uint8Array(await (await fetch(url)).arrayBuffer());
  model = await loadAndCompile(file, { accelerator: "wasm", cpuOptions: { numThreads: threads } });
  return { threads };
}

/** Of pixels as they are stored: `[1, size, size, 3]` bytes. */
export async function measure({ size, bytes }) {
  const input = bytes ? Uint8Array.from(bytes) : crypto.getRandomValues(new Uint8Array(65536));
  const pixels = new Uint8Array(size * size * 3).map((_, i) => input[i % input.length]);
  const start = performance.now();
  const tensor = new Tensor(pixels, [1, size, size, 3]);
  const [output] = await model.run(tensor);
  const values = await output.data();
  const imageMs = performance.now() - start;
  tensor.delete();
  output.delete();
  return { imageMs, top: values.indexOf(Math.max(...values)) };
}
