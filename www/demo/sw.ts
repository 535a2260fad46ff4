/**
 * The service worker: the page as it was built, for when there is no network. It answers with its own
 * files only, all of one build; models from elsewhere and every other request go their way.
 *
 * The build puts the list of files, and a digest of what is in them, in the place of `BUILT`: another
 * build is another worker, which fills a cache of its own before it takes over.
 */

/** What of the worker's scope is used here; TypeScript's own types for it exclude those of pages. */
interface Scope {
  registration: { scope: string };
  clients: { claim: () => Promise<void> };
  skipWaiting: () => Promise<void>;
  addEventListener: <E>(type: string, listener: (event: E) => void) => void;
}
interface Extendable {
  waitUntil: (work: Promise<unknown>) => void;
}
type Fetch = Extendable & { request: Request; respondWith: (answer: Promise<Response>) => void };

const scope = self as unknown as Scope;
const BUILT = JSON.parse('{"digest":"","files":[],"builds":{}}') as {
  digest: string;
  /** Files of the page and of the package, but those of the builds. */
  files: string[];
  /** The files of each build of the runtime, of which a browser needs one. */
  builds: Record<string, string[]>;
};
const PREFIX = "bitpane-page-";
const CACHE = PREFIX + BUILT.digest;
const known = new Set([...BUILT.files, ...Object.values(BUILT.builds).flat()].map((file) => new URL(file, scope.registration.scope).href));

async function fill(files: readonly string[]): Promise<void> {
  const cache = await caches.open(CACHE);
  const missing: string[] = [];
  for (const file of files) {
    if (!(await cache.match(new URL(file, scope.registration.scope).href))) missing.push(file);
  }
  // Asked of the server again, should it not have changed: the HTTP cache may hold another build's.
  await cache.addAll(missing.map((file) => new Request(new URL(file, scope.registration.scope).href, { cache: "no-cache" })));
}

async function answer(request: Request, key: string): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(key);
  if (kept) return kept;
  const fresh = await fetch(request);
  // A part of a file, or a failure, is not the file.
  if (fresh.status === 200) await cache.put(key, fresh.clone());
  return fresh;
}

scope.addEventListener<Extendable>("install", (event) => {
  event.waitUntil(fill(BUILT.files).then(() => scope.skipWaiting()));
});

scope.addEventListener<Extendable>("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
    }
    await scope.clients.claim();
  })());
});

scope.addEventListener<Extendable & { data: unknown }>("message", (event) => {
  const { keep } = (event.data ?? {}) as { keep?: unknown };
  const files = typeof keep === "string" && Object.hasOwn(BUILT.builds, keep) ? BUILT.builds[keep] : undefined;
  if (files) event.waitUntil(fill(files));
});

scope.addEventListener<Fetch>("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || request.headers.has("range")) return;
  const url = new URL(request.url);
  url.search = "";
  url.hash = "";
  if (url.href === scope.registration.scope) url.pathname += "index.html";
  if (known.has(url.href)) event.respondWith(answer(request, url.href));
});
