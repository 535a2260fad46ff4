/**
 * What a user downloads, measured: the package, each build, the page's first view, and the same of the
 * packages that one would take instead. `--update` writes the table into README.md.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { launch, openPage, serve } from "./browser/harness.mjs";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const WORK = join(ROOT, "target/sizes");
const MARKS = ["<!-- sizes -->", "<!-- /sizes -->"];
/** Beside what: the package, and the .wasm that one page of it loads. */
const PEERS = [["@wllama/wllama"], ["@huggingface/transformers", "onnxruntime-web"]];

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;
const kilobytes = (bytes) => `${Math.round(bytes / 1e3)} KB`;

function npm(...words) {
  return execFileSync("npm", words, { cwd: WORK, encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "ignore"] });
}

/** A package of the registry, or a folder, as npm packs it. */
function packed(what) {
  const [found] = JSON.parse(npm("pack", what, "--json"));
  return { ...found, wasm: found.files.filter(({ path }) => path.endsWith(".wasm")).map(({ size }) => size) };
}

/** Each .wasm of the package: [bytes unpacked, bytes as sent]. */
function builds() {
  const folder = join(ROOT, "pkg/runtime");
  const files = readdirSync(folder).filter((name) => name.endsWith(".wasm.gz")).map((name) => readFileSync(join(folder, name)));
  return files.map((file) => [gunzipSync(file).length, file.length]);
}

/** Bytes of all files that the page asks for before anything is chosen. */
async function firstView() {
  const server = await serve();
  const browser = await launch();
  const { page } = await openPage(browser, server.url);
  await page.waitForLoadState("networkidle");
  const sizes = await page.evaluate((paths) => Promise.all(paths.map(async (path) => (await (await fetch(path)).arrayBuffer()).byteLength)), [...server.log]);
  await browser.close();
  await server.close();
  return sizes.reduce((a, b) => a + b, 0);
}

function peer([name, runtime]) {
  try {
    const own = packed(name);
    const other = runtime ? packed(runtime) : undefined;
    const wasm = [...own.wasm, ...(other?.wasm ?? [])];
    const label = `${name} ${own.version}${other ? ` with ${runtime} ${other.version}` : ""}`;
    const unpacked = own.unpackedSize + (other?.unpackedSize ?? 0);
    return `| ${label} | ${megabytes(unpacked)} | ${megabytes(Math.min(...wasm))} to ${megabytes(Math.max(...wasm))} |`;
  } catch (error) {
    return `| ${name} | not measured: ${String(error.message).split("\n")[0]} | |`;
  }
}

async function table() {
  mkdirSync(WORK, { recursive: true });
  const own = packed(join(ROOT, "pkg"));
  const all = builds();
  const plain = all.map(([bytes]) => bytes);
  const sent = all.map(([, bytes]) => bytes);
  return [
    "| package | unpacked | one .wasm, of which a page loads one |",
    "|---|---|---|",
    `| bitpane ${own.version} | ${megabytes(own.unpackedSize)} | ${megabytes(Math.min(...plain))} to ${megabytes(Math.max(...plain))}, sent as ${megabytes(Math.min(...sent))} to ${megabytes(Math.max(...sent))} |`,
    ...PEERS.map(peer),
    "",
    `The page's first view, before a model is chosen: ${kilobytes(await firstView())} uncompressed. Measured by \`node tests/sizes.mjs\`.`,
  ].join("\n");
}

const text = await table();
console.log(text);
if (process.argv.includes("--update")) {
  const path = join(ROOT, "README.md");
  const readme = readFileSync(path, "utf8");
  const [from, to] = MARKS.map((mark) => readme.indexOf(mark));
  if (from < 0 || to < from) throw new Error(`README.md lacks ${MARKS.join(" and ")}`);
  writeFileSync(path, `${readme.slice(0, from + MARKS[0].length)}\n${text}\n${readme.slice(to)}`);
}
process.exit(0);
