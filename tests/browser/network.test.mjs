/** Group N of the fault catalogue: networks and servers that fail. Each row of it is named. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { faulty, etagOf, sha256 } from "./fault_server.mjs";
import { attempt, cached, emptied, lastOf, STORY } from "./loads.mjs";
import { changed, withPackage } from "./harness.mjs";
import { assertGood, at, browser, elsewhere, run, server, tab, withStoryPage } from "./story_page.mjs";

withStoryPage();

for (const status of [404, 403, 401, 410]) {
  test(`N01 status ${status}: one request, HttpStatus`, async () => {
    const answer = faulty(STORY, () => ({ status }));
    const { error } = await run(answer);
    assert.deepEqual([error.code, error.status], ["HttpStatus", status]);
    assert.equal(answer.seen.answers, 1);
    assert.deepEqual(await cached(tab.page), []);
  });
}

for (const status of [429, 500, 502, 503, 504]) {
  test(`N01 status ${status} twice, then the file: it loads`, async () => {
    const answer = faulty(STORY, (i) => (i < 2 ? { status } : {}));
    const result = await run(answer);
    assertGood(result);
    const retries = result.events.filter((event) => event.status === "retry");
    assert.deepEqual(retries.map(({ attempt, attempts }) => [attempt, attempts]), [[1, 5], [2, 5]]);
    assert.match(retries[0].reason, new RegExp(String(status)));
  });
}

test("N01 status 503 for ever: HttpStatus after five further attempts", async () => {
  const answer = faulty(STORY, () => ({ status: 503 }));
  const { error } = await run(answer);
  assert.deepEqual([error.code, error.status], ["HttpStatus", 503]);
  assert.equal(answer.seen.answers, 6);
});

test("N01 Retry-After is honoured, and refused where it is too long", async () => {
  const soon = await run(faulty(STORY, (i) => (i < 1 ? { status: 429, headers: { "Retry-After": "1" } } : {})));
  assertGood(soon);
  assert.ok(soon.ms >= 1000, `${soon.ms} ms`);
  const late = faulty(STORY, () => ({ status: 429, headers: { "Retry-After": "3600" } }));
  assert.equal((await run(late)).error.status, 429);
  assert.equal(late.seen.answers, 1);
});

test("N02 no answer: one NetworkError with the likely causes", async () => {
  const { error } = await run((request) => request.socket.destroy());
  assert.equal(error.code, "NetworkError");
  for (const cause of ["no connection", "CORS", "Content-Security-Policy", "https:"]) assert.ok(error.message.includes(cause), cause);
});

test("N02 blocked by the page's own policy: NetworkError", async () => {
  const { error } = await attempt(tab.page, "http://127.0.0.1:9/model.gguf");
  assert.equal(error.code, "NetworkError");
  tab.faults.length = 0;
});

for (const [what, body, word] of [
  ["an HTML page", "<!doctype html><title>Sign in</title>", /HTML/],
  ["a pointer of git-lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", /LFS/],
  ["JSON", '{"error":"gated"}', /JSON/],
]) {
  test(`N03 ${what} instead of the file: BadMagic, not cached`, async () => {
    const { error } = await run(faulty(Buffer.from(body)));
    assert.equal(error.code, "BadMagic");
    assert.match(error.message, word);
    assert.deepEqual(await cached(tab.page), []);
  });
}

test("N04 cut again and again: goes on where it was, with at most 1.15 times the bytes", async () => {
  const answer = faulty(STORY, (i) => ({ cut: 300_000 + 50_000 * i }));
  const result = await run(answer);
  assertGood(result);
  assert.ok(answer.seen.answers >= 4);
  assert.ok(answer.seen.bytes <= 1.15 * STORY.length, `${answer.seen.bytes} of ${STORY.length}`);
  assert.ok(answer.seen.requests.slice(1).every(({ ifRange }) => ifRange === etagOf(STORY)));
});

test("N04 cut for ever: Truncated, and the next load goes on with what is kept", async () => {
  let isWell = false;
  const answer = faulty(STORY, (i) => (isWell ? {} : i === 0 ? { cut: 1_500_000 } : { cut: 0 }));
  const path = at(answer);
  const { error } = await attempt(tab.page, path);
  assert.equal(error.code, "Truncated");
  const [entry] = await cached(tab.page);
  assert.equal(entry.complete, false);
  assert.ok(entry.bytes >= 1 << 20, `${entry.bytes} bytes are kept`);
  isWell = true;
  answer.seen.bytes = 0;
  const again = await attempt(tab.page, path);
  assertGood(again);
  assert.ok(lastOf(again.events, "download").cached >= 1 << 20);
  assert.ok(answer.seen.bytes <= STORY.length - (1 << 20), `${answer.seen.bytes} bytes more`);
});

test("N04 a stall: another attempt goes on; a stall for ever: Stalled", async () => {
  const once = faulty(STORY, (i) => (i === 0 ? { stall: 500_000 } : {}));
  assertGood(await run(once));
  assert.ok(once.seen.bytes <= 1.15 * STORY.length);
  const { error } = await run(faulty(STORY, () => ({ stall: 0 })), { download: { retries: 1 } });
  assert.equal(error.code, "Stalled");
});

test("N04 a file without its end: Truncated, not cached", async () => {
  for (const length of [STORY.length - 100, 600, 10]) {
    const { error } = await run(faulty(STORY.subarray(0, length)));
    assert.equal(error.code, "Truncated", `${length} bytes`);
    assert.deepEqual(await cached(tab.page), []);
  }
});

for (const ranges of [true, false]) {
  const host = ranges ? "a host with parts" : "a host without parts";
  for (const [what, rule] of [
    ["missing", { chunked: true }],
    ["too large", { length: STORY.length + 1000 }],
    ["of a chunked answer without a length or a version", { chunked: true, etag: null }],
  ]) {
    test(`N05 Content-Length ${what}, ${host}: it loads`, async () => {
      const result = await run(faulty(STORY, () => ({ ranges, ...rule })));
      assertGood(result, what);
      assert.ok(result.events.every(({ total, loaded }) => total === undefined || total >= loaded));
    });
  }
}

test("N05 Content-Length too small: parts still bring the whole file; 0: Truncated or NetworkError", async () => {
  assertGood(await run(faulty(STORY, () => ({ length: 700_000 }))));
  // The bytes that follow an empty answer spoil its connection, which the next request may be given.
  const { error } = await run(faulty(STORY, () => ({ length: 0 })), { download: { retries: 2 } });
  assert.ok(["Truncated", "NetworkError"].includes(error.code), error.code);
});

test("N06 compressed answers: the decoded bytes count, and progress stays below 100 %", async () => {
  for (const ranges of [true, false]) {
    const result = await run(faulty(STORY, () => ({ ranges, encoding: "gzip" })));
    assertGood(result);
    const downloads = result.events.filter(({ status }) => status === "download");
    assert.ok(downloads.every(({ total, loaded }) => total === undefined || total >= loaded));
    assert.equal(downloads.at(-1).loaded, STORY.length);
  }
});

const other = Buffer.from(STORY);
other[other.length - 1000] ^= 0x10;
for (const [what, rule] of [
  ["206, right", {}],
  ["206 of another place", { shift: 1000 }],
  ["200 with all of it", { ranges: false }],
  ["200 with a Content-Range", { ranges: false, headers: { "Content-Range": "bytes 5-9/10" } }],
  ["416", { status: 416 }],
  ["another ETag", { etag: '"other"' }],
  ["another content under another ETag", { body: other }],
  ["a weak ETag", { etag: 'W/"weak"' }],
  ["no ETag", { etag: null }],
  ["several parts in one", { headers: { "Content-Type": "multipart/byteranges; boundary=x" } }],
  ["206 without a Content-Range", { headers: { "Content-Range": null } }],
]) {
  test(`N07 after a cut the server answers ${what}: the right bytes or a new start`, async () => {
    // From the second answer on the server is another; after the third it is as it should be, with what it has.
    const body = rule.body ?? STORY;
    const answer = faulty(STORY, (i) => (i === 0 ? { cut: 1_200_000 } : i < 3 ? rule : { body }));
    const result = await run(answer, { sha256: sha256(body) });
    if (body === STORY) assertGood(result, what);
    else assert.equal(result.error, undefined, JSON.stringify(result.error));
    const [entry] = await cached(tab.page);
    assert.deepEqual([entry.complete, entry.sha256, entry.bytes], [true, sha256(body), body.length]);
  });
}

test("N08 redirections: followed; without end: NetworkError; a signed address that expires is asked for anew", async () => {
  const final = at(faulty(STORY));
  const hop = at((_, response) => response.writeHead(302, { Location: final }).end());
  assertGood(await attempt(tab.page, at((_, response) => response.writeHead(307, { Location: hop }).end())));
  const loop = at((request, response) => response.writeHead(302, { Location: request.url }).end());
  assert.equal((await attempt(tab.page, loop, { download: { retries: 1 } })).error.code, "NetworkError");

  const signed = faulty(STORY, (i, request) => (request.url.endsWith("=1") ? { cut: 900_000 } : {}));
  let signature = 0;
  const expiring = at((request, response) => {
    const url = new URL(request.url, "http://localhost");
    const given = Number(url.searchParams.get("signature"));
    if (given === 0) response.writeHead(302, { Location: `${url.pathname}?signature=${(signature += 1)}` }).end();
    else if (given < signature) response.writeHead(403).end();
    else signed(request, response);
  });
  assertGood(await attempt(tab.page, expiring, { download: { connections: 1 } }));
  assert.ok(signature >= 2);
});

test("N09 one bit that is wrong: IntegrityError names both hashes, nothing is kept; then the right file loads", async () => {
  for (const ranges of [true, false]) {
    let isWell = false;
    const path = at(faulty(STORY, () => (isWell ? { ranges } : { ranges, flip: STORY.length - 5000 })));
    const { error } = await attempt(tab.page, path, { sha256: sha256(STORY) });
    assert.equal(error.code, "IntegrityError");
    assert.ok(error.message.includes(sha256(STORY)) && error.message.match(/[0-9a-f]{64}/g).length === 2, error.message);
    assert.deepEqual(await cached(tab.page), []);
    isWell = true;
    const result = await attempt(tab.page, path, { sha256: sha256(STORY) });
    await emptied(tab.page);
    assertGood(result);
    assert.equal(lastOf(result.events, "verify").sha256, sha256(STORY));
  }
});

test("N09 an empty hash, a hash of another file, a missing one: refused, never no check", async () => {
  const path = at(faulty(STORY));
  for (const hash of ["", [], {}, { "other.gguf": sha256(STORY) }, [sha256(STORY), sha256(STORY)]]) {
    assert.equal((await attempt(tab.page, path, { sha256: hash })).error.code, "BadArgument", JSON.stringify(hash));
  }
  assert.equal((await attempt(tab.page, path, { sha256: "0".repeat(64) })).error.code, "IntegrityError");
  assertGood(await attempt(tab.page, path, { sha256: { "model.gguf": sha256(STORY) } }));
  assertGood(await attempt(tab.page, path, { sha256: [sha256(STORY)] }));
});

for (const [what, rule, after] of [
  ["before an answer", { delay: 60_000 }, 30],
  ["at 1 %", { stall: Math.floor(STORY.length / 100) }, 60],
  // In one answer: of two at once neither is as long.
  ["at 99 %", { ranges: false, stall: Math.floor(STORY.length * 0.99) }, 120],
]) {
  test(`N10 aborted ${what}: AbortError within 100 ms, the socket is closed, the next load works`, async () => {
    let isAborted = false;
    const answer = faulty(STORY, () => (isAborted ? {} : rule));
    const path = at(answer);
    const result = await withPackage(tab.page, async ({ TextModel }, { path, after }) => {
      const abort = new AbortController();
      const loading = TextModel.load(path, { signal: abort.signal, threads: 1 }).then(() => "loaded", shown);
      await new Promise((resolve) => setTimeout(resolve, 150 + after));
      const start = performance.now();
      abort.abort();
      abort.abort();
      const error = await loading;
      return { error, ms: performance.now() - start };
    }, { path, after });
    assert.equal(result.error.name, "AbortError");
    assert.ok(result.ms < 100, `${result.ms} ms`);
    for (let i = 0; i < 20 && answer.seen.open > 0; i += 1) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(answer.seen.open, 0, "open connections");
    isAborted = true;
    assertGood(await attempt(tab.page, path));
  });
}

test("N10 aborted after the last byte: the model stays; aborted before: nothing is asked for", async () => {
  const answer = faulty(STORY);
  const path = at(answer);
  const result = await withPackage(tab.page, async ({ TextModel }, path) => {
    const abort = new AbortController();
    const lm = await TextModel.load(path, { signal: abort.signal, threads: 1 });
    abort.abort();
    const tokens = await lm.tokenize("Once");
    await lm.dispose();
    const before = await TextModel.load(path, { signal: AbortSignal.abort() }).then(() => "loaded", shown);
    return { tokens, before };
  }, path);
  assert.ok(result.tokens.length > 0);
  assert.equal(result.before.name, "AbortError");
});

test("N11 the page is closed in the middle: the next load goes on with what is kept", async () => {
  let isWell = false;
  const answer = faulty(STORY, () => (isWell ? {} : { stall: 1_500_000 }));
  const path = at(answer);
  const context = await browser.newContext();
  const first = await context.newPage();
  await first.goto(`${server.url}blank.html`);
  const seen = first.evaluate(async (path) => {
    const { TextModel } = await import("/pkg/index.js");
    return new Promise((resolve) => {
      TextModel.load(path, { threads: 1, onProgress: (p) => { if (p.loaded > 1_300_000) setTimeout(resolve, 1500, p.loaded); } });
    });
  }, path);
  assert.ok((await seen) > 1_300_000);
  await first.close();
  isWell = true;
  answer.seen.bytes = 0;
  const second = await context.newPage();
  await second.goto(`${server.url}blank.html`);
  const again = await attempt(second, path);
  assertGood(again);
  assert.ok(answer.seen.bytes < STORY.length, `${answer.seen.bytes} bytes more`);
  await context.close();
});

test("N12 two loads of one address at once: one download; two addresses: both", async () => {
  const one = faulty(STORY, () => ({ delay: 50 }));
  const path = at(one);
  const [a, b] = await Promise.all([attempt(tab.page, path), attempt(tab.page, path)]);
  assertGood(a);
  assertGood(b);
  assert.ok(one.seen.bytes <= 1.1 * STORY.length, `${one.seen.bytes} bytes`);
  assert.ok([a, b].some(({ events }) => lastOf(events, "wait")), "one of them waits and says so");
  for (const { events } of [a, b]) assert.equal(lastOf(events, "download").loaded, STORY.length);
  const [c, d] = await Promise.all([run(faulty(STORY)), run(faulty(STORY))]);
  assertGood(c);
  assertGood(d);
});

test("N13 a listener that throws: the load goes on, its error is shown once", async () => {
  const result = await withPackage(tab.page, async ({ TextModel }, path) => {
    const reported = [];
    const onError = (event) => { reported.push(event.message); event.preventDefault(); };
    addEventListener("error", onError);
    let calls = 0;
    const lm = await TextModel.load(path, { threads: 1, onProgress: () => { calls += 1; throw new Error("listener"); } });
    await lm.dispose();
    removeEventListener("error", onError);
    return { reported, calls };
  }, at(faulty(STORY)));
  assert.equal(result.calls, 1);
  assert.equal(result.reported.length, 1);
  assert.match(result.reported[0], /listener/);
  tab.faults.length = 0;
});

test("N14 a fetch that is replaced, or whose answers cannot be read: a typed error", async () => {
  const path = at(faulty(STORY));
  for (const [replacement, code] of [
    ["undefined", "NetworkError"],
    ["() => Promise.reject(new TypeError('no'))", "NetworkError"],
    ["() => Promise.resolve(Response.error())", "HttpStatus"],
    ["() => Promise.resolve(Object.defineProperty(new Response(''), 'type', { value: 'opaque' }))", "NetworkError"],
  ]) {
    const patch = { "/pkg/request.js": changed("request.js", /^/, `const fetch = ${replacement};\n`) };
    const { error } = await elsewhere((page) => attempt(page, path, { download: { retries: 0 } }), { patch });
    assert.equal(error?.code, code, replacement);
  }
});
