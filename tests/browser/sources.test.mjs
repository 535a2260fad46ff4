/** Sources that are more than one address: `hf:` names, against a hub that stands on this machine, and models in several files. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { faulty, sha256 } from "./fault_server.mjs";
import { randomModel, splitModel } from "./gguf.mjs";
import { SHARED, unlessShared, withPackage } from "./harness.mjs";
import { attempt, cached, lastOf, STORY } from "./loads.mjs";
import { answers, assertGood, server, tab, withStoryPage } from "./story_page.mjs";

withStoryPage();

const json = (value) => (_, response) => response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(value));

let n = 0;

/** A hub with the files of one repository, and what it tells of them. */
function hub(files, { listing, revision = "main", folder = "" } = {}) {
  const root = `/hub-${(n += 1)}`;
  for (const [name, answer] of Object.entries(files)) answers[`${root}/owner/model/resolve/${revision}${folder}/${name}`] = answer;
  if (listing) answers[`${root}/api/models/owner/model/tree/${revision}${folder}`] = listing;
  return `${server.url.slice(0, -1)}${root}`;
}

const lfs = (path, oid) => ({ type: "file", path, lfs: { oid, size: 1, pointerSize: 134 } });

test("hf: a file of the hub, with the hash that its listing tells", async () => {
  const listing = json([{ type: "file", path: "README.md" }, lfs("story.gguf", sha256(STORY))]);
  const address = hub({ "story.gguf": faulty(STORY) }, { listing });
  const result = await attempt(tab.page, "hf:owner/model/story.gguf", { hub: address });
  assertGood(result);
  assert.equal(lastOf(result.events, "verify").sha256, sha256(STORY));
  const [entry] = await cached(tab.page);
  assert.deepEqual([entry.complete, entry.sha256], [true, sha256(STORY)]);
});

test("hf: bytes that are not what the listing tells: IntegrityError with both hashes, nothing is kept", async () => {
  const address = hub({ "story.gguf": faulty(STORY) }, { listing: json([lfs("story.gguf", "0".repeat(64))]) });
  const { error } = await attempt(tab.page, "hf:owner/model/story.gguf", { hub: address });
  assert.equal(error.code, "IntegrityError");
  assert.ok(error.message.includes(sha256(STORY)) && error.message.includes("0".repeat(64)));
  assert.deepEqual(await cached(tab.page), []);
  // A hash that the caller gives goes before the hub's.
  assertGood(await attempt(tab.page, "hf:owner/model/story.gguf", { hub: address, sha256: sha256(STORY) }));
});

test("hf: a revision and a folder; a hub that lists nothing, or nonsense, or tells hashes in a header", async () => {
  const place = { revision: "v1.0", folder: "/q4" };
  const told = faulty(STORY, () => ({ headers: { "X-Linked-ETag": `"${sha256(STORY)}"` } }));
  for (const [listing, answer, isVerified] of [
    [undefined, faulty(STORY), false],
    [json({ error: "no" }), faulty(STORY), false],
    [json([null, 5, { path: 3 }, lfs("q4/story.gguf", "short")]), faulty(STORY), false],
    [(_, response) => response.writeHead(200).end("<html>"), faulty(STORY), false],
    [json([lfs("q4/story.gguf", sha256(STORY))]), faulty(STORY), true],
    [undefined, told, true],
  ]) {
    const address = hub({ "story.gguf": answer }, { ...place, listing });
    const result = await attempt(tab.page, "hf:owner/model@v1.0/q4/story.gguf", { hub: address });
    assertGood(result);
    assert.equal(lastOf(result.events, "verify") !== undefined, isVerified);
  }
  tab.faults.length = 0; // the browser tells in its console of the listings that are not there
});

test("hf: what the header tells is checked, too", async () => {
  const lying = faulty(STORY, () => ({ headers: { "X-Linked-ETag": `"${"1".repeat(64)}"` } }));
  const { error } = await attempt(tab.page, "hf:owner/model/story.gguf", { hub: hub({ "story.gguf": lying }) });
  assert.equal(error.code, "IntegrityError");
});

