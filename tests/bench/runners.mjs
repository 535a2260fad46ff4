// One interface over all contenders: open(case) loads the model, then measure(task) runs it.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { buildCandle, HERE, modelFile, python, ROOT } from "./files.mjs";

/** A contender in a page of its own. */
async function openPage(work, { browser, origin }) {
  const page = await browser.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(`${origin}/contenders/page.html?module=${work.runner}`);
  try {
    await page.waitForFunction("window.ready", undefined, { timeout: 60_000 });
  } catch {
    throw new Error(problems.join("; ") || "the page did not start");
  }
  const url = `${origin}/models/${work.file}`;
  const info = await page.evaluate((t) => window.load(t), { ...work, url });
  return {
    info,
    measure: (t) => page.evaluate((t) => window.measure(t), t),
    close: () => page.close(),
  };
}

/** A contender in a Python process of its own (native.py). */
async function openNative(kind, interpreter, { file, threads }) {
  const args = [join(HERE, "native.py"), kind, modelFile(file), String(threads)];
  const child = spawn(interpreter, args, {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error("native.py ended");
    return JSON.parse(value);
  };
  const info = await next();
  const measure = (t) => {
    child.stdin.write(JSON.stringify(t) + "\n");
    return next();
  };
  return { info, measure, close: () => child.stdin.end() };
}

/**
 * Runner to opener. `why(context, work)` gives the reason that it cannot run, if there is one.
 * `context`: { browser, origin, llamaPython }; `work`: an entry of a case.
 */
export const runners = {
  bitpane: {
    why: () => !existsSync(join(ROOT, "pkg/index.js")) && "pkg/ is absent: run `cargo xtask build`",
    open: openPage,
  },
  wllama: { open: openPage },
  candle: {
    why: (_, { threads }) => threads > 1 && "has one thread in a browser",
    open: (work, context) => (buildCandle(), openPage(work, context)),
  },
  "onnxruntime-web": { open: openPage },
  "llama.cpp (native)": {
    why: ({ llamaPython }) => !llamaPython && "no --llama-python given",
    open: (work, { llamaPython }) => openNative("llama", llamaPython, work),
  },
  "onnxruntime (native)": { open: (work) => openNative("onnx", python(), work) },
};
