// Where the time of a vision transformer's layer goes, in Chromium on one thread, microseconds:
//   node tests/bench/layers.mjs --build      compiles the layer first
//   node tests/bench/layers.mjs [rounds]
// CHROME names the browser. The best of the rounds counts: other work on the machine only ever slows one.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const WASM = join(ROOT, "target/kernel-bench/layer.wasm");
const TARGET = "wasm32-unknown-unknown";
const PARTS = ["layer", "norm", "q, k, v", "storing", "attention", "output", "up", "activation", "down"];
const TYPES = { Q8_0: 8, Q4_0: 2 };
const SHAPES = { "DeiT-Tiny": [197, 192], "ViT-Base": [197, 768] };
const args = process.argv.slice(2);
const rounds = Number(args.find((arg) => /^\d+$/.test(arg)) ?? 12);

if (args.includes("--build")) {
  const words = ["build", "--package", "bitpane-core", "--example", "layer_bench", "--target", TARGET, "--profile", "wasm-release"];
  words.push("--config", `target.${TARGET}.rustflags=["-Ctarget-feature=+relaxed-simd"]`);
  execFileSync("cargo", words, { cwd: ROOT, stdio: "inherit" });
  mkdirSync(dirname(WASM), { recursive: true });
  copyFileSync(join(ROOT, "target", TARGET, "wasm-release/examples/layer_bench.wasm"), WASM);
}

// The headers give the page an exact clock.
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};
const server = createServer(({ url }, response) => {
  if (url === "/layer.wasm") return response.writeHead(200, { ...ISOLATED, "Content-Type": "application/wasm" }).end(readFileSync(WASM));
  return response.writeHead(200, { ...ISOLATED, "Content-Type": "text/html" }).end("<!doctype html><title>layers</title>");
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const browser = await chromium.launch({ executablePath: process.env.CHROME ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const page = await browser.newPage();
await page.goto(`http://localhost:${server.address().port}/`);

/** In the page: microseconds of each part. */
async function measure({ parts, types, shapes, rounds }) {
  const imports = { env: { now: () => performance.now() } };
  const { select, setup, run } = (await WebAssembly.instantiateStreaming(fetch("/layer.wasm"), imports)).instance.exports;
  const microseconds = (part, n) => {
    const start = performance.now();
    run(part, n);
    return ((performance.now() - start) * 1000) / n;
  };
  select();
  const rows = [];
  for (const [shape, [m, width]] of Object.entries(shapes)) {
    for (const [type, id] of Object.entries(types)) {
      setup(id, m, width);
      // Until the engine has optimised everything; then choose again, as the package does.
      parts.forEach((_, part) => run(part, 6));
      select();
      const least = parts.map(() => Infinity);
      for (let round = 0; round < rounds; round += 1) {
        parts.forEach((_, part) => (least[part] = Math.min(least[part], microseconds(part, 4))));
      }
      rows.push({ shape, type, least });
    }
  }
  return rows;
}

const rows = await page.evaluate(measure, { parts: PARTS, types: TYPES, shapes: SHAPES, rounds });
await browser.close();
server.close();
const line = (cells) => console.log(`| ${cells.join(" | ")} |`);
line(["model", "type", ...PARTS]);
line(["---", "---", ...PARTS.map(() => "--:")]);
for (const { shape, type, least } of rows) line([shape, type, ...least.map((us) => us.toFixed(0))]);
