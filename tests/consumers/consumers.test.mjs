/**
 * The packed package as people install it: `npm install` of the tarball into fresh projects, their own
 * bundler, and the result driven in Chromium. All of them must write the same story and see the same thing.
 *
 * `CONSUMERS` names those to test; by default the quick ones. `cargo xtask consumers` runs this.
 */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, extname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { launch, openPage } from "../browser/harness.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = join(HERE, "../..");
/** Outside of the repository: bundlers look upwards for more of their project. */
const WORK = join(tmpdir(), "bitpane-consumers");
const LIMIT = 8 * 60_000;
const READY = 60_000;
const run = promisify(execFile);

/** What each is installed with, how it is built, and what is then served. `models` is where the files of models go. */
const CONSUMERS = {
  static: { install: [], models: "models", serve: "." },
  esbuild: { install: ["esbuild@0.28.2"], build: [["npx", "esbuild", "app.js", "--bundle", "--format=esm", "--outfile=dist/app.js"], ["sh", "-c", "cp -R node_modules/bitpane/. index.html models dist/"]], models: "models", serve: "dist" },
  vite: { install: ["vite@8.3.8"], build: [["npx", "vite", "build"]], models: "public/models", serve: "dist" },
  "vite-dev": { from: "vite", install: ["vite@8.3.8"], models: "public/models", dev: ["npx", "vite", "--port", "PORT", "--strictPort"] },
  webpack: { install: ["webpack@5.113.0", "webpack-cli@7.3.1"], build: [["npx", "webpack"], ["sh", "-c", "cp -R index.html models dist/"]], models: "models", serve: "dist" },
  next: { install: ["next@16.4.6", "react@19.3.1", "react-dom@19.3.1"], build: [["npx", "next", "build"]], models: "public/models", serve: "out", script: false },
  extension: { install: [], build: [["npx", "--yes", "esbuild@0.28.2", "app.js", "--bundle", "--format=esm", "--outfile=dist/app.js"], ["sh", "-c", "cp -R node_modules/bitpane/. index.html manifest.json models dist/ && rm -rf dist/package.json"]], models: "models", extension: "dist" },
  node: { install: [], models: "models", node: [process.execPath], script: false },
  "node-22": { from: "node", install: ["node@22"], models: "models", node: ["npx", "node"], script: false },
};
const QUICK = ["static", "esbuild", "vite", "node"];
const wanted = process.env.CONSUMERS === "all" ? Object.keys(CONSUMERS) : (process.env.CONSUMERS ?? QUICK.join(",")).split(",");

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json", ".css": "text/css", ".svg": "image/svg+xml" };

let tarball;
let browser;
let offline;

before(async () => {
  await mkdir(WORK, { recursive: true });
  const { stdout } = await run("npm", ["pack", join(ROOT, "pkg"), "--json", "--pack-destination", WORK]);
  const [{ filename, unpackedSize, size }] = JSON.parse(stdout);
  tarball = join(WORK, filename);
  console.log(`package: ${size} bytes packed, ${unpackedSize} bytes unpacked`);
  offline = await run("npm", ["ping"], { timeout: 30_000 }).then(() => false, () => "the npm registry cannot be reached");
  browser = await launch();
});
after(() => browser?.close());

/** A fresh project with the package in it; its folder. */
async function project(name) {
  const { from = name, install, models, script = true } = CONSUMERS[name];
  const folder = join(WORK, name);
  await rm(folder, { recursive: true, force: true });
  await cp(join(HERE, from), folder, { recursive: true });
  if (script) await cp(join(HERE, "shared-app.js"), join(folder, "app.js"));
  await cp(join(ROOT, "www/models"), join(folder, models), { recursive: true });
  await writeFile(join(folder, "package.json"), JSON.stringify({ name: `consumer-${name}`, private: true }));
  await run("npm", ["install", "--no-audit", "--no-fund", tarball, ...install], { cwd: folder, timeout: LIMIT });
  return folder;
}

async function served(folder) {
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const file = join(folder, path.endsWith("/") ? `${path}index.html` : path);
    const bytes = file.startsWith(folder) ? await readFile(file).catch(() => undefined) : undefined;
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    response.setHeader("Cross-Origin-Resource-Policy", "same-origin");
    if (bytes) response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" }).end(bytes);
    else response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://localhost:${server.address().port}/`, close: () => server.close(() => undefined).closeAllConnections() };
}

