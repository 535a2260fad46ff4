/** Files and servers that are not what they should be: every failure has its code. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { after, before, test } from "node:test";
import { changed, launch, openPage, serve, SHARED, unlessShared, withPackage } from "./harness.mjs";

const STORIES = "data/lm/stories260K/stories260K.Q8_0.gguf";
const skip = unlessShared(STORIES);
const model = existsSync(join(SHARED, STORIES)) ? readFileSync(join(SHARED, STORIES)) : Buffer.alloc(0);

const send = (body, headers = {}, status = 200) => (_, response) => response.writeHead(status, headers).end(body);
const ANSWERS = {
  "/m/html": send("<!doctype html><title>Sign in</title>", { "Content-Type": "text/html" }),
  "/m/lfs": send("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
  "/m/empty": send(""),
  "/m/403": send("no", {}, 403),
  "/m/500": send("no", {}, 500),
  "/m/prefix": send(model.subarray(0, model.length - 100)),
  "/m/header-only": send(model.subarray(0, 600)),
  "/m/cut": (_, response) => {
    response.writeHead(200, { "Content-Length": model.length });
    response.write(model.subarray(0, 100_000));
    setTimeout(() => response.destroy(), 100);
  },
  "/m/long": send(Buffer.concat([model, Buffer.alloc(64)])),
  "/m/gzip": send(gzipSync(model), { "Content-Encoding": "gzip" }),
  "/m/chunked": (_, response) => {
    response.writeHead(200);
    for (let at = 0; at < model.length; at += 50_000) response.write(model.subarray(at, at + 50_000));
    response.end();
  },
  "/m/redirect": send("", { Location: `/shared/${STORIES}` }, 302),
  "/m/reset": (request) => request.socket.destroy(),
};

let server;
let browser;
let tab;

before(async () => {
  server = await serve(ANSWERS);
  browser = await launch();
  tab = await openPage(browser, `${server.url}blank.html`);
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** Loads an address; the error, or the text of five greedy tokens. */
function outcomeOf(address, page = tab.page) {
  return withPackage(page, async ({ TextModel }, url) => {
    let lm;
    try {
      const totals = [];
      const download = { retryDelayMs: 10 };
      lm = await TextModel.load(url, { download, onProgress: (p) => { if (p.total < p.loaded) totals.push(p); } });
      let text = "";
      for await (const piece of lm.generate("Once", { maxTokens: 5, temperature: 0 })) text += piece.text;
      return { text, totals };
    } catch (error) {
      return shown(error);
    } finally {
      await lm?.dispose();
    }
  }, address);
}

const CASES = [
  ["a missing file", "/m/none", "HttpStatus", { status: 404 }],
  ["a forbidden file", "/m/403", "HttpStatus", { status: 403 }],
  ["a server's failure", "/m/500", "HttpStatus", { status: 500 }],
  ["an HTML page", "/m/html", "BadMagic", {}],
  ["a pointer of git-lfs", "/m/lfs", "BadMagic", {}],
  ["an empty file", "/m/empty", "Truncated", {}],
  ["a file without its end", "/m/prefix", "Truncated", {}],
  ["a file without its data", "/m/header-only", "Truncated", {}],
  ["a connection that breaks off", "/m/cut", "Truncated", {}],
  ["no answer at all", "/m/reset", "NetworkError", {}],
];
for (const [name, path, code, details] of CASES) {
  test(`${name}: ${code}`, { skip }, async () => {
    const error = await outcomeOf(path);
    assert.equal(error.name, "BitpaneError", JSON.stringify(error));
    assert.equal(error.code, code, error.message);
    assert.equal(new URL(error.url).pathname, path);
    for (const [key, value] of Object.entries(details)) assert.equal(error[key], value);
  });
}

test("compressed, chunked and redirected answers load alike, and one with bytes after its end", { skip }, async () => {
  const plain = await outcomeOf(`/shared/${STORIES}`);
  assert.ok(plain.text?.length > 3, JSON.stringify(plain));
  for (const path of ["/m/gzip", "/m/chunked", "/m/redirect", "/m/long"]) {
    assert.deepEqual(await outcomeOf(path), { text: plain.text, totals: [] }, path);
  }
});

test("a language model is not a vision model", { skip }, async () => {
  const error = await withPackage(tab.page, ({ VisionModel }, url) => VisionModel.load(url).catch(shown), `/shared/${STORIES}`);
  assert.equal(error.code, "UnsupportedArch");
});

test("sha256 is checked", { skip }, async () => {
  const result = await withPackage(tab.page, async ({ TextModel }, url) => {
    const bytes = await (await fetch(url)).arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const right = await TextModel.load(url, { sha256: sha256.toUpperCase() }).then((lm) => lm.dispose().then(() => "loaded"), shown);
    const wrong = await TextModel.load(url, { sha256: "0".repeat(64) }).catch(shown);
    return { right, wrong };
  }, `/shared/${STORIES}`);
  assert.equal(result.right, "loaded");
  assert.equal(result.wrong.code, "IntegrityError");
});