test("hf: names that are no file of a hub are refused before anything is asked for", async () => {
  const address = hub({});
  const before = server.log.length;
  for (const name of ["hf:", "hf:owner", "hf:owner/model", "hf:owner/model/", "hf:owner/../x/y", "hf:owner/model/../../y", "hf:o w/model/x", "hf:owner/model@/x", "hf:owner/model/a?b", "hf://owner/model/x"]) {
    const { error } = await attempt(tab.page, name, { hub: address });
    assert.deepEqual([error.code, error.key], ["BadArgument", "source"], name);
  }
  assert.deepEqual(server.log.slice(before).filter((path) => path.startsWith("/hub-")), []);
});

const SHAPE = { n_layer: 6 };
const WHOLE = randomModel(SHAPE);
const PARTS = splitModel(3, SHAPE);
const nameOf = (i) => `model-0000${i + 1}-of-00003.gguf`;

/** A folder of shards; `change` gives other answers than their bytes. */
function folderOf(change = {}) {
  const folder = `/split-${(n += 1)}/`;
  const seen = PARTS.map((part, i) => {
    const answer = change[i] ?? faulty(part);
    answers[folder + nameOf(i)] = answer;
    return answer.seen;
  });
  return { folder, seen };
}

/** Greedy tokens of a model, or the error. */
function tokensOf(page, source, options = {}) {
  return withPackage(page, async ({ TextModel }, { source, options }) => {
    const events = [];
    let lm;
    try {
      lm = await TextModel.load(source, { threads: 1, contextLength: 32, download: { retries: 1, retryDelayMs: 5 }, ...options, onProgress: (p) => events.push(p) });
      const tokens = [];
      for await (const { token } of lm.generate([1, 70, 71], { maxTokens: 6, temperature: 0, ignoreEos: true })) tokens.push(token);
      return { tokens, events };
    } catch (error) {
      return { error: shown(error), events };
    } finally {
      await lm?.dispose();
    }
  }, { source, options });
}

async function expected() {
  const path = `/whole-${(n += 1)}.gguf`;
  answers[path] = faulty(WHOLE);
  const { tokens, error } = await tokensOf(tab.page, path, { cache: false });
  assert.equal(error, undefined, JSON.stringify(error));
  return tokens;
}

test("shards: the first one's address brings all, which are kept, and a list does the same", async () => {
  const wanted = await expected();
  const { folder, seen } = folderOf();
  const first = await tokensOf(tab.page, folder + nameOf(0));
  assert.deepEqual(first.tokens, wanted, JSON.stringify(first.error));
  const last = lastOf(first.events, "download");
  assert.deepEqual([last.file, last.files, last.loaded], [3, 3, PARTS.reduce((sum, { length }) => sum + length, 0)]);
  assert.equal((await cached(tab.page)).length, 3);
  const bytes = seen.map((one) => one.bytes);
  const list = await tokensOf(tab.page, PARTS.map((_, i) => folder + nameOf(i)));
  assert.deepEqual(list.tokens, wanted);
  assert.equal(lastOf(list.events, "download").cached, last.loaded);
  assert.deepEqual(seen.map((one) => one.bytes), bytes, "nothing is fetched again");
});

test("shards: from a hub, each with its hash", async () => {
  const wanted = await expected();
  const files = Object.fromEntries(PARTS.map((part, i) => [nameOf(i), faulty(part)]));
  const listing = json(PARTS.map((part, i) => lfs(nameOf(i), sha256(part))));
  const result = await tokensOf(tab.page, `hf:owner/model/${nameOf(0)}`, { hub: hub(files, { listing }) });
  assert.deepEqual(result.tokens, wanted, JSON.stringify(result.error));
  const verified = result.events.filter(({ status }) => status === "verify").map((event) => event.sha256);
  assert.deepEqual(verified, PARTS.map(sha256));
});

