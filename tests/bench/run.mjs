// Runs bitpane and its peers side by side: `node tests/bench/run.mjs --help`.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { cases, contenders, prompt } from "./cases.mjs";
import { BUILD, modelFile, ROOT } from "./files.mjs";
import { markdown, summarize } from "./report.mjs";
import { runners } from "./runners.mjs";
import { serve } from "./server.mjs";

const USAGE = `usage: node tests/bench/run.mjs [options]
  --rounds N            rounds of measurement, 5 unless given
  --threads N           threads of each runtime, 1 unless given
  --cases REGEX         which cases (default: all but the 0.6B ones)
  --contenders A,B      which contenders (default: all)
  --llama-python PATH   a Python with llama-cpp-python: adds native llama.cpp
  --out FILE            where results go (default: target/bench/results.json, and .md beside it)
  --update-docs         write the table into docs/benchmarks.md`;

const CHROMIUM_FLAGS = [
  "--no-sandbox",
  // All pages but one are in the background of the session.
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-renderer-backgrounding",
];
// Enough for the browser's optimizing compiler to have replaced what it compiled in haste.
const WARM_UPS = { text: 1, vision: 8 };
// An image takes milliseconds: a round takes several.
const REPEATS = { text: 1, vision: 5 };

function options() {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      threads: { type: "string", default: "1" },
      cases: { type: "string", default: "^(?!.*0\\.6b)" },
      contenders: { type: "string", default: contenders.join(",") },
      "llama-python": { type: "string" },
      out: { type: "string", default: join(BUILD, "results.json") },
      "update-docs": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  return { ...values, rounds: Number(values.rounds), threads: Number(values.threads) };
}

const message = (error) => String(error?.message ?? error);

/** Loads and warms every contender of a case; those that cannot run keep their reason. */
async function openAll(task, names, context) {
  const entries = [];
  for (const name of names.filter((n) => task.files[n])) {
    const entry = { name, samples: [] };
    entries.push(entry);
    const why = runners[name].why?.(context);
    if (why) {
      entry.error = `skipped: ${why}`;
      console.error(`bench: ${task.name}: ${name} ${entry.error}`);
      continue;
    }
    try {
      modelFile(task.files[name]);
      entry.runner = await runners[name].open(name, task, context);
      entry.info = entry.runner.info;
      for (let i = 0; i < WARM_UPS[task.kind]; i++) await measure(entry, task, -1 - i);
      entry.samples = [];
    } catch (error) {
      entry.error = `failed: ${message(error)}`;
      console.error(`bench: ${task.name}: ${name} ${entry.error}`);
    }
  }
  return entries;
}

async function measure(entry, task, round) {
  const work = { ...task };
  if (task.kind === "text") work.prompt = prompt(task.promptLen, round);
  const sample = await entry.runner.measure(work);
  entry.samples.push({ ...sample, round, load: loadavg()[0] });
}

async function runCase(task, names, rounds, context) {
  const entries = await openAll(task, names, context);
  const live = () => entries.filter((e) => !e.error);
  for (let round = 0; round < rounds; round++) {
    // Rotate the order, so that no contender always follows the same one.
    const order = live().map((_, i, all) => all[(i + round) % all.length]);
    for (const entry of order) {
      try {
        for (let i = 0; i < REPEATS[task.kind]; i++) await measure(entry, task, round);
      } catch (error) {
        entry.error = `failed: ${message(error)}`;
        console.error(`bench: ${task.name}: ${entry.name} ${entry.error}`);
      }
    }
  }
  for (const { runner } of entries) await runner?.close();
  const done = entries.map(({ runner, ...entry }) =>
    entry.error ? entry : { ...entry, summary: summarize(task.kind, entry.samples) },
  );
  return { name: task.name, kind: task.kind, contenders: done };
}

function writeResults(run, out) {
  mkdirSync(BUILD, { recursive: true });
  writeFileSync(out, JSON.stringify(run, null, 1) + "\n");
  writeFileSync(out.replace(/(\.json)?$/, ".md"), markdown(run));
}

function updateDocs(run) {
  const path = join(ROOT, "docs/benchmarks.md");
  const marked = /(<!-- results -->\n)[^]*?(<!-- end of results -->)/;
  const text = readFileSync(path, "utf8");
  writeFileSync(path, text.replace(marked, (_, begin, end) => `${begin}\n${markdown(run)}\n${end}`));
}

async function main() {
  const args = options();
  const server = await serve();
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: CHROMIUM_FLAGS });
  const context = { browser, origin: server.origin, threads: args.threads, llamaPython: args["llama-python"] };
  const run = {
    date: new Date().toISOString().slice(0, 10),
    machine: { cpu: cpus()[0].model.trim(), cores: cpus().length },
    browser: `Chromium ${browser.version()}`,
    threads: args.threads,
    rounds: args.rounds,
    results: [],
  };
  try {
    for (const task of cases.filter((c) => new RegExp(args.cases).test(c.name))) {
      console.error(`bench: ${task.name}`);
      run.results.push(await runCase(task, args.contenders.split(","), args.rounds, context));
      // After each case, so that a run that is cut short leaves what it has.
      writeResults(run, args.out);
    }
  } finally {
    await browser.close();
    server.close();
  }
  if (args["update-docs"]) updateDocs(run);
  console.log(markdown(run));
  const own = run.results.flatMap((r) => r.contenders).filter((c) => c.name === "bitpane");
  process.exitCode = own.some((c) => c.error?.startsWith("failed")) ? 1 : 0;
}

await main();
