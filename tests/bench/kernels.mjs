// Kernel micro-benchmarks in Chromium: products per second of every kernel, tensor type and path on one
// thread, beside what the machine can do at all (the roof).
//   node tests/bench/kernels.mjs --build     compiles both builds of the kernels first
//   node tests/bench/kernels.mjs [rounds]
// CHROME names the browser. The best of the rounds counts: other work on the machine only ever slows one.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const FOLDER = join(ROOT, "target/kernel-bench");
const TARGET = "wasm32-unknown-unknown";
const BUILDS = ["simd128", "relaxed"];
const args = process.argv.slice(2);
const rounds = Number(args.find((arg) => /^\d+$/.test(arg)) ?? 12);

function build(name) {
  const words = ["build", "--package", "bitpane-core", "--example", "kernel_bench", "--target", TARGET, "--profile", "wasm-release"];
  if (name === "relaxed") words.push("--config", `target.${TARGET}.rustflags=["-Ctarget-feature=+relaxed-simd"]`);
  execFileSync("cargo", words, { cwd: ROOT, stdio: "inherit" });
  mkdirSync(FOLDER, { recursive: true });
  copyFileSync(join(ROOT, "target", TARGET, "wasm-release/examples/kernel_bench.wasm"), join(FOLDER, `${name}.wasm`));
}
if (args.includes("--build")) BUILDS.forEach(build);

// The headers give the page an exact clock.
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};
const server = createServer(({ url }, response) => {
  const name = BUILDS.find((build) => url === `/${build}.wasm`);
  if (name) return response.writeHead(200, { ...ISOLATED, "Content-Type": "application/wasm" }).end(readFileSync(join(FOLDER, `${name}.wasm`)));
  return response.writeHead(200, { ...ISOLATED, "Content-Type": "text/html" }).end("<!doctype html><title>kernels</title>");
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const browser = await chromium.launch({ executablePath: process.env.CHROME ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const page = await browser.newPage();
page.on("console", (message) => process.stderr.write(`  ${message.text()}\n`));
await page.goto(`http://localhost:${server.address().port}/`);

/** In the page: the figures, as data. */
async function measure({ builds, rounds }) {
  const PATHS = ["p16", "x16", "d16", "d32u", "d32s"];
  const TYPES = {
    Q8_0: 8, Q5_0: 6, Q4_0: 2, IQ4_NL: 20, Q6_K: 14, Q5_K: 13, Q4_K: 12, Q3_K: 11, Q2_K: 10, TQ2_0: 35, Q1_0: 41, F16: 1,
  };
  // Decoding from the second-level cache, and from memory with more matrices than any cache holds.
  const REGIMES = [["decode", 1, 1024, 1024, 1], ["prompt", 60, 256, 1024, 1], ["decode from memory", 1, 3072, 1024, 40]];
  const wasm = {};
  for (const name of builds) {
    const imports = { env: { now: () => performance.now() } };
    wasm[name] = (await WebAssembly.instantiateStreaming(fetch(`/${name}.wasm`), imports)).instance.exports;
  }
  /** Seconds of one run, at best. */
  function best(run, times, ms = 3) {
    let n = 1;
    for (let passed = 0; passed < ms; n = passed < ms ? Math.ceil(n * Math.min(8, 1.2 * ms / Math.max(passed, 0.05))) : n) {
      const start = performance.now();
      run(n);
      passed = performance.now() - start;
    }
    let least = Infinity;
    for (let i = 0; i < times; i += 1) {
      const start = performance.now();
      run(n);
      least = Math.min(least, (performance.now() - start) / n / 1000);
    }
    return least;
  }
  const roofs = {};
  for (const name of builds) {
    PATHS.slice(0, 4).forEach((path, i) => {
      const products = wasm[name].roof(i, 1);
      if (products) roofs[path] = Math.max(roofs[path] ?? 0, products / best((n) => wasm[name].roof(i, n), rounds) / 1e9);
    });
  }
  roofs.d32s = roofs.d32u;
  const [first] = builds;
  wasm[first].setup(8, 1, 3072, 1024, 40);
  const n_bytes = wasm[first].stream(1);
  const memory = n_bytes / best((n) => wasm[first].stream(n), rounds) / 1e9;
  const rows = [];
  for (const [regime, m, n, k, copies] of REGIMES) {
    for (const [type, id] of Object.entries(TYPES)) {
      const cells = [];
      for (const name of builds) {
        let bytes = 0;
        PATHS.forEach((path, i) => {
          if (!wasm[name].take(i)) return;
          if (!bytes) {
            wasm[name].setup(id, m, n, k, copies);
            bytes = wasm[name].stream(1) / copies;
          }
          wasm[name].run_matmul(1);
          cells.push({ name, path, i, bytes, s: Infinity, digest: wasm[name].digest() });
        });
      }
      // Floats go through one kernel, the integer ones have to agree.
      if (cells.some((cell) => cell.digest !== cells[0].digest)) {
        throw new Error(`${regime} ${type}: paths give different bits: ${cells.map(({ name, path, digest }) => `${name} ${path} ${digest}`)}`);
      }
      // In turns, so that every path gets its share of the quiet moments.
      for (let round = 0; round < Math.ceil(rounds / 3); round += 1) {
        for (const cell of cells) {
          wasm[cell.name].take(cell.i);
          cell.s = Math.min(cell.s, best(wasm[cell.name].run_matmul, 3));
        }
      }
      rows.push({ regime, type, products: m * n * k, cells });
      console.log(regime, type, ...cells.map(({ path, s }) => `${path} ${(m * n * k / s / 1e9).toFixed(1)}`));
    }
  }
  return { roofs, memory, rows };
}

const { roofs, memory, rows } = await page.evaluate(measure, { builds: BUILDS, rounds });
await browser.close();
server.close();

const columns = [["simd128", "p16"], ["simd128", "x16"], ["relaxed", "d16"], ["relaxed", "d32u"], ["relaxed", "d32s"]]
  .filter(([name, path]) => rows[0].cells.some((cell) => cell.name === name && cell.path === path));
const line = (cells) => console.log(`| ${cells.join(" | ")} |`);
console.log(`reading memory: ${memory.toFixed(1)} GB/s\n`);
console.log("GMAC/s and, in brackets, percent of the roof (from memory the lower of the path's and of memory's)\n");
line(["regime", "type", ...columns.map(([, path]) => path), "GB/s"]);
line(["---", "---", ...columns.map(() => "--:"), "--:"]);
line(["roof", "", ...columns.map(([, path]) => roofs[path].toFixed(0)), memory.toFixed(0)]);
for (const { regime, type, products, cells } of rows) {
  const float = type === "F16";
  const shown = columns.map(([name, path]) => {
    const cell = cells.find((cell) => cell.name === name && cell.path === path);
    const rate = products / cell.s / 1e9;
    const roof = regime === "decode from memory" ? Math.min(roofs[path], memory * products / cell.bytes) : roofs[path];
    return float ? rate.toFixed(1) : `${rate.toFixed(0)} (${(100 * rate / roof).toFixed(0)})`;
  });
  const quickest = Math.min(...cells.map(({ s }) => s));
  line([regime, type, ...shown, regime === "decode from memory" ? (cells[0].bytes / quickest / 1e9).toFixed(0) : ""]);
}
