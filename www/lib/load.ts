/** What loading a language model, loading a classifier and inspecting a file have in common. */
import { Engine } from "./engine.js";
import { BUILD_NAMES, chooseBuild } from "./features.js";
import * as rule from "./options.js";
import type { Calls, WireLoadOptions } from "./protocol.js";
import { sendable } from "./source.js";
import type { LoadOptions, Progress, Source } from "./types.js";

/** Rules for the options of every load. */
export const LOAD_RULES: rule.Rules<LoadOptions> = {
  threads: rule.threads,
  build: rule.oneOf(BUILD_NAMES),
  quantize: rule.text,
  cache: rule.flag,
  sha256: rule.sha256,
  signal: rule.abortSignal,
  onProgress: rule.callback as rule.Rule<(progress: Progress) => void>,
};

/** Starts a worker and loads a model into it. */
export async function loadInto(
  kind: "text" | "vision", source: Source, options: Partial<LoadOptions>, wire: WireLoadOptions,
): Promise<{ engine: Engine; loaded: Calls["load"]["result"] }> {
  const { signal, onProgress } = options;
  const build = chooseBuild(options.build);
  const { wire: from, transfer } = sendable(source);
  const engine = await Engine.start(signal);
  try {
    const load = engine.call("load", { kind, source: from, build, options: wire }, transfer, { onProgress });
    return { engine, loaded: await engine.during(signal, load) };
  } catch (error) {
    engine.dispose();
    throw error;
  }
}
