/**
 * A server and a browser for the tests here.
 *
 * The server sends what a careful host would: the isolation headers and the strictest
 * Content-Security-Policy under which everything has to work. A test can put answers of its
 * own (errors, broken files, odd headers) in front of the files.
 */
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { availableParallelism } from "node:os";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
/** The built page; its pkg/ is a copy of the package. */
const SITE = join(ROOT, "www/dist");
/** Reference models and photos, which are not part of the repository. */
export const SHARED = join(ROOT, "../shared");

/** The build of the runtime that the browser gets unless a test says otherwise. */
export const BUILD = availableParallelism() > 1 ? "relaxed-threads" : "relaxed";

const CSP = [
  "default-src 'none'", "script-src 'self' 'wasm-unsafe-eval'", "worker-src 'self'", "connect-src 'self'",
  "style-src 'self'", "img-src 'self' blob: data:", "manifest-src 'self'", "base-uri 'none'", "frame-ancestors 'none'",
].join("; ");

const TYPES = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".json": "application/json",
  ".svg": "image/svg+xml", ".png": "image/png", ".webmanifest": "application/manifest+json", ".wasm": "application/wasm", ".map": "application/json", ".jpg": "image/jpeg", ".bmp": "image/bmp",
};

/** How Chromium is started. */
export const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  // A camera that shows a test picture, where a test grants it.
  "--use-fake-device-for-media-stream",
];

/** Why tests that need files of ../shared cannot run, or false: for the `skip` option of a test. */
export function unlessShared(...paths) {
  const absent = paths.find((path) => !existsSync(join(SHARED, path)));
  return absent === undefined ? false : `../shared/${absent} absent`;
}

/** Why tests of built-in models cannot run, or false. */
export function unlessBuiltIn(...stems) {
  const has = (stem) => ["gguf", "safetensors"].some((ext) => existsSync(join(SITE, `models/${stem}.${ext}`)));
  const absent = stems.find((stem) => !has(stem));
  return absent === undefined ? false : `www/models has no ${absent} model`;
}

/**
 * Serves the page at / and ../shared at /shared/. `answers` maps a path to
 * `(request, response) => void`, which then answers instead of the files. Pages that are not
 * `isolated` get no shared memory.
 */
export async function serve(answers = {}, { isolated = true, cacheControl = "no-store" } = {}) {
  const log = [];
  const server = createServer((request, response) => {
    const path = new URL(request.url, "http://localhost").pathname;
    log.push(path);
    if (isolated) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    response.setHeader("Cross-Origin-Resource-Policy", "same-origin");
    response.setHeader("Content-Security-Policy", CSP);
    response.setHeader("Cache-Control", cacheControl);
    if (Object.hasOwn(answers, path)) answers[path](request, response);
    else if (path === "/blank.html") sendBlank(response);
    else void sendFile(path, response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  server.unref(); // a test that fails before it closes its server must not keep the run alive
  const { port } = server.address();
  return {
    url: `http://localhost:${port}/`,
    /** Paths asked for, in order. */
    log,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

function sendBlank(response) {
  response.writeHead(200, { "Content-Type": TYPES[".html"] });
  response.end('<!doctype html><title>blank</title><link rel="icon" href="data:,">');
}

async function sendFile(path, response) {
  const safe = normalize(decodeURIComponent(path));
  const inSite = join(SITE, safe === "/" ? "index.html" : safe);
  const file = safe.startsWith("/shared/") ? join(SHARED, safe.slice("/shared/".length)) : inSite;
  const found = await stat(file).catch(() => null);
  if (!found?.isFile()) {
    response.writeHead(404, { "Content-Type": "text/plain" }).end("not found");
    return;
  }
  const type = TYPES[extname(file)] ?? "application/octet-stream";
  response.writeHead(200, { "Content-Type": type, "Content-Length": found.size });
  createReadStream(file).pipe(response);
}

/** Starts the system's Chromium. */
export function launch(...flags) {
  return chromium.launch({ executablePath: process.env.CHROME ?? "/usr/bin/chromium", args: [...FLAGS, ...flags] });
}

/**
 * Opens a page and collects whatever it must not do: console errors, uncaught exceptions,
 * violations of the Content-Security-Policy, requests to other hosts.
 */
export async function openPage(browser, address, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const faults = [];
  const { origin } = new URL(address);
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => faults.push(`uncaught: ${error}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(data|blob):/.test(url)) faults.push(`request to ${url}`);
  });
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => {
      console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  await page.goto(address);
  return { page, faults, close: () => context.close() };
}

/** Runs `run(bitpane, args)` in a page, with the package as its first argument. */
export function withPackage(page, run, args) {
  return page.evaluate(`(async () => {
    globalThis.bitpane ??= await import("/pkg/index.js");
    /** The parts of an error that can leave the page. */
    globalThis.shown = (error) => ({
      name: error.name, code: error.code, message: error.message, key: error.key, url: error.url,
      status: error.status, offset: error.offset,
    });
    return (${run})(globalThis.bitpane, ${JSON.stringify(args)});
  })()`);
}

/** An answer for {@link serve}: a script of the package, changed in one place. */
export function changed(path, pattern, replacement) {
  const text = readFileSync(join(ROOT, "pkg", path), "utf8");
  const result = text.replace(pattern, replacement);
  if (result === text) throw new Error(`pkg/${path} has nothing that matches ${pattern}`);
  return (_, response) => response.writeHead(200, { "Content-Type": TYPES[".js"] }).end(result);
}
