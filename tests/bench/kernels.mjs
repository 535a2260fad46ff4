// Kernel micro-benchmarks: products per second of each kernel, one thread.
//   cargo build --example kernel_bench --target wasm32-unknown-unknown --profile wasm-release
//   node tests/bench/kernels.mjs
import { readFileSync } from "node:fs";

const file = process.argv[2] ?? "target/wasm32-unknown-unknown/wasm-release/examples/kernel_bench.wasm";
const { instance } = await WebAssembly.instantiate(readFileSync(file), { env: { now: () => performance.now() } });
const wasm = instance.exports;

/** Median seconds of one round over five timings of about 0.1 s, after a warm-up. */
function time(run) {
  let rounds = 1;
  for (let ms = 0; ms < 30; rounds *= 2) {
    const start = performance.now();
    run(rounds);
    ms = performance.now() - start;
  }
  const timings = Array.from({ length: 5 }, () => {
    const start = performance.now();
    run(rounds);
    return (performance.now() - start) / rounds / 1000;
  });
  return timings.sort((a, b) => a - b)[2];
}

const types = { Q8_0: 8, Q6_K: 14, Q5_K: 13, Q4_0: 2, Q4_K: 12, Q3_K: 11, Q2_K: 10, TQ2_0: 35, F16: 1, F32: 0 };
const row = (...cells) => console.log(cells.map((c, i) => (i ? String(c).padStart(10) : c.padEnd(34))).join(""));
row("matmul m x n x k", "GMAC/s", "us");
for (const [m, n, k, copies] of [[1, 1536, 576, 8], [1, 576, 1536, 8], [1, 3072, 1024, 40], [128, 1536, 576, 1], [128, 1024, 3072, 1], [197, 768, 192, 1], [197, 192, 768, 1], [197, 576, 192, 1]]) {
  for (const [name, id] of Object.entries(types)) {
    if (k % 256 && /_K|TQ/.test(name)) continue;
    wasm.setup(id, m, n, k, copies);
    const s = time(wasm.run_matmul);
    row(`${name} ${m} x ${n} x ${k}`, (m * n * k / s / 1e9).toFixed(2), (s * 1e6).toFixed(1));
  }
}
row("quantize m x k", "Gel/s", "us");
for (const [m, k] of [[1, 576], [197, 192], [128, 1536]]) {
  wasm.setup(2, m, 16, k, 1);
  const s = time(wasm.run_quantize);
  row(`${m} x ${k}`, (m * k / s / 1e9).toFixed(2), (s * 1e6).toFixed(1));
}
row("attention m, heads/kv x d, tokens", "GMAC/s", "us");
for (const [m, h, kv, d, n] of [[1, 9, 3, 64, 128], [1, 9, 3, 64, 1024], [197, 3, 3, 64, 197], [128, 9, 3, 64, 128]]) {
  wasm.setup_attention(m, h, kv, d, n);
  const s = time((r) => wasm.run_attention(r, h, n));
  row(`${m}, ${h}/${kv} x ${d}, ${n}`, (2 * m * h * d * n / s / 1e9).toFixed(2), (s * 1e6).toFixed(1));
}