test("T12, T13: images that are none are refused", { skip: unlessShared("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors") }, async () => {
  const results = await withPackage(tab.page, async ({ VisionModel }, url) => {
    const vit = await VisionModel.load(url);
    const results = {
      text: await vit.classify(new Blob(["hello"], { type: "image/png" })).catch(shown),
      empty: await vit.classify(new Blob([])).catch(shown),
      none: await vit.classify(null).catch(shown),
      shape: await vit.logits(new Float32Array(12), { shape: [1, 3, 2, 2] }).catch(shown),
      nan: await vit.logits(new Float32Array(3 * 224 * 224).fill(NaN), { shape: [1, 3, 224, 224] }).catch(shown),
      topK: await vit.classify(new ImageData(8, 8), { topK: 0 }).catch(shown),
      tiny: (await vit.classify(new ImageData(1, 1))).length,
    };
    await vit.dispose();
    return results;
  }, "/shared/data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors");
  assert.equal(results.text.code, "ImageDecodeError");
  assert.equal(results.empty.code, "ImageDecodeError");
  for (const key of ["none", "shape", "nan", "topK"]) assert.equal(results[key].code, "BadArgument", key);
  assert.equal(results.tiny, 5);
});

/** Serves a package that is broken in one place, and loads a model through it. */
async function withBroken(answers, run) {
  const broken = await serve(answers);
  const other = await openPage(browser, `${broken.url}blank.html`);
  try {
    return await run(other.page);
  } finally {
    await other.close();
    await broken.close();
  }
}

const loadOf = (page) => outcomeOf(`/shared/${STORIES}`, page);

test("M06 a worker script that is not there, or throws at once: WorkerCrashed", { skip }, async () => {
  const missing = await withBroken({ "/pkg/worker.js": send("", {}, 404) }, loadOf);
  assert.equal(missing.code, "WorkerCrashed", missing.message);
  const throwing = await withBroken({ "/pkg/worker.js": changed("worker.js", /^/, 'throw new Error("bang");\n') }, loadOf);
  assert.equal(throwing.code, "WorkerCrashed");
  assert.match(throwing.message, /bang/);
});

test("N16 parts of another version: VersionMismatch", { skip }, async () => {
  const version = changed("version.js", /"\d+\.\d+\.\d+"/, '"0.0.0"');
  const wasm = await withBroken({ "/pkg/version.js": version }, loadOf);
  assert.equal(wasm.code, "VersionMismatch", wasm.message);
  const worker = changed("serving.js", "version: VERSION", 'version: "0.0.0"');
  const other = await withBroken({ "/pkg/serving.js": worker }, loadOf);
  assert.equal(other.code, "VersionMismatch", other.message);
});

test("N15 a .wasm that is not there or not one: RuntimeUnavailable; under another type it works", { skip }, async () => {
  const path = "/pkg/runtime/relaxed.wasm.gz";
  const bytes = readFileSync(new URL(`../..${path}`, import.meta.url));
  const missing = await withBroken({ [path]: send("", {}, 404) }, loadOf);
  assert.equal(missing.code, "RuntimeUnavailable", missing.message);
  const html = await withBroken({ [path]: send("<html>", { "Content-Type": "text/html" }) }, loadOf);
  assert.equal(html.code, "RuntimeUnavailable", html.message);
  const cut = await withBroken({ [path]: send(bytes.subarray(0, 5000), { "Content-Type": "application/wasm" }) }, loadOf);
  assert.equal(cut.code, "RuntimeUnavailable", cut.message);
  const typed = await withBroken({ [path]: send(bytes, { "Content-Type": "application/octet-stream" }) }, loadOf);
  assert.ok(typed.text?.length > 3, JSON.stringify(typed));
  // Servers that take the name's ending for an encoding have the browser unpack it.
  const encoded = await withBroken({ [path]: send(bytes, { "Content-Encoding": "gzip", "Content-Type": "application/wasm" }) }, loadOf);
  assert.ok(encoded.text?.length > 3, JSON.stringify(encoded));
});

test("M05 a trap poisons the instance: every call rejects with the panic's text", { skip }, async () => {
  // A step late enough that the prompt, which takes several for each layer, is read and text is written: then the trap,
  // as a panic would.
  const trap = `
    globalThis.bitpaneSteps = (globalThis.bitpaneSteps ?? 0) + 1;
    if (globalThis.bitpaneSteps > 100) {
      globalThis.bitpanePanic = "panicked at src/kernels: deliberate";
      throw new WebAssembly.RuntimeError("unreachable");
    }`;
  const glue = changed("runtime/bitpane.js", /(\n {4}step\(\w+\) \{)/, `$1${trap}`);
  const result = await withBroken({ "/pkg/runtime/bitpane.js": glue }, (page) => withPackage(page, async ({ TextModel }, url) => {
    const lm = await TextModel.load(url);
    let text = "";
    const run = async () => {
      for await (const piece of lm.generate("Once upon a time", { maxTokens: 200, ignoreEos: true })) text += piece.text;
    };
    const running = run().catch(shown);
    const queued = lm.tokenize("x").catch(shown);
    const first = await running;
    return { text, first, queued: await queued, later: await lm.tokenize("x").catch(shown), bytes: lm.stats.wasmBytes };
  }, `/shared/${STORIES}`));
  for (const key of ["first", "queued", "later"]) {
    assert.equal(result[key].code, "InstancePoisoned", key);
    assert.equal(result[key].message, "panicked at src/kernels: deliberate");
  }
  assert.equal(result.bytes, 0);
  assert.ok(result.text.length > 0, "what was written before the trap");
});
