/** What loading a language model, loading a classifier and inspecting a file have in common. */
import { Engine } from "./engine.js";
import { BUILD_NAMES, chooseBuild } from "./features.js";
import { host } from "./host.js";
import * as rule from "./options.js";
import type { Calls, WireExtras, WireLoadOptions, WireSource } from "./protocol.js";
import { sendable } from "./source.js";
import type { LoadOptions, LoraOption, Progress, Source } from "./types.js";

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

/** What is loaded into the same worker beside a language model. */
export interface Beside {
  lora?: readonly LoraOption[] | undefined;
  draft?: Source | undefined;
}

/** A source that every host can read from. */
export function opened(source: Source): Source | Promise<Source> {
  return host.open ? host.open(source) : source;
}

/** Starts a worker and loads a model into it. */
export async function loadInto(
  kind: "text" | "vision", source: Source, options: Partial<LoadOptions>, wire: WireLoadOptions, beside: Beside = {},
): Promise<{ engine: Engine; loaded: Calls["load"]["result"] }> {
  const { signal, onProgress } = options;
  const build = chooseBuild(options.build, options.threads ?? "auto");
  const { wire: from, transfer } = sendable(await opened(source));
  const extras: WireExtras = { lora: [] };
  const send = async (extra: Source): Promise<WireSource> => {
    const sent = sendable(await opened(extra));
    transfer.push(...sent.transfer);
    return sent.wire;
  };
  for (const { source: adapter, scale = 1 } of beside.lora ?? []) extras.lora.push({ source: await send(adapter), scale });
  if (beside.draft !== undefined) extras.draft = await send(beside.draft);
  const engine = await Engine.start(signal);
  try {
    const load = engine.call("load", { kind, source: from, build, options: wire, extras }, transfer, { onProgress });
    return { engine, loaded: await engine.during(signal, load) };
  } catch (error) {
    engine.dispose();
    throw error;
  }
}
