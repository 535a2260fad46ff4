// Times the sampler in WebAssembly: see sampler_bench.rs.
import { readFile } from "node:fs/promises";

const folder = new URL("../../target/wasm32-unknown-unknown/wasm-release/examples/", import.meta.url);
const bytes = await readFile(new URL("sampler_bench.wasm", folder));
const { instance } = await WebAssembly.instantiate(bytes, {});
const { setup, run } = instance.exports;

for (const [setting, name] of ["greedy", "top-k 40, top-p 0.95", "min-p 0.05", "top-p 0.95"].entries()) {
  setup(setting);
  run(200);
  const times = Array.from({ length: 15 }, () => {
    const start = performance.now();
    run(20);
    return (performance.now() - start) * 1000 / 20;
  }).sort((a, b) => a - b);
  console.log(`${name.padEnd(24)}${times[7].toFixed(1).padStart(8)} us (median of 15)`);
}