test("shards: hashes by name and by place; too few, and none for one file, are refused", async () => {
  const wanted = await expected();
  const { folder } = folderOf();
  const byName = Object.fromEntries(PARTS.map((part, i) => [nameOf(i), sha256(part)]));
  for (const hashes of [byName, PARTS.map(sha256)]) {
    assert.deepEqual((await tokensOf(tab.page, folder + nameOf(0), { sha256: hashes, cache: false })).tokens, wanted);
  }
  const { [nameOf(1)]: _, ...tooFew } = byName;
  for (const hashes of [tooFew, PARTS.slice(1).map(sha256), sha256(PARTS[0])]) {
    assert.equal((await tokensOf(tab.page, folder + nameOf(0), { sha256: hashes })).error.code, "BadArgument");
  }
  const swapped = [PARTS[0], PARTS[2], PARTS[1]].map(sha256);
  const { error } = await tokensOf(tab.page, folder + nameOf(0), { sha256: swapped });
  assert.equal(error.code, "IntegrityError");
  assert.ok(error.url.endsWith(nameOf(1)));
});

test("shards: one that is missing, cut off, of another model, or in the wrong place is named", async () => {
  const other = splitModel(2, SHAPE);
  for (const [what, change, code] of [
    ["missing", { 1: (_, response) => response.writeHead(404).end() }, "HttpStatus"],
    ["cut off", { 1: faulty(PARTS[1].subarray(0, 900_000)) }, "Truncated"],
    ["of another split", { 1: faulty(other[1]) }, "ShardMismatch"],
    ["in the place of another", { 1: faulty(PARTS[2]), 2: faulty(PARTS[1]) }, "ShardMismatch"],
  ]) {
    const { folder } = folderOf(change);
    const { error } = await tokensOf(tab.page, folder + nameOf(0));
    assert.equal(error?.code, code, what);
    assert.ok(error.url?.endsWith(nameOf(1)), `${what}: ${JSON.stringify(error)}`);
  }
  tab.faults.length = 0;
});

test("shards: files that were picked, in any order", async () => {
  const wanted = await expected();
  const { folder } = folderOf();
  const tokens = await withPackage(tab.page, async ({ TextModel }, { folder, names }) => {
    const files = await Promise.all(names.map(async (name) => new File([await (await fetch(folder + name)).blob()], name)));
    const lm = await TextModel.load(files, { threads: 1, contextLength: 32 });
    const tokens = [];
    for await (const { token } of lm.generate([1, 70, 71], { maxTokens: 6, temperature: 0, ignoreEos: true })) tokens.push(token);
    await lm.dispose();
    return tokens;
  }, { folder, names: [2, 0, 1].map(nameOf) });
  assert.deepEqual(tokens, wanted);
});

test("shards: a download that breaks off in the second file goes on there", async () => {
  const wanted = await expected();
  let isWell = false;
  const cut = faulty(PARTS[1], (i) => (isWell ? {} : i === 0 ? { cut: 1_500_000 } : { cut: 0 }));
  const { folder, seen } = folderOf({ 1: cut });
  const { error } = await tokensOf(tab.page, folder + nameOf(0));
  assert.equal(error.code, "Truncated");
  isWell = true;
  seen.forEach((one) => { one.bytes = 0; });
  const again = await tokensOf(tab.page, folder + nameOf(0));
  assert.deepEqual(again.tokens, wanted, JSON.stringify(again.error));
  assert.equal(seen[0].bytes, 0);
  assert.ok(seen[1].bytes <= PARTS[1].length - (1 << 20), `${seen[1].bytes} bytes more`);
});

/** The address of a text. */
function textAt(text) {
  const path = `/manifest-${(n += 1)}`;
  answers[path] = (_, response) => response.writeHead(200, { "Content-Type": "text/plain" }).end(text);
  return path;
}

test("manifest: as sha256sum prints it, and as JSON, for one file and for shards", async () => {
  const wanted = await expected();
  const lines = PARTS.map((part, i) => `${sha256(part)}  ${i === 1 ? "*./q8/" : ""}${nameOf(i)}`.replace("  *", " *"));
  const object = JSON.stringify(Object.fromEntries(PARTS.map((part, i) => [nameOf(i), sha256(part).toUpperCase()])));
  for (const text of [`# hashes\n${lines.join("\r\n")}\n`, object]) {
    const { folder } = folderOf();
    const result = await tokensOf(tab.page, folder + nameOf(0), { manifest: textAt(text), cache: false });
    assert.deepEqual(result.tokens, wanted, JSON.stringify(result.error));
    assert.equal(result.events.filter(({ status }) => status === "verify").length, 3);
  }
});

