/** Facts that two files must agree on. */
import assert from "node:assert/strict";
import { readFile, stat } from "node:fs/promises";
import { test } from "node:test";

const read = (path) => readFile(new URL(`../../${path}`, import.meta.url), "utf8");

test("error codes are the same in Rust and TypeScript, in the same order", async () => {
  const rust = /^codes! \{$(.*?)^\}$/ms.exec(await read("src/error.rs"))?.[1] ?? "";
  const inRust = [...rust.matchAll(/^ {4}(\w+),$/gm)].map(([, name]) => name);
  const script = /ERROR_CODES = \[(.*?)\] as const/s.exec(await read("www/lib/errors.ts"))?.[1] ?? "";
  const inScript = [...script.matchAll(/"(\w+)"/g)].map(([, name]) => name);
  assert.ok(inRust.length >= 40, `${inRust.length} codes found in src/error.rs`);
  assert.deepEqual(inScript, inRust);
});

test("the version is the same in Cargo.toml and TypeScript", async () => {
  const cargo = /^version = "(.+)"$/m.exec(await read("Cargo.toml"))?.[1];
  const script = /VERSION = "(.+)"/.exec(await read("www/lib/version.ts"))?.[1];
  assert.match(cargo, /^\d+\.\d+\.\d+/);
  assert.equal(script, cargo);
});

test("W06 the package has no dependency and runs nothing when it is installed", async () => {
  const manifest = JSON.parse(await read("pkg/package.json"));
  assert.equal(manifest.name, "bitpane");
  for (const key of ["dependencies", "optionalDependencies", "scripts", "bin"]) {
    assert.equal(manifest[key], undefined, key);
  }
  // Of a peer only what those need who have it anyway.
  for (const name of Object.keys(manifest.peerDependencies ?? {})) assert.equal(manifest.peerDependenciesMeta?.[name]?.optional, true, name);
  for (const build of ["relaxed", "simd128"]) {
    assert.equal(manifest.exports[`./${build}.wasm.gz`], `./runtime/${build}.wasm.gz`);
  }
});

test("the page says how large its own models are", async () => {
  const page = await read("www/demo/index.html");
  for (const [model, chip] of [["story", "storyteller"], ["photo", "classifier"]]) {
    const { size } = await stat(new URL(`../../www/models/${model}.gguf`, import.meta.url));
    assert.ok(page.includes(`Built-in ${chip}, ${(size / 1e6).toFixed(1)} MB`), `${model}.gguf has ${size} bytes`);
  }
});
