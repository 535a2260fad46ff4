/**
 * Assembles the npm package (pkg/) and the page (www/dist/).
 *
 * Runs after wasm-bindgen has written each build of the runtime to target/bind/<build>/
 * (`cargo xtask build` does both). Nothing is bundled: tsc's output is the package.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const PKG = join(ROOT, "pkg");
const SITE = join(ROOT, "www/dist");
/** What wasm-bindgen made of each build. */
const BOUND = join(ROOT, "target/bind");
const RUNTIME = join(PKG, "runtime");

async function main() {
  const version = await checkedVersion();
  const builds = await findBuilds();
  await rm(PKG, { recursive: true, force: true });
  await takeRuntime(builds);
  compile("www/lib");
  await dropEmptyMaps();
  await dropComments();
  await writePlain(builds);
  await writePackageFiles(version, builds);
  await rm(SITE, { recursive: true, force: true });
  compile("www/demo");
  await copyPage();
  console.log(`pkg/ and www/dist/ are built (version ${version}, ${builds.join(", ")})`);
}

/** The version in Cargo.toml, which the TypeScript sources must repeat. */
async function checkedVersion() {
  const cargo = /^version = "(.+)"$/m.exec(await read("Cargo.toml"))?.[1];
  const script = /VERSION = "(.+)"/.exec(await read("www/lib/version.ts"))?.[1];
  if (!cargo || cargo !== script) {
    throw new Error(`Cargo.toml has version ${cargo}, www/lib/version.ts has ${script}: make them equal`);
  }
  return cargo;
}

/** The folders of target/bind: the builds of the runtime. */
async function findBuilds() {
  const folders = await readdir(BOUND, { withFileTypes: true }).catch(() => []);
  const builds = folders.filter((folder) => folder.isDirectory()).map(({ name }) => name);
  if (builds.length === 0) throw new Error("target/bind holds no build of the runtime: run `cargo xtask build`");
  return builds.sort();
}

/** The JavaScript around a build: that of 64-bit memories reads addresses in another way. */
function glueOf(build) {
  return build.endsWith("64") ? "bitpane64" : "bitpane";
}

/** The builds and the JavaScript that goes with each of them, whose types are the same for all. */
async function takeRuntime(builds) {
  await mkdir(RUNTIME, { recursive: true });
  const taken = new Map();
  for (const build of builds) {
    for (const [file, kept] of [["bitpane.js", `${glueOf(build)}.js`], ["bitpane.d.ts", "bitpane.d.ts"]]) {
      const text = await readFile(join(BOUND, build, file), "utf8");
      if ((taken.get(kept) ?? text) !== text) throw new Error(`${file} of the build ${build} is another than that of others: they need one each`);
      taken.set(kept, text);
    }
  }
  for (const [file, text] of taken) {
    // What each function takes stands in the types; the script need not say it again.
    await writeFile(join(RUNTIME, file), file.endsWith(".d.ts") ? text : text.replace(/^ *\/\*\*[^]*?\*\/\n/gm, ""));
  }
  await writeFile(join(RUNTIME, "bitpane64.d.ts"), 'export * from "./bitpane.js";\n');
  for (const build of builds) await cp(join(BOUND, build, "bitpane_bg.wasm.gz"), join(RUNTIME, `${build}.wasm.gz`));
}

