// candle built from crates.io (../candle-wasm).
import init, { Model } from "/build/candle/candle_wasm.js";

let model;

export async function load({ url }) {
  await init();
  model = new Model(new Uint8Array(await (await fetch(url)).arrayBuffer()));
  return { version: "0.11", threads: 1 };
}

export async function measure({ promptLen, decodeLen, prompt }) {
  const t0 = performance.now();
  let token = model.forward(Uint32Array.from(prompt.ids), true);
  const t1 = performance.now();
  for (let i = 0; i < decodeLen; i++) {
    token = model.forward(Uint32Array.of(token), false);
  }
  const t2 = performance.now();
  return { promptTps: (promptLen * 1000) / (t1 - t0), decodeTps: (decodeLen * 1000) / (t2 - t1) };
}
