// From an address to the first token, beside wllama: cold (nothing cached) and from each one's own cache, in
// alternating rounds. `node tests/bench/loading.mjs [--rounds N] FILE.gguf`
import { basename, join, resolve as toPath } from "node:path";
import { createReadStream, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { createServer } from "node:http";
import { chromium } from "playwright-core";
import { serve } from "./server.mjs";

const args = process.argv.slice(2);
const rounds = args[0] === "--rounds" ? Number(args.splice(0, 2)[1]) : 3;
const path = toPath(args[0] ?? "");
const { size, mtimeMs } = statSync(path);

/** Serves the file as a careful host does: with parts, a version, and for every origin. */
function serveFile() {
  const server = createServer((request, response) => {
    const found = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = found ? Number(found[1]) : 0;
    const end = found?.[2] ? Math.min(Number(found[2]) + 1, size) : size;
    const headers = {
      "Content-Type": "application/octet-stream", "Content-Length": end - start, ETag: `"${size}-${mtimeMs}"`, "Accept-Ranges": "bytes",
      "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "ETag, Content-Range, Accept-Ranges, Content-Length",
      "Cross-Origin-Resource-Policy": "cross-origin", "Cache-Control": "no-store",
    };
    if (found) headers["Content-Range"] = `bytes ${start}-${end - 1}/${size}`;
    response.writeHead(found ? 206 : 200, headers);
    if (request.method === "HEAD") response.end();
    else createReadStream(path, { start, end: end - 1, highWaterMark: 1 << 20 }).pipe(response);
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

/** What runs in the page: the time from the call to the first token. */
const CONTENDERS = {
  bitpane: async ({ url, threads }) => {
    const { TextModel } = await import("/pkg/index.js");
    const start = performance.now();
    const lm = await TextModel.load(url, { threads, contextLength: 512 });
    const loaded = performance.now();
    for await (const { token } of lm.generate([1, 2, 3, 4], { maxTokens: 1, temperature: 0 })) void token;
    const end = performance.now();
    const { wasmBytes } = lm.stats;
    await lm.dispose();
    return { ms: end - start, loadMs: loaded - start, wasmBytes };
  },
  wllama: async ({ url, threads }) => {
    const { Wllama } = await import("/npm/@wllama/wllama/esm/index.js");
    const wllama = new Wllama({ default: "/npm/@wllama/wllama/esm/wasm/wllama.wasm" }, { suppressNativeLog: true });
    const start = performance.now();
    await wllama.loadModelFromUrl(url, { n_ctx: 512, n_threads: threads, n_gpu_layers: 0 });
    const loaded = performance.now();
    await wllama.createCompletion({ prompt: "a b c", max_tokens: 1, temperature: 0 });
    const end = performance.now();
    await wllama.exit();
    return { ms: end - start, loadMs: loaded - start };
  },
};

const files = await serveFile();
const url = `http://localhost:${files.address().port}/${basename(path)}`;
const { origin, close } = await serve();
/** A browser with a new profile on the disk, as people have: a private window keeps files in another process's memory. */
async function openBrowser() {
  const profile = mkdtempSync(join(tmpdir(), "bitpane-loading-"));
  const options = { executablePath: process.env.CHROME ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] };
  const context = await chromium.launchPersistentContext(profile, options);
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  };
  return { context, close };
}

const threads = Number(process.env.THREADS ?? 1);
const times = {};
const names = Object.keys(CONTENDERS);
for (let round = 0; round < rounds; round += 1) {
  for (const name of round % 2 === 0 ? names : [...names].reverse()) {
    const { context, close: closeBrowser } = await openBrowser();
    for (const kind of ["cold", "cached"]) {
      const page = await context.newPage();
      await page.goto(`${origin}/contenders/page.html?module=${name}`);
      const result = await page.evaluate(`(${CONTENDERS[name]})(${JSON.stringify({ url, threads })})`);
      (times[`${name} ${kind}`] ??= []).push(result);
      console.log(`round ${round + 1} ${name} ${kind}: ${JSON.stringify(result)}`);
      await page.close();
    }
    await closeBrowser();
  }
}
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
for (const kind of ["cold", "cached"]) {
  const [a, b] = names.map((name) => median(times[`${name} ${kind}`].map(({ ms }) => ms)));
  console.log(`${kind}: bitpane ${a.toFixed(0)} ms, wllama ${b.toFixed(0)} ms: ${(b / a).toFixed(2)} times`);
}
close();
files.close();
