/**
 * Cross-origin isolation, and with it several threads, on hosts that cannot send its headers (GitHub Pages
 * and the like). Copy this file beside the page and put `<script src="isolation.js"></script>` first into it.
 *
 * In a page it registers itself as a service worker and loads the page once more; as a service worker it
 * adds the headers to pages and to the scripts of workers. Nothing else passes through it.
 */
(() => {
  const HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    // Frames of the same site are part of an isolated page only if they say that they may be.
    "Cross-Origin-Resource-Policy": "same-origin",
  };
  const TRIED = "bitpane-isolation";

  /** What TypeScript knows of service workers only in a library that excludes pages. */
  interface FetchEvent extends Event {
    request: Request;
    respondWith: (response: Promise<Response>) => void;
    waitUntil: (work: Promise<unknown>) => void;
  }

  function isolated(response: Response): Response {
    // Redirections of navigations are for the browser to follow.
    if (response.type === "opaqueredirect" || response.type === "error") return response;
    const headers = new Headers(response.headers);
    for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
    const { status, statusText } = response;
    return new Response(response.body, { status, statusText, headers });
  }

  function serve(): void {
    const scope = globalThis as unknown as {
      skipWaiting: () => Promise<void>;
      clients: { claim: () => Promise<void> };
      addEventListener: (type: string, listener: (event: FetchEvent) => void) => void;
    };
    scope.addEventListener("install", () => void scope.skipWaiting());
    scope.addEventListener("activate", (event) => event.waitUntil(scope.clients.claim()));
    scope.addEventListener("fetch", (event) => {
      const { request } = event;
      const isWorker = request.destination === "worker" || request.destination === "sharedworker";
      if (request.mode === "navigate" || isWorker) event.respondWith(fetch(request).then(isolated));
    });
  }

  async function register(script: string): Promise<void> {
    if (globalThis.crossOriginIsolated) {
      sessionStorage.removeItem(TRIED);
      return;
    }
    const { serviceWorker } = navigator as Partial<Navigator>;
    // A second time would be no better, and would go on for ever.
    if (!serviceWorker || sessionStorage.getItem(TRIED) !== null) return;
    await serviceWorker.register(script);
    await serviceWorker.ready;
    sessionStorage.setItem(TRIED, "1");
    location.reload();
  }

  if (typeof document === "undefined") {
    serve();
  } else {
    const { src } = document.currentScript as HTMLScriptElement;
    // Without storage or service workers (a private window, a sandbox) there is one thread, as before.
    register(src).catch(() => undefined);
  }
})();
