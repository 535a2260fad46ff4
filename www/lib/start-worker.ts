/**
 * Starts the worker of a model. Nothing that this worker itself loads may import this module: to a bundler the
 * worker would then contain itself.
 */
import { foreignScript } from "./foreign.js";
import { host, type HostWorker } from "./host.js";

export function startWorker(): HostWorker {
  if (host.startWorker) return host.startWorker();
  const foreign = foreignScript("worker.js");
  return foreign ?? new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "bitpane" });
}
