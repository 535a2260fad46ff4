/**
 * Pictures of the page while it loads, resumes and fails, for people to look at:
 * `node tests/browser/loading_screens.mjs FOLDER` writes them. Built first: `cargo xtask build`.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { faulty } from "./fault_server.mjs";
import { headerOnly, randomModel } from "./gguf.mjs";
import { launch, openPage, serve } from "./harness.mjs";

const folder = process.argv[2];
if (!folder) throw new Error("usage: node tests/browser/loading_screens.mjs FOLDER");
mkdirSync(folder, { recursive: true });

const MODEL = randomModel();

/** Sends a file at some bytes a second, from where it is asked for, until `end`. */
function slow(file, bytesPerSecond, end = Infinity) {
  return (request, response) => {
    const found = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    let at = found ? Number(found[1]) : 0;
    const last = found?.[2] ? Math.min(Number(found[2]) + 1, file.length) : file.length;
    const headers = { ETag: '"a"', "Accept-Ranges": "bytes", "Content-Length": last - at };
    if (found) headers["Content-Range"] = `bytes ${at}-${last - 1}/${file.length}`;
    response.writeHead(found ? 206 : 200, headers);
    if (request.method === "HEAD") return void response.end();
    const piece = Math.ceil(bytesPerSecond / 20);
    const timer = setInterval(() => {
      if (at >= end) return void (clearInterval(timer), response.destroy());
      response.write(file.subarray(at, (at = Math.min(at + piece, last))));
      if (at === last) (clearInterval(timer), response.end());
    }, 50);
    response.on("close", () => clearInterval(timer));
  };
}

const answers = {
  "/models/quick.gguf": slow(MODEL, 4e6),
  "/models/resumed.gguf": slow(MODEL, 4e6),
  "/models/missing.gguf": (_, response) => response.writeHead(404).end(),
  "/models/page.gguf": faulty(Buffer.from("<!doctype html><title>Sign in</title>")),
  "/models/huge.gguf": faulty(headerOnly({ n_embd: 8192, n_ff: 32768, n_layer: 64, n_head: 64 })),
};
const server = await serve(answers);
const browser = await launch();

/** Opens the page and has it load an address. */
async function open(path, options) {
  const tab = await openPage(browser, server.url, options);
  await load(tab.page, path);
  return tab;
}

async function load(page, path) {
  await page.click('a[href$="#models"]');
  await page.fill("#open-address", new URL(path, server.url).href);
  await page.press("#open-address", "Enter");
}

async function shot(page, name) {
  await page.screenshot({ path: join(folder, `${name}.png`) });
  console.log(`${name}: ${await page.innerText("#dock")}`);
}

const DESK = { viewport: { width: 1100, height: 720 }, colorScheme: "light" };
const PHONE = { viewport: { width: 390, height: 780 }, colorScheme: "dark" };

for (const [name, options] of [["progress", DESK], ["progress-phone", PHONE]]) {
  const { page, close } = await open("/models/quick.gguf", options);
  await page.waitForFunction(() => document.getElementById("loading-bar").value > 8e6);
  await shot(page, name);
  await close();
}
{
  const { page, close } = await open("/models/resumed.gguf", DESK);
  await page.waitForFunction(() => document.getElementById("loading-bar").value > 10e6);
  // Closed in the middle, as a tab is.
  await page.goto("about:blank");
  await page.goto(server.url);
  await load(page, "/models/resumed.gguf");
  await page.waitForFunction(() => document.getElementById("loading-bar").value > 13e6);
  await shot(page, "resumed");
  await close();
}
for (const [name, path, options] of [
  ["error-missing", "/models/missing.gguf", DESK],
  ["error-page", "/models/page.gguf", DESK],
  ["error-memory", "/models/huge.gguf", PHONE],
]) {
  const { page, close } = await open(path, options);
  await page.waitForSelector("#notice[data-kind=bad]");
  await shot(page, name);
  await close();
}
await browser.close();
await server.close();
