/**
 * Downloads of a 20 MB model with random faults, one after the other: none may hang, take wrong bytes, spoil
 * the cache or the engine. `RANDOM_FAULTS=1000 node --test tests/browser/random_faults.test.mjs` does more, and
 * `RANDOM_FAULTS_FROM=N` begins with run N: a failure names its run, and many runs can be made in portions.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { faulty, sha256 } from "./fault_server.mjs";
import { random, randomModel } from "./gguf.mjs";
import { launch, openPage, serve, withPackage } from "./harness.mjs";

const RUNS = Number(process.env.RANDOM_FAULTS ?? 30);
const FIRST = Number(process.env.RANDOM_FAULTS_FROM ?? 1);
/** Pages that load at the same time. */
const LANES = Number(process.env.RANDOM_LANES ?? 4);
/** No load with its faults may take longer, by far. */
const HANG_MS = 120_000;
/**
 * How long a wait for bytes may last: where an answer falls silent, and where none does and only a busy machine
 * keeps bytes back, which must not be taken for a fault.
 */
const STALL_MS = { silent: 4000, talking: 60_000 };
/** Faults after which a connection stays open without a further byte. */
const SILENT = new Set(["stall", "truncate", "length"]);
/** Bytes fetched over bytes of the file, where the faults are cuts. */
const CUT_BYTES = 1.15;

const MODEL = randomModel();
const HASH = sha256(MODEL);
const other = Buffer.from(MODEL);
other[other.length - 4096] ^= 0x20;

/** What can be wrong with an answer, by the random numbers `next`. */
const FAULTS = {
  cut: (next) => ({ cut: Math.floor(next() * 6e6) }),
  stall: (next) => ({ stall: Math.floor(next() * 6e6) }),
  truncate: (next) => ({ truncate: Math.floor(next() * 4e6) }),
  flip: (next) => ({ flip: Math.floor(next() * MODEL.length) }),
  status: (next) => ({ status: [404, 403, 429, 500, 502, 503][Math.floor(next() * 6)] }),
  length: (next) => ({ length: Math.floor(next() * 2 * MODEL.length) }),
  shift: (next) => ({ shift: 1 + Math.floor(next() * 5000) }),
  etag: (next) => ({ etag: [null, '"other"', 'W/"weak"'][Math.floor(next() * 3)] }),
  ranges: () => ({ ranges: false }),
  chunked: () => ({ chunked: true, ranges: false }),
  gzip: () => ({ encoding: "gzip", ranges: false }),
  delay: (next) => ({ delay: Math.floor(next() * 300) }),
  other: () => ({ body: "other" }),
  page: () => ({ body: "page", etag: null }),
  noRange: () => ({ headers: { "Content-Range": null } }),
};
const KINDS = Object.keys(FAULTS);
const BODIES = { other, page: Buffer.from("<!doctype html><title>Sign in</title>") };

/** The answers of run `seed`: faulty ones first, good ones from some number on. */
function scriptOf(seed) {
  const next = random(seed);
  for (let i = 0; i < 8; i += 1) next();
  const cutsOnly = next() < 0.3;
  const n = 1 + Math.floor(next() * 5);
  const rules = Array.from({ length: n }, () => {
    const kind = cutsOnly ? "cut" : KINDS[Math.floor(next() * KINDS.length)];
    return { kind, ...FAULTS[kind](next) };
  });
  return { cutsOnly, rules, withHash: next() < 0.5, abortAfter: !cutsOnly && next() < 0.1 ? Math.floor(next() * 800) : null };
}

let servers;
let browser;
let lanes;
let good;
const answers = {};

before(async () => {
  browser = await launch();
  // A host each: browsers have six connections to one, and a request that waits for one looks like a stall.
  servers = await Promise.all(Array.from({ length: LANES }, () => serve(answers)));
  lanes = await Promise.all(servers.map(({ url }) => openPage(browser, `${url}blank.html`)));
  answers["/good.gguf"] = faulty(MODEL);
  good = await load(lanes[0].page, "/good.gguf", { stallMs: STALL_MS.talking });
  assert.equal(typeof good, "string", JSON.stringify(good));
});
after(async () => {
  await browser?.close();
  await Promise.all(servers?.map((server) => server.close()) ?? []);
});

