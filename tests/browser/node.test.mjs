/** The package in Node, without a browser: what the package's manifest gives Node is what runs here. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const MODELS = join(ROOT, "www/models");
const { exports } = JSON.parse(await readFile(join(ROOT, "pkg/package.json"), "utf8"));
const { BitpaneError, detectFeatures, inspect, Quantizer, quantizeFile, TextModel, VisionModel } = await import(pathToFileURL(join(ROOT, "pkg", exports["."].node)));

test("a story from a path, an address of a file and bytes: the same", async () => {
  const path = join(MODELS, "story.gguf");
  const bytes = await readFile(path);
  const sources = [path, pathToFileURL(path), pathToFileURL(path).href, bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)];
  const stories = [];
  for (const [i, source] of sources.entries()) {
    const threads = 1 + i % 2;
    const model = await TextModel.load(source, { threads });
    let text = "";
    for await (const piece of model.generate("Once upon a time", { maxTokens: 24, temperature: 0 })) text += piece.text;
    stories.push(text);
    assert.equal(model.info.backend.threads, threads, model.info.backend.threadsReason);
    await model.dispose();
  }
  assert.ok(stories[0].length > 20, stories[0]);
  assert.deepEqual(stories, sources.map(() => stories[0]));
});

test("a file is quantized by as many threads as are asked for, with the bytes of one", async () => {
  const files = [];
  for (const threads of [1, 2, 3]) {
    const made = await quantizeFile(join(MODELS, "photo.gguf"), { type: "Q4_0", allowRequantize: true, threads });
    assert.equal(made.threads, threads, made.threadsReason);
    files.push(Buffer.from(await made.blob.arrayBuffer()));
  }
  assert.ok(files[0].length > 100_000);
  assert.ok(files.every((file) => file.equals(files[0])));
  const quantizer = await Quantizer.open(join(MODELS, "photo.gguf"), { threads: 2 });
  const made = await quantizer.write("Q4_0", { allowRequantize: true });
  await quantizer.dispose();
  assert.equal(made.threads, 2, made.threadsReason);
  assert.ok(files[0].equals(Buffer.from(await made.blob.arrayBuffer())));
});

test("pixels are classified; what is no image has a code", async () => {
  const model = await VisionModel.load(join(MODELS, "photo.gguf"));
  const [width, height] = [48, 32];
  const data = Uint8Array.from({ length: width * height * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * 37) % 251));
  const top = await model.classify({ data, width, height }, { topK: 3 });
  assert.equal(top.length, 3);
  assert.ok(top[0].score >= top[1].score && top[0].score <= 1);
  for (const wrong of [{ data, width, height: 33 }, { data, width: 0, height: 0 }, { data: [1, 2, 3], width: 1, height: 1 }, "a.png", null]) {
    await assert.rejects(model.classify(wrong), (error) => error instanceof BitpaneError && error.code === "BadArgument");
  }
  await assert.rejects(model.classify(new Blob(["x"])), (error) => error.code === "RuntimeUnavailable" && /pixels/.test(error.message));
  await model.dispose();
});

test("failures are typed, and several models live side by side", async () => {
  await assert.rejects(TextModel.load("/no/such/file.gguf"), (error) => error.code === "Io" && /ENOENT/.test(error.message));
  await assert.rejects(TextModel.load(join(ROOT, "README.md")), (error) => error.code === "BadMagic");
  const header = await inspect(join(MODELS, "photo.gguf"));
  assert.equal(header.kind, "vision");
  const { build, maxThreads } = await detectFeatures();
  const best = maxThreads > 1 ? ["relaxed-threads", "simd128-threads"] : ["relaxed", "simd128"];
  assert.ok(best.includes(build), build);
  const [a, b] = await Promise.all([TextModel.load(join(MODELS, "story.gguf")), TextModel.load(join(MODELS, "story.gguf"))]);
  const [x, y] = await Promise.all([a, b].map((model) => model.tokenize("a cat")));
  assert.deepEqual(x, y);
  await a.dispose();
  await assert.rejects(a.tokenize("a"), (error) => error.code === "Disposed");
  await b.dispose();
});

test("a program ends by itself although a model is still loaded", () => {
  const script = `
    const { TextModel } = await import(${JSON.stringify(pathToFileURL(join(ROOT, "pkg/node.js")).href)});
    const model = await TextModel.load(${JSON.stringify(join(MODELS, "story.gguf"))});
    let n = 0;
    for await (const piece of model.generate("One day", { maxTokens: 5, temperature: 0 })) n += 1;
    console.log("pieces", n);`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", script], { encoding: "utf8", timeout: 60_000 });
  assert.equal(status, 0, stderr);
  assert.match(stdout, /pieces [3-6]/);
});

const DESCRIPTORS = "/proc/self/fd";

test("files are closed once they have been read", { skip: !existsSync(DESCRIPTORS) && `there is no ${DESCRIPTORS}` }, async () => {
  const path = join(MODELS, "story.gguf");
  const model = await TextModel.load(path);
  await inspect(path);
  await quantizeFile(path, { type: "Q4_0", allowRequantize: true });
  const open = await Promise.all((await readdir(DESCRIPTORS)).map((fd) => readlink(join(DESCRIPTORS, fd)).catch(() => "")));
  await model.dispose();
  assert.ok(open.some((file) => file.startsWith("/")), "no descriptor is open at all");
  assert.deepEqual(open.filter((file) => file === path), []);
});
