// Runs bitpane and its peers side by side: `node tests/bench/run.mjs --help`.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { cases, prompt } from "./cases.mjs";
import { BUILD, llamaPython, modelFile, ROOT } from "./files.mjs";
import { plot } from "./plot.mjs";
import { markdown, summarize } from "./report.mjs";
import { runners } from "./runners.mjs";
import { serve } from "./server.mjs";

const USAGE = `usage: node tests/bench/run.mjs [options]
  --rounds N            rounds of measurement, 5 unless given
  --threads N           threads of each runtime, 1 unless given
  --cases REGEX         which cases (default: all but the 0.6B ones)
  --contenders REGEX    which contenders (default: all)
  --list                name the cases and who runs them
  --native              builds llama.cpp for this machine (ten minutes, once) and adds it
  --llama-python PATH   adds llama.cpp from this Python's llama-cpp-python
  --out FILE            where results go (default: target/bench/results.json, and .md beside it)
  --update-docs         write the tables into docs/benchmarks.md and draw docs/benchmarks.svg`;

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
      contenders: { type: "string", default: "." },
      list: { type: "boolean", default: false },
      native: { type: "boolean", default: false },
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
async function openAll(task, context) {
  const open = [];
  for (const entry of task.entries.filter((e) => context.contenders.test(e.name))) {
    const work = { kind: task.kind, imageShape: task.imageShape, threads: context.threads, ...entry };
    const contender = { name: entry.name, work, samples: [] };
    open.push(contender);
    const runner = runners[entry.runner];
    const why = runner.why?.(context, work);
    if (why) {
      contender.error = `skipped: ${why}`;
      console.error(`bench: ${task.name}: ${entry.name} ${contender.error}`);
      continue;
    }
    try {
      modelFile(entry.file);
      contender.runner = await runner.open(work, context);
      contender.info = contender.runner.info;
      for (let i = 0; i < WARM_UPS[task.kind]; i++) await measure(contender, -1 - i);
      contender.samples = [];
    } catch (error) {
      contender.error = `failed: ${message(error)}`;
      console.error(`bench: ${task.name}: ${entry.name} ${contender.error}`);
    }
  }
  return open;
}

async function measure(contender, round) {
  const { work } = contender;
  const given = work.kind === "text" ? { ...work, prompt: prompt(work.promptLen, round) } : work;
  const sample = await contender.runner.measure(given);
  contender.samples.push({ ...sample, round, load: loadavg()[0] });
}

async function runCase(task, rounds, context) {
  const open = await openAll(task, context);
  const live = () => open.filter((c) => !c.error);
  for (let round = 0; round < rounds; round++) {
    // Rotate the order, so that no contender always follows the same one.
    const order = live().map((_, i, all) => all[(i + round) % all.length]);
    for (const contender of order) {
      try {
        for (let i = 0; i < REPEATS[task.kind]; i++) await measure(contender, round);
      } catch (error) {
        contender.error = `failed: ${message(error)}`;
        console.error(`bench: ${task.name}: ${contender.name} ${contender.error}`);
      }
    }
  }
  for (const { runner } of open) await runner?.close();
  const done = open.map(({ runner, ...contender }) =>
    contender.error ? contender : { ...contender, summary: summarize(task.kind, contender.samples) },
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
  writeFileSync(join(ROOT, "docs/benchmarks.svg"), plot(run));
}

async function main() {
  const args = options();
  const wanted = cases.filter((c) => new RegExp(args.cases).test(c.name));
  if (args.list) {
    for (const task of wanted) console.log(`${task.name}: ${task.entries.map((e) => e.name).join("; ")}`);
    return;
  }
  const server = await serve();
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: CHROMIUM_FLAGS });
  const context = {
    browser,
    origin: server.origin,
    threads: args.threads,
    llamaPython: args["llama-python"] ?? (args.native ? llamaPython() : undefined),
    contenders: new RegExp(args.contenders),
  };
  const run = {
    date: new Date().toISOString().slice(0, 10),
    machine: { cpu: cpus()[0].model.trim(), cores: cpus().length },
    browser: `Chromium ${browser.version()}`,
    threads: args.threads,
    rounds: args.rounds,
    results: [],
  };
  try {
    for (const task of wanted) {
      console.error(`bench: ${task.name}`);
      run.results.push(await runCase(task, args.rounds, context));
      // After each case, so that a run that is cut short leaves what it has.
      writeResults(run, args.out);
    }
  } finally {
    await browser.close();
    server.close();
  }
  if (args["update-docs"]) updateDocs(run);
  console.log(markdown(run));
  const own = run.results.flatMap((r) => r.contenders).filter((c) => c.work.runner === "bitpane");
  process.exitCode = own.some((c) => c.error?.startsWith("failed")) ? 1 : 0;
}

await main();
