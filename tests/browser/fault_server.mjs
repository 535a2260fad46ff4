/**
 * Answers that are not what they should be: a file from a host that cuts, stalls, truncates, corrupts,
 * mis-declares, redirects, compresses or lies, as a script for each answer says.
 */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

const etags = new WeakMap();

/** A strong ETag of these bytes. */
export function etagOf(bytes) {
  if (!etags.has(bytes)) etags.set(bytes, `"${sha256(bytes).slice(0, 16)}"`);
  return etags.get(bytes);
}

/**
 * An answer for `serve` that gives `body`, and counts what it sends. `script(n, request)` says how answer `n`
 * (from 0) differs from a careful host's:
 *
 * - `status`, `headers`: instead of the file; headers that are null are left out
 * - `etag`: null for none, or another
 * - `ranges`: false for a host that has no parts
 * - `body`: another content
 * - `shift`: sends, and declares, a part that begins so many bytes later
 * - `cut`, `stall`, `truncate`: after so many bytes of this answer breaks off, says nothing more, ends
 * - `length`: what Content-Length says
 * - `flip`: the byte of the file at which a bit is changed
 * - `encoding`: "gzip"
 * - `delay`: milliseconds before the answer
 * - `chunked`: without a Content-Length
 */
export function faulty(body, script = () => ({})) {
  const seen = { answers: 0, bytes: 0, open: 0, requests: [] };
  const answer = (request, response) => {
    const rule = script(seen.answers, request) ?? {};
    seen.answers += 1;
    seen.requests.push({ method: request.method, range: request.headers.range, ifRange: request.headers["if-range"] });
    seen.open += 1;
    response.on("close", () => { seen.open -= 1; });
    const send = () => give(request, response, rule.body ?? body, rule, seen);
    if (rule.delay) setTimeout(send, rule.delay);
    else send();
  };
  return Object.assign(answer, { seen });
}

/** What a part's header asks for, of a file of so many bytes; undefined where it asks for all. */
function wantedPart(request, length, etag) {
  const { range, "if-range": ifRange } = request.headers;
  const found = /^bytes=(\d+)-(\d*)$/.exec(range ?? "");
  if (!found || (ifRange !== undefined && ifRange !== etag)) return undefined;
  const start = Number(found[1]);
  return { start, end: Math.min(found[2] === "" ? length : Number(found[2]) + 1, length) };
}

function give(request, response, body, rule, seen) {
  if (rule.status && rule.status >= 300) {
    response.writeHead(rule.status, rule.headers ?? {}).end(rule.text ?? "no");
    return;
  }
  const etag = rule.etag === undefined ? etagOf(body) : rule.etag;
  let part = rule.ranges === false ? undefined : wantedPart(request, body.length, etag);
  if (part && part.start >= body.length) {
    response.writeHead(416, { "Content-Range": `bytes */${body.length}` }).end();
    return;
  }
  if (part && rule.shift) part = { start: Math.min(part.start + rule.shift, body.length - 1), end: part.end };
  const { start, end } = part ?? { start: 0, end: body.length };
  let bytes = body.subarray(start, end);
  if (rule.flip !== undefined && rule.flip >= start && rule.flip < end) {
    bytes = Buffer.from(bytes);
    bytes[rule.flip - start] ^= 1;
  }
  const headers = { "Content-Length": bytes.length, "Accept-Ranges": rule.ranges === false ? "none" : "bytes" };
  if (etag !== null) headers.ETag = etag;
  if (part) headers["Content-Range"] = `bytes ${start}-${end - 1}/${body.length}`;
  if (rule.encoding === "gzip") {
    bytes = gzipSync(bytes);
    Object.assign(headers, { "Content-Encoding": "gzip", "Content-Length": bytes.length });
  }
  if (rule.length !== undefined) headers["Content-Length"] = rule.length;
  if (rule.chunked) delete headers["Content-Length"];
  for (const [name, value] of Object.entries(rule.headers ?? {})) {
    if (value === null) delete headers[name];
    else headers[name] = value;
  }
  // Lengths that do not hold are what some answers are about.
  response.strictContentLength = false;
  response.writeHead(rule.status ?? (part ? 206 : 200), headers);
  response.flushHeaders();
  if (request.method === "HEAD") response.end();
  else pour(response, bytes, rule, seen);
}

/**
 * Milliseconds between the last byte and the cut. What a browser has not read by then is lost with the connection,
 * and a busy machine needs its time to read: the test is about what follows a cut, not about how quick the machine is.
 */
const CUT_MS = 300;

/** Sends piece by piece, so that what has been sent when something happens is known. */
function pour(response, bytes, rule, seen) {
  const limit = Math.min(rule.cut ?? Infinity, rule.stall ?? Infinity, rule.truncate ?? Infinity, bytes.length);
  let at = 0;
  const step = () => {
    while (at < limit) {
      const piece = bytes.subarray(at, Math.min(at + 65_536, limit));
      at += piece.length;
      seen.bytes += piece.length;
      if (response.destroyed) return;
      const hasRoom = response.write(piece);
      // As a network would: what is on the way when it breaks off is lost.
      if (rule.cut !== undefined) return void setTimeout(step, 2);
      if (!hasRoom) return void response.once("drain", step);
    }
    if (rule.cut !== undefined && limit === rule.cut) setTimeout(() => response.destroy(), CUT_MS);
    else if (rule.stall === undefined || limit !== rule.stall) response.end();
  };
  step();
}
