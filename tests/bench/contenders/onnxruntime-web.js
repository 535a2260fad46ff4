// onnxruntime-web from npm, its WebAssembly execution provider.
import * as ort from "/npm/onnxruntime-web/dist/ort.wasm.min.mjs";

let session;

export async function load({ url, threads }) {
  ort.env.wasm.wasmPaths = "/npm/onnxruntime-web/dist/";
  ort.env.wasm.numThreads = threads;
  const file = new Uint8Array(await (await fetch(url)).arrayBuffer());
  session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  return { version: ort.env.versions.web, threads };
}

export async function measure({ imageShape }) {
  const n = imageShape.reduce((a, b) => a * b);
  const input = new ort.Tensor("float32", Float32Array.from({ length: n }, Math.random), imageShape);
  const start = performance.now();
  await session.run({ pixels: input });
  return { imageMs: performance.now() - start };
}
