/** What SECURITY.md says about the tests is what the tests are; what CHANGELOG.md and the manifest name is there. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const read = (path) => readFileSync(join(ROOT, path), "utf8");
const count = (text, pattern) => [...text.matchAll(pattern)].length;

/** How many of each there are, by the sources of the tests. */
function counted() {
  const rust = readdirSync(join(ROOT, "tests")).filter((name) => /^faults_.*\.rs$/.test(name)).map((name) => read(`tests/${name}`));
  const browser = ["faults", "network", "talk", "page"].map((name) => read(`tests/browser/${name}.test.mjs`));
  const sources = readdirSync(join(ROOT, "tests"), { recursive: true }).filter((name) => /\.(rs|mjs)$/.test(name)).map((name) => read(`tests/${name}`));
  const rows = new Set(sources.flatMap((text) => text.match(/\b[ACGHMNQSTW](0[1-9]|[1-3]\d)\b/g) ?? []));
  const codes = /ERROR_CODES = \[(.*?)\]/s.exec(read("www/lib/errors.ts"))[1];
  return {
    "kinds of failure, each with a code": count(codes, /"\w+"/g),
    "tests of malformed files and models, in Rust": rust.reduce((sum, text) => sum + count(text, /#\[test\]/g), 0),
    "tests of faults, networks and hostile text, in Chromium": browser.reduce((sum, text) => sum + count(text, /^\s*test\(/gm), 0),
    "rows of the fault catalogue that tests name": rows.size,
  };
}

test("there are at least as many tests as SECURITY.md says", () => {
  for (const [what, n] of Object.entries(counted())) {
    const said = Number(new RegExp(`\\| ${what} \\| (\\d+) \\|`).exec(read("SECURITY.md"))?.[1]);
    assert.ok(said > 0 && n >= said, `SECURITY.md says ${said} of the ${what}, there are ${n}`);
  }
});

test("the changelog knows the version; the documents that are named are there", () => {
  const version = /VERSION = "(.+)"/.exec(read("www/lib/version.ts"))[1];
  assert.ok(read("CHANGELOG.md").includes(`\n## ${version}`));
  for (const file of ["README.md", "SECURITY.md", ".github/CONTRIBUTING.md"]) {
    for (const [, target] of read(file).matchAll(/\]\((?!https?:)([^)#]+)/g)) {
      assert.ok(existsSync(join(ROOT, dirname(file), target)), `${file}: ${target}`);
    }
  }
});
