import { Engine } from "./engine.js";
import { chooseBuild, withoutThreads } from "./features.js";
import { opened } from "./load.js";
import * as rule from "./options.js";
import { transferOf } from "./load.js";
import { sendable } from "./source.js";
import type { Inspection, Source } from "./types.js";

/** Options of {@link inspect}. */
export interface InspectOptions {
  /** Aborts the reading, which then rejects with an `AbortError`. */
  signal?: AbortSignal;
}

const RULES: rule.Rules<InspectOptions> = { signal: rule.abortSignal };

/**
 * Reads the header of a model file and says what is in it, without loading the weights: of
 * an address, only the beginning is downloaded.
 */
export async function inspect(source: Source, options: InspectOptions = {}): Promise<Inspection> {
  const { signal } = rule.readOptions<InspectOptions>(options, RULES);
  const build = withoutThreads(chooseBuild(undefined, 1).name);
  const { wire, transfer } = sendable(await opened(source));
  const engine = await Engine.start(signal);
  try {
    return await engine.during(signal, engine.call("inspect", { source: wire, build, transfer: transferOf({}) }, transfer));
  } finally {
    engine.dispose();
  }
}
