/** The guide's code, run as it is written: what a page's blocks say, in their order, is one script. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, mkdtempSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, openPage, serve, SHARED, unlessShared } from "./harness.mjs";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");
const GUIDE = join(ROOT, "docs/guide");
const READY = 90_000;
const FLOATS = "data/lm/stories260K/stories260K.F32.gguf";

/** The files that the pages name. */
const FILES = {
  "model.gguf": join(ROOT, "www/models/story.gguf"),
  "chat.gguf": join(ROOT, "www/models/story.gguf"),
  "photo.gguf": join(ROOT, "www/models/photo.gguf"),
  "photo.png": join(ROOT, "www/demo/icon-192.png"),
  "model-f32.gguf": join(SHARED, FLOATS),
};
const TEXT = "Once upon a time there was a little girl who had a red ball. She played with it in the park. ".repeat(4);

let browser;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());

/** The blocks of a page: their language, what else their fence says, and their code. */
function blocksOf(name) {
  const text = readFileSync(join(GUIDE, name), "utf8");
  return [...text.matchAll(/^```(\w*) ?(\w*)\n(.*?)^```$/gms)].map(([, language, where, code]) => ({ language, where, code }));
}

const ofKind = (blocks, language, where = "") => blocks.filter((block) => block.language === language && block.where === where).map(({ code }) => code);

const names = readdirSync(GUIDE).filter((name) => /^\d+-.*\.md$/.test(name)).sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));

test("the guide has ten pages, all of them in its list, and no link of it leads nowhere", () => {
  assert.equal(names.length, 10);
  const list = readFileSync(join(GUIDE, "README.md"), "utf8");
  for (const name of names) assert.ok(list.includes(`(${name})`), name);
  for (const name of [...names, "README.md"]) {
    for (const [, target] of readFileSync(join(GUIDE, name), "utf8").matchAll(/\]\((?!https?:)([^)#]+)/g)) {
      assert.ok(existsSync(join(GUIDE, target)), `${name}: ${target}`);
    }
  }
});

for (const name of names) {
  const blocks = blocksOf(name);
  const script = ofKind(blocks, "js").join("\n");
  const needsFloats = blocks.some(({ code }) => code.includes("model-f32.gguf"));
  test(`${name} runs`, { skip: needsFloats && unlessShared(FLOATS), timeout: 2 * READY }, async () => {
    assert.ok(script.length > 0, "a page of the guide has code");
    const pages = ofKind(blocks, "html").filter((code) => !code.includes("importmap")).join("\n");
    const answers = {
      "/guide/page.html": (_, response) => {
        response.removeHeader("Content-Security-Policy"); // an import map is a script of the page's own
        response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" });
        response.end(`<!doctype html><title>guide</title><link rel="icon" href="data:,">
          <script type="importmap">{"imports":{"bitpane":"/pkg/index.js"}}</script><body>${pages}`);
      },
      "/guide/script.js": (_, response) => response.writeHead(200, { "Content-Type": "text/javascript" }).end(script),
      "/guide/text.txt": (_, response) => response.end(TEXT),
    };
    for (const [file, path] of Object.entries(FILES)) {
      answers[`/guide/${file}`] = (_, response) => createReadStream(path).on("error", () => response.writeHead(404).end()).pipe(response);
    }
    const server = await serve(answers);
    const { page, faults, close } = await openPage(browser, `${server.url}guide/page.html`);
    const said = [];
    page.on("console", (message) => message.type() === "log" && said.push(message.text()));
    const failure = await page.evaluate(() => import("/guide/script.js").then(() => "", (error) => `${error} ${error.stack ?? ""}`));
    assert.equal(failure, "");
    assert.ok(said.length > 0, "the code says what it has found");
    for (const line of said) assert.doesNotMatch(line, /undefined|NaN|another text/, line);
    const allowed = name.startsWith("10-") ? /404/ : /^$/; // it loads what is not there
    assert.deepEqual(faults.filter((fault) => !allowed.test(fault)), []);
    await close();
    await server.close();
  });
  const forNode = ofKind(blocks, "js", "node").join("\n");
  if (!forNode) continue;
  test(`${name} runs in Node`, () => {
    const folder = mkdtempSync(join(tmpdir(), "bitpane-guide-"));
    for (const [file, path] of Object.entries(FILES)) symlinkSync(path, join(folder, file));
    writeFileSync(join(folder, "package.json"), '{ "type": "module", "imports": {} }');
    execFileSync("mkdir", ["-p", join(folder, "node_modules")]);
    symlinkSync(join(ROOT, "pkg"), join(folder, "node_modules/bitpane"));
    writeFileSync(join(folder, "page.js"), forNode);
    const output = execFileSync(process.execPath, ["page.js"], { cwd: folder, encoding: "utf8", timeout: READY });
    assert.ok(output.trim().length > 0);
  });
}
