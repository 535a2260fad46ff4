// A static server on localhost with the headers that give a page threads and exact clocks.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { BUILD, HERE, MODELS, ROOT } from "./files.mjs";

const MOUNTS = {
  contenders: join(HERE, "contenders"),
  npm: join(HERE, "node_modules"),
  build: BUILD,
  models: MODELS,
  pkg: join(ROOT, "pkg"),
};
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
  ".json": "application/json",
};
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cache-Control": "no-store",
};

/** The file behind a path such as `/npm/x/y.js`, or undefined. */
function resolve(url) {
  const [, mount, ...rest] = decodeURIComponent(new URL(url, "http://x").pathname).split("/");
  const root = Object.hasOwn(MOUNTS, mount) ? MOUNTS[mount] : undefined;
  const path = root && normalize(join(root, ...rest));
  return path?.startsWith(root + sep) ? path : undefined;
}

/** Starts the server on a free port and gives `{ origin, close }`. */
export async function serve() {
  const server = createServer((request, response) => {
    const path = resolve(request.url);
    const stat = path && statSync(path, { throwIfNoEntry: false });
    if (!stat?.isFile()) return response.writeHead(404, HEADERS).end();
    const type = TYPES[extname(path)] ?? "application/octet-stream";
    response.writeHead(200, { ...HEADERS, "Content-Type": type, "Content-Length": stat.size });
    createReadStream(path).pipe(response);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { origin: `http://localhost:${server.address().port}`, close: () => server.close() };
}