test("manifest: another hash, a file that it does not name, a list that is none, and none at all: refused", async () => {
  const { folder } = folderOf();
  const list = (hashes) => hashes.map((hash, i) => `${hash}  ${nameOf(i)}`).join("\n");
  const right = PARTS.map(sha256);
  for (const [manifest, code, key] of [
    [textAt(list([right[0], right[2], right[1]])), "IntegrityError", "sha256"],
    [textAt(list(right.slice(0, 2))), "IntegrityError", "manifest"],
    [textAt(list(["", right[1], right[2]])), "BadValue", "manifest"],
    [textAt(`${list(right)}\n${list(right)}`), "BadValue", "manifest"],
    [textAt("<!doctype html><title>Sign in</title>"), "BadValue", "manifest"],
    [textAt("{\"a\": "), "BadValue", "manifest"],
    [textAt(JSON.stringify({ [nameOf(0)]: 5 })), "BadValue", "manifest"],
    [textAt("a".repeat(2 << 20)), "LimitExceeded", undefined],
    [`/manifest-${(n += 1)}`, "HttpStatus", undefined],
  ]) {
    const { error } = await tokensOf(tab.page, folder + nameOf(0), { manifest });
    assert.deepEqual([error?.code, error?.key], [code, key]);
  }
  assert.equal((await tokensOf(tab.page, folder + nameOf(0), { manifest: "/m", sha256: right })).error.code, "BadArgument");
  assert.deepEqual((await cached(tab.page)).filter(({ complete, url }) => complete && !url.endsWith(nameOf(0))), []);
  tab.faults.length = 0;
});

const DEIT = "data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors";

/** A safetensors file in two, with an index. */
function splitSafetensors(file) {
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__, ...tensors } = JSON.parse(file.subarray(8, 8 + length));
  const names = Object.keys(tensors).sort((a, b) => tensors[a].data_offsets[0] - tensors[b].data_offsets[0]);
  const halves = [names.slice(0, names.length / 2), names.slice(names.length / 2)];
  const weight_map = {};
  const files = halves.map((half, i) => {
    let at = 0;
    const header = {};
    const data = half.map((name) => {
      const { data_offsets: [start, end], ...rest } = tensors[name];
      header[name] = { ...rest, data_offsets: [at, (at += end - start)] };
      weight_map[name] = `model-0000${i + 1}-of-00002.safetensors`;
      return file.subarray(8 + length + start, 8 + length + end);
    });
    const text = Buffer.from(JSON.stringify(header));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    return Buffer.concat([size, text, ...data]);
  });
  return { files, index: { metadata: { total_size: file.length }, weight_map } };
}

test("shards: safetensors by their index, from a hub and by address", { skip: unlessShared(DEIT) }, async () => {
  const whole = readFileSync(`${SHARED}/${DEIT}`);
  const { files, index } = splitSafetensors(whole);
  const shards = Object.fromEntries(files.map((file, i) => [`model-0000${i + 1}-of-00002.safetensors`, faulty(file)]));
  const address = hub({ ...shards, "model.safetensors.index.json": json(index) });
  const likeliest = (source, options) => withPackage(tab.page, async ({ VisionModel }, { source, options }) => {
    const model = await VisionModel.load(source, { threads: 1, ...options });
    const data = Uint8Array.from({ length: 64 * 64 * 4 }, (_, i) => (i * 37) % 251);
    const found = await model.classify({ data, width: 64, height: 64 }, { topK: 5 });
    await model.dispose();
    return found.map(({ index, score }) => [index, score]);
  }, { source, options });
  const wanted = await likeliest(`/shared/${DEIT}`, { cache: false });
  assert.equal(wanted.length, 5);
  assert.deepEqual(await likeliest("hf:owner/model/model.safetensors.index.json", { hub: address }), wanted);
  assert.deepEqual(await likeliest(`${address}/owner/model/resolve/main/model.safetensors.index.json`, { cache: false }), wanted);
});