/** Greedy tokens of the model at an address, or the error. */
function load(page, path, options) {
  return withPackage(page, async ({ TextModel }, { path, options: { abortAfter, stallMs, ...options } }) => {
    const abort = new AbortController();
    if (typeof abortAfter === "number") setTimeout(() => abort.abort(), abortAfter);
    const download = { retryDelayMs: 5, stallMs };
    let lm;
    try {
      lm = await TextModel.load(path, { threads: 1, contextLength: 32, download, signal: abort.signal, ...options });
      const tokens = [];
      for await (const { token } of lm.generate([1, 70, 71], { maxTokens: 3, temperature: 0, ignoreEos: true })) tokens.push(token);
      return tokens.join();
    } catch (error) {
      return { code: error.name === "AbortError" ? error.name : error.code ?? error.name, message: error.message };
    } finally {
      await lm?.dispose();
    }
  }, { path, options });
}

function orHang(promise, what) {
  let timer;
  const hang = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`${what} hangs`)), HANG_MS); });
  return Promise.race([promise, hang]).finally(() => clearTimeout(timer));
}

/** What the cache holds of an address: its hash where it claims to be complete. */
function kept(page, path) {
  return withPackage(page, async ({ cache }, path) => {
    const url = new URL(path, location.href).href;
    const entry = (await cache.list()).find((entry) => entry.url === url);
    if (!entry?.complete) return null;
    const digest = await crypto.subtle.digest("SHA-256", await (await cache.export(url)).arrayBuffer());
    return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }, path);
}

/** One run; what came of it, and the bytes that it took. */
async function one(page, seed) {
  const { cutsOnly, rules, withHash, abortAfter } = scriptOf(seed);
  const path = `/random/${seed}.gguf`;
  const what = `run ${seed}: ${JSON.stringify({ rules, withHash, abortAfter })}`;
  const ruleOf = ({ body, ...rule } = {}) => (body === undefined ? rule : { ...rule, body: BODIES[body] });
  const answer = faulty(MODEL, (i, request) => (request.method === "HEAD" ? {} : ruleOf(rules[i])));
  answers[path] = answer;
  const stallMs = rules.some(({ kind }) => SILENT.has(kind)) ? STALL_MS.silent : STALL_MS.talking;
  const result = await orHang(load(page, path, { abortAfter, stallMs, ...(withHash && { sha256: HASH }) }), what);
  const bytes = answer.seen.bytes / MODEL.length;
  // Nothing but a hash tells a bit that flips under way; with one, only the right bytes count.
  const canTell = withHash || !rules.some(({ kind }) => kind === "flip" || kind === "other");
  if (typeof result !== "string") {
    assert.ok(!["Error", "TypeError", undefined].includes(result.code), `${what} ${JSON.stringify(result)}`);
  } else if (canTell) {
    assert.equal(result, good, what);
  }
  if (cutsOnly) {
    assert.equal(result, good, `${what} ${JSON.stringify(result)}`);
    assert.ok(bytes <= CUT_BYTES, `${what}: ${bytes} times the file`);
  }
  const hash = await kept(page, path);
  if (canTell) assert.ok(hash === null || hash === HASH, `${what}: the cache holds something else`);
  // All is well now: the same address gives the model, whatever is left of the attempt before.
  rules.length = 0;
  assert.equal(await orHang(load(page, path, { sha256: HASH, stallMs: STALL_MS.talking }), what), good, `${what}: afterwards`);
  delete answers[path];
  await withPackage(page, ({ cache }, path) => cache.delete(path), path);
  return { outcome: typeof result === "string" ? "loaded" : result.code, cutsOnly, bytes };
}

test(`${RUNS} downloads of ${(MODEL.length / 1e6).toFixed(1)} MB with random faults`, { timeout: RUNS * HANG_MS }, async (t) => {
  const outcomes = {};
  const failures = [];
  let [cutRuns, most, seed, done] = [0, 0, FIRST, 0];
  await Promise.all(lanes.map(async (lane, i) => {
    while (seed < FIRST + RUNS) {
      try {
        const { outcome, cutsOnly, bytes } = await one(lane.page, seed++);
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        if (cutsOnly) [cutRuns, most] = [cutRuns + 1, Math.max(most, bytes)];
      } catch (error) {
        failures.push(error.message);
        console.error(error.message);
        // What the page is left with must not be what the next run fails for.
        await lane.close();
        lane = await openPage(browser, `${servers[i].url}blank.html`);
      }
      done += 1;
      if (process.env.RANDOM_FAULTS && done % 50 === 0) {
        console.error(`${done} runs: ${JSON.stringify(outcomes)}; ${failures.length} failed; ${cutRuns} of cuts only, at most ${most.toFixed(3)} times the file`);
      }
    }
  }));
  t.diagnostic(`runs ${FIRST} to ${FIRST + RUNS - 1}: ${JSON.stringify(outcomes)}`);
  t.diagnostic(`${cutRuns} runs of cuts only: at most ${most.toFixed(3)} times the file`);
  assert.deepEqual(failures, []);
});