async function resultOn(page) {
  const handle = await page.waitForFunction(() => document.documentElement.dataset.result, null, { timeout: READY });
  return JSON.parse(await handle.jsonValue());
}

async function inBrowser(url) {
  const tab = await openPage(browser, url);
  try {
    return { result: await resultOn(tab.page), faults: tab.faults };
  } finally {
    await tab.close();
  }
}

/** A development server, as long as its page is needed. */
async function inDevelopment([command, ...words], folder) {
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const child = spawn(command, words.map((word) => (word === "PORT" ? String(port) : word)), { cwd: folder, detached: true, stdio: "ignore" });
  try {
    const url = `http://localhost:${port}/`;
    for (let i = 0; ; i += 1) {
      if (await fetch(url).then(({ ok }) => ok, () => false)) break;
      if (i > 300) throw new Error("the development server does not answer");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return await inBrowser(url);
  } finally {
    process.kill(-child.pid);
  }
}

/** An extension's page. Chromium makes the extension's id of its folder. */
async function inExtension(folder) {
  const id = [...createHash("sha256").update(folder).digest("hex").slice(0, 32)].map((digit) => "abcdefghijklmnop"[Number.parseInt(digit, 16)]).join("");
  const context = await chromium.launchPersistentContext(join(WORK, "profile"), {
    executablePath: process.env.CHROME ?? "/usr/bin/chromium", headless: false,
    args: ["--headless=new", "--no-sandbox", "--disable-gpu", `--load-extension=${folder}`, `--disable-extensions-except=${folder}`, "--disable-features=DisableLoadExtensionCommandLineSwitch"],
  });
  try {
    const page = await context.newPage();
    const faults = [];
    page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
    await page.goto(`chrome-extension://${id}/index.html`);
    return { result: await resultOn(page), faults };
  } finally {
    await context.close();
  }
}

async function inNode([command, ...words], folder) {
  const { stdout } = await run(command, [...words, "index.mjs"], { cwd: folder, timeout: READY });
  return { result: JSON.parse(stdout), faults: [] };
}

async function outcomeOf(name) {
  const folder = await project(name);
  const { build = [], serve, dev, extension, node } = CONSUMERS[name];
  for (const [command, ...words] of build) await run(command, words, { cwd: folder, timeout: LIMIT, maxBuffer: 1 << 26 });
  if (dev) return inDevelopment(dev, folder);
  if (extension) return inExtension(join(folder, extension));
  if (node) return inNode(node, folder);
  const server = await served(join(folder, serve));
  try {
    return await inBrowser(server.url);
  } finally {
    server.close();
  }
}

let first;

for (const name of wanted) {
  test(name, { timeout: LIMIT }, async (context) => {
    assert.ok(Object.hasOwn(CONSUMERS, name), `there is no consumer ${name}: ${Object.keys(CONSUMERS).join(", ")}`);
    if (offline) return context.skip(offline);
    const start = performance.now();
    const { result, faults } = await outcomeOf(name);
    assert.equal(result.error, undefined);
    assert.ok(result.text.length > 10 && result.label.length > 1, JSON.stringify(result));
    first ??= result;
    assert.deepEqual([result.text, result.label], [first.text, first.label]);
    assert.deepEqual(faults, []);
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    console.log(`consumer ${name}: ${result.build}, ${result.threads} thread(s), ${seconds} s from nothing`);
    return undefined;
  });
}

test("the package has no script that runs at installation, no dependency, and only its own files", async () => {
  const folder = join(WORK, "unpacked");
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await run("tar", ["-xzf", tarball, "-C", folder]);
  const manifest = JSON.parse(await readFile(join(folder, "package/package.json"), "utf8"));
  assert.deepEqual([manifest.scripts, manifest.dependencies], [undefined, undefined]);
  const files = await readdir(join(folder, "package"), { recursive: true, withFileTypes: true });
  const odd = files.filter((file) => file.isFile() && !/\.(js|d\.ts|js\.map|wasm|wasm\.gz)$|^(README\.md|LICENSE-(MIT|APACHE)|package\.json|jsr\.json)$/.test(file.name));
  assert.deepEqual(odd.map(({ name }) => name), []);
  for (const target of Object.values(manifest.exports).flatMap((entry) => (typeof entry === "string" ? [entry] : Object.values(entry)))) {
    assert.ok((await readFile(join(folder, "package", target))).length > 0, target);
  }
});