/** Modules of types only have nothing to step through, but maps that hold their whole sources. */
async function dropEmptyMaps() {
  for (const name of await readdir(PKG)) {
    if (!name.endsWith(".js")) continue;
    const text = await readFile(join(PKG, name), "utf8");
    const code = text.replace(/\/\*[^]*?\*\/|^\/\/.*$/gm, "").trim();
    if (code !== "export {};") continue;
    await writeFile(join(PKG, name), text.replace(/^\/\/# sourceMappingURL=.*\n?/m, ""));
    await rm(join(PKG, `${name}.map`));
  }
}

/**
 * What documentation says stands in the declarations; scripts and the sources in their maps need not say it again.
 * The lines stay where they are, so that the maps stay true.
 */
async function dropComments() {
  const bare = (text) => text
    .replace(/^[ \t]*\/\*\*[^]*?\*\//gm, (comment) => comment.replace(/[^\n]/g, ""))
    .replace(/^[ \t]*\/\/(?!#).*$/gm, "");
  for (const name of await readdir(PKG)) {
    const path = join(PKG, name);
    if (name.endsWith(".js")) await writeFile(path, bare(await readFile(path, "utf8")));
    if (!name.endsWith(".js.map")) continue;
    const map = JSON.parse(await readFile(path, "utf8"));
    await writeFile(path, JSON.stringify({ ...map, sourcesContent: map.sourcesContent.map(bare) }));
  }
}

/** What runs, unpacked, of both builds that each file makes: tests look at their instructions. */
async function writePlain(builds) {
  const { withOwnMemory } = await import(join(PKG, "own-memory.js"));
  const plain = join(ROOT, "target/builds");
  await mkdir(plain, { recursive: true });
  for (const build of builds) {
    const wasm = await readFile(join(BOUND, build, "bitpane_bg.wasm"));
    await writeFile(join(plain, `${build}-threads.wasm`), wasm);
    await writeFile(join(plain, `${build}.wasm`), withOwnMemory(wasm));
  }
}

function compile(project) {
  const manifest = createRequire(import.meta.url).resolve("typescript/package.json");
  const tsc = join(dirname(manifest), "bin/tsc");
  const { status } = spawnSync(process.execPath, [tsc, "-p", join(ROOT, project)], { stdio: "inherit" });
  if (status !== 0) throw new Error(`tsc failed on ${project}`);
}

async function writePackageFiles(version, builds) {
  const manifest = JSON.parse(await read("www/lib/package.template.json"));
  manifest.version = version;
  for (const build of builds) manifest.exports[`./${build}.wasm.gz`] = `./runtime/${build}.wasm.gz`;
  manifest.files.push(...(await unreachedTypes(manifest)).map((name) => `!${name}`));
  await writeFile(join(PKG, "package.json"), JSON.stringify(manifest, null, 2) + "\n");
  await forJsr(manifest);
  await cp(join(ROOT, "www/lib/README.md"), join(PKG, "README.md"));
  for (const name of await readdir(ROOT)) {
    if (name.startsWith("LICENSE")) await cp(join(ROOT, name), join(PKG, name));
  }
}

/** Declarations that no entry of the package leads to: of its inner modules, which nobody else can import. */
async function unreachedTypes({ exports }) {
  const reached = new Set();
  const follow = async (name) => {
    if (reached.has(name)) return;
    reached.add(name);
    const text = await readFile(join(PKG, name), "utf8");
    for (const [, path] of text.matchAll(/(?:from|import\(|import) ?"(\.[^"]+)\.js"/g)) await follow(join(dirname(name), `${path}.d.ts`));
  };
  for (const { types } of Object.values(exports)) if (types) await follow(join(types));
  return (await filesIn(PKG)).filter((name) => name.endsWith(".d.ts") && !reached.has(name)).sort();
}

/** The same package for JSR, which wants a manifest of its own and entries that name their types. */
async function forJsr({ version, license, exports }) {
  const entries = Object.entries(exports).filter(([, target]) => target.types);
  const jsr = { name: "@bitpane/bitpane", version, license, exports: Object.fromEntries(entries.map(([name, target]) => [name, target.default])) };
  await writeFile(join(PKG, "jsr.json"), JSON.stringify(jsr, null, 2) + "\n");
  for (const target of new Set(entries.map(([, { default: script }]) => script))) {
    const text = await readFile(join(PKG, target), "utf8");
    // Before the first line, not above it: the source maps stay true.
    await writeFile(join(PKG, target), `/* @ts-self-types="${target.replace(".js", ".d.ts")}" */ ${text}`);
  }
}

async function copyPage() {
  const sources = await readdir(join(ROOT, "www/demo"));
  for (const name of sources) {
    if (/\.(html|css|svg|png|webmanifest)$/.test(name)) await cp(join(ROOT, "www/demo", name), join(SITE, name));
  }
  await cp(PKG, join(SITE, "pkg"), { recursive: true });
  await copyModels();
  await listFiles();
}

/** Tells the service worker what the page consists of. */
async function listFiles() {
  const listed = { digest: "", files: [], builds: {} };
  const digest = createHash("sha256");
  for (const path of (await filesIn(SITE)).sort()) {
    if (/^sw\.js|\.d\.ts$|\.map$|^pkg\/(README|LICENSE|package\.json)/.test(path)) continue;
    digest.update(`${path}\n`).update(await readFile(join(SITE, path)));
    // What only some browsers or models need waits until it is asked for.
    const build = path === "pkg/runtime/bitpane64.js" ? "relaxed64" : /^pkg\/runtime\/(\w+)\.wasm\.gz$/.exec(path)?.[1];
    if (build) (listed.builds[build] ??= []).push(path);
    else listed.files.push(path);
  }
  listed.digest = digest.digest("hex").slice(0, 16);
  const worker = join(SITE, "sw.js");
  const text = await readFile(worker, "utf8");
  const filled = text.replace('{"digest":"","files":[],"builds":{}}', JSON.stringify(listed));
  if (filled === text) throw new Error("www/demo/sw.ts has no place for the list of files");
  await writeFile(worker, filled);
}

/** The paths of all files in a folder, relative to it. */
async function filesIn(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)).replaceAll("\\", "/"));
}

/** Copies the built-in models, with a list of them: asking for a file that is not there is an error in the console. */
async function copyModels() {
  const from = join(ROOT, "www/models");
  const to = join(SITE, "models");
  const names = (await readdir(from).catch(() => [])).filter((name) => /\.(gguf|safetensors)$/.test(name));
  await mkdir(to, { recursive: true });
  for (const name of names) await cp(join(from, name), join(to, name));
  const named = (stem) => names.find((name) => name.startsWith(`${stem}.`)) ?? null;
  await writeFile(join(to, "models.json"), JSON.stringify({ story: named("story"), photo: named("photo") }) + "\n");
}

async function exists(path) {
  return stat(path).then(() => true, () => false);
}

function read(path) {
  return readFile(join(ROOT, path), "utf8");
}

await main().catch((error) => {
  console.error(`www/build.mjs: ${error.message}`);
  process.exitCode = 1;
});
