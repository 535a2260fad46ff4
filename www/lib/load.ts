/** What loading a language model, loading a classifier and inspecting a file have in common. */
import { Engine } from "./engine.js";
import { BUILD_NAMES, chooseBuild, isWide, type BuildChoice } from "./features.js";
import { badArgument } from "./errors.js";
import { host } from "./host.js";
import * as rule from "./options.js";
import type { Calls, WireExtras, WireLoadOptions, WireSource, WireTransfer } from "./protocol.js";
import { addressOf, sendable } from "./source.js";
import type { LoadOptions, LoraOption, Progress, Source, SourceFile } from "./types.js";
import { afterFailure, wideLimit } from "./wide.js";

/** Rules for the options of every load. */
export const LOAD_RULES: rule.Rules<LoadOptions> = {
  threads: rule.threads,
  build: rule.oneOf(BUILD_NAMES),
  quantize: rule.text,
  cache: rule.cache,
  download: rule.download,
  sha256: rule.sha256,
  manifest: rule.address,
  hub: rule.text,
  memoryLimit: rule.positive,
  signal: rule.abortSignal,
  onProgress: rule.callback as rule.Rule<(progress: Progress) => void>,
};

/** What is loaded into the same worker beside a language model. */
export interface Beside {
  lora?: readonly LoraOption[] | undefined;
  draft?: Source | undefined;
}

/** A source that every host can read from. */
export async function opened(source: Source): Promise<Source> {
  const { open } = host;
  if (!open) return source;
  if (!Array.isArray(source)) return open(source);
  return Promise.all((source as readonly SourceFile[]).map(open)) as Promise<Source>;
}

/** How bytes are to be got, with everything that was not said. */
export function transferOf(options: Partial<LoadOptions>, isQuantized = false): WireTransfer {
  const { cache = true, download = {}, sha256, manifest, hub = "https://huggingface.co" } = options;
  const { maxBytes, revalidate = true, packed = isQuantized } = typeof cache === "object" ? cache : {};
  const { retries = 5, retryDelayMs = 500, stallMs = 30_000, connections = 3 } = download;
  if (sha256 !== undefined && manifest !== undefined) {
    throw badArgument("manifest", "hashes are given twice: by sha256 and by a manifest");
  }
  return {
    manifest: manifest && addressOf(manifest).href,
    cache: cache === false ? undefined : { maxBytes, revalidate, packed },
    download: { retries, retryDelayMs, stallMs, connections },
    sha256: sha256 as WireTransfer["sha256"],
    hub: addressOf(hub).href,
  };
}

/** iOS ends a page that takes about 1.5 GB, without a word; what the page itself needs is part of it. */
const IOS_BYTES = 2 ** 30;

/** Bytes that a model may take on this device, where it says so. */
function deviceLimit(): number | undefined {
  const { userAgent = "", maxTouchPoints = 0 } = globalThis.navigator ?? {};
  const isIos = /iPhone|iPad|iPod/.test(userAgent) || (/Macintosh/.test(userAgent) && maxTouchPoints > 1);
  return isIos ? IOS_BYTES : undefined;
}

/** What a load comes to. */
interface Started {
  engine: Engine;
  loaded: Calls["load"]["result"];
}

/**
 * Starts a worker and loads a model into it. Where the model's header says that it takes more than 32-bit memories
 * hold, another worker begins anew with a 64-bit one.
 */
export async function loadInto(
  kind: "text" | "vision", source: Source, options: Partial<LoadOptions>, wire: WireLoadOptions, beside: Beside = {},
): Promise<Started> {
  const choice = chooseBuild(options.build, options.threads ?? "auto");
  const memoryLimit = options.memoryLimit ?? deviceLimit();
  const limited = (build: BuildChoice): WireLoadOptions =>
    ({ ...wire, memoryLimit: memoryLimit ?? (isWide(build.name) ? wideLimit() : undefined) });
  try {
    return await loadWith(choice, kind, source, options, limited(choice), beside);
  } catch (failure) {
    const isStream = [source, beside.draft, ...(beside.lora ?? []).map(({ source }) => source)].some((from) => from instanceof ReadableStream);
    const wider = afterFailure(failure, choice, memoryLimit ?? wideLimit(), options.build !== undefined, isStream);
    await host.whenFree?.();
    return loadWith(wider, kind, source, options, limited(wider), beside);
  }
}

async function loadWith(
  build: BuildChoice, kind: "text" | "vision", source: Source, options: Partial<LoadOptions>, wire: WireLoadOptions, beside: Beside,
): Promise<Started> {
  const { signal, onProgress } = options;
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
    const args = { kind, source: from, build, options: wire, extras, transfer: transferOf(options, wire.quantize !== undefined) };
    const load = engine.call("load", args, transfer, { onProgress });
    return { engine, loaded: await engine.during(signal, load) };
  } catch (error) {
    engine.dispose();
    throw error;
  }
}
