/**
 * Keeps the page for when there is no network, once it has been used. Whoever only looks at it is
 * left with nothing on disk.
 */
import { bitpane } from "./package.js";

let asked = false;

/** Starts the service worker and tells it which build of the runtime to keep. */
export async function keepPage(): Promise<void> {
  if (asked || !("serviceWorker" in navigator)) return;
  asked = true;
  try {
    const { detectFeatures } = await bitpane();
    const [{ build }, registration] = await Promise.all([
      detectFeatures(), navigator.serviceWorker.register("sw.js").then(() => navigator.serviceWorker.ready),
    ]);
    // One file for one thread and for several.
    registration.active?.postMessage({ keep: build?.replace("-threads", "") });
  } catch {
    // No storage, a private window, or an odd host: the page works, online.
  }
}
