/**
 * What this browser's WebAssembly can do, and which build of the runtime fits it.
 *
 * WebAssembly validates a whole module before it runs, so a build that uses a missing
 * instruction cannot even be compiled: the choice has to be made beforehand. Each probe is
 * the smallest module that uses one feature; validating it costs microseconds.
 */
import { BitpaneError } from "./errors.js";
import { host } from "./host.js";

/** A WebAssembly proposal that a build may need. */
export type WasmFeature = "simd128" | "relaxedSimd" | "atomics" | "threads" | "memory64";

/** A build of the runtime, as `info.backend.build` names it. Those of 64 bits are for models beyond 4 GiB. */
export const BUILD_NAMES = [
  "relaxed-threads", "simd128-threads", "relaxed64-threads", "relaxed", "simd128", "relaxed64",
] as const;
export type BuildName = (typeof BUILD_NAMES)[number];
/** Those for one thread. */
export type OneThreadBuild = Exclude<BuildName, `${string}-threads`>;

/** A build and a number of threads, and why they were taken, for people. */
export interface BuildChoice {
  name: BuildName;
  reason: string;
  /** Threads to start, at least 1; with `isGuess` fewer may turn out to be better. */
  threads: number;
  isGuess: boolean;
  threadsReason: string;
}

/** Most threads that a load takes. */
export const MAX_THREADS = 16;

/** What {@link detectFeatures} found. */
export interface Features {
  /** 128-bit SIMD. Without it nothing of this package runs. */
  simd128: boolean;
  /** Relaxed SIMD. */
  relaxedSimd: boolean;
  /** Atomics and shared memory in WebAssembly (usable only when `crossOriginIsolated`, or in Node). */
  threads: boolean;
  /** 64-bit memories. */
  memory64: boolean;
  /** Whether the page is served with the COOP and COEP headers that shared memory requires. */
  crossOriginIsolated: boolean;
  /** Logical cores that the browser admits to; 1 where it does not say. */
  hardwareConcurrency: number;
  /** The build that `load` will use here, or null where none runs. */
  build: BuildName | null;
  /** Why that build, for people. */
  buildReason: string;
  /** How many threads `threads: "auto"` tries here; it keeps fewer where more are not faster. */
  maxThreads: number;
  /** Why so many, for people. */
  threadsReason: string;
}

const HEADER = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
const TYPE_TO_V128 = [0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b];
const TYPE_TO_NOTHING = [0x01, 0x04, 0x01, 0x60, 0x00, 0x00];
const ONE_FUNCTION = [0x03, 0x02, 0x01, 0x00];
const SPLAT_ZERO = [0x41, 0x00, 0xfd, 0x0f]; // i32.const 0, i8x16.splat

/** A code section with one function of no locals. */
function code(...instructions: number[]): number[] {
  const body = [0x00, ...instructions, 0x0b];
  return [0x0a, body.length + 2, 0x01, body.length, ...body];
}

const PROBES: Record<WasmFeature, readonly number[]> = {
  simd128: [...HEADER, ...TYPE_TO_V128, ...ONE_FUNCTION, ...code(...SPLAT_ZERO)],
  // i32x4.relaxed_dot_i8x16_i7x16_add_s of three vectors: the one that the relaxed build is for
  relaxedSimd: [
    ...HEADER, ...TYPE_TO_V128, ...ONE_FUNCTION,
    ...code(...SPLAT_ZERO, ...SPLAT_ZERO, ...SPLAT_ZERO, 0xfd, 0x93, 0x02),
  ],
  // i32.atomic.load from a memory of one page, which is not shared
  atomics: [
    ...HEADER, ...TYPE_TO_NOTHING, ...ONE_FUNCTION, 0x05, 0x03, 0x01, 0x00, 0x01,
    ...code(0x41, 0x00, 0xfe, 0x10, 0x02, 0x00, 0x1a),
  ],
  // a shared memory of one page, i32.atomic.load
  threads: [
    ...HEADER, ...TYPE_TO_NOTHING, ...ONE_FUNCTION, 0x05, 0x04, 0x01, 0x03, 0x01, 0x01,
    ...code(0x41, 0x00, 0xfe, 0x10, 0x02, 0x00, 0x1a),
  ],
  // a memory with 64-bit addresses
  memory64: [...HEADER, 0x05, 0x03, 0x01, 0x04, 0x01],
};

function has(feature: WasmFeature): boolean {
  return typeof WebAssembly === "object" && WebAssembly.validate(Uint8Array.from(PROBES[feature]));
}

/**
 * Every build in the package and what the browser must offer for it, the best first. Those with 64-bit memories are
 * slower and never the first choice: see {@link widerBuild}.
 */
const BUILDS: readonly { name: BuildName; needs: readonly WasmFeature[] }[] = [
  { name: "relaxed-threads", needs: ["simd128", "relaxedSimd", "threads"] },
  { name: "simd128-threads", needs: ["simd128", "threads"] },
  { name: "relaxed", needs: ["simd128", "relaxedSimd", "atomics"] },
  { name: "simd128", needs: ["simd128", "atomics"] },
  { name: "relaxed64-threads", needs: ["memory64", "simd128", "relaxedSimd", "threads"] },
  { name: "relaxed64", needs: ["memory64", "simd128", "relaxedSimd", "atomics"] },
];

type Build = (typeof BUILDS)[number];

function isForThreads({ needs }: Build): boolean {
  return needs.includes("threads");
}

/** Whether its memory has 64-bit addresses. */
export function isWide(name: BuildName): boolean {
  return name === "relaxed64-threads" || name === "relaxed64";
}

/** What each feature is called, and which browsers have it. */
const SAID: Record<WasmFeature, string> = {
  simd128: "SIMD instructions (Chrome 91, Firefox 89, Safari 16.4 or newer have)",
  relaxedSimd: "relaxed SIMD instructions (Chrome 114, Firefox 145 or newer have)",
  atomics: "atomic instructions (Chrome 74, Firefox 79, Safari 14.1 or newer have)",
  threads: "shared memory",
  memory64: "64-bit memories (Chrome 133, Firefox 134 or newer have)",
};

/** The best build that runs here, with threads or without; no name where none does. */
function bestBuild(threads: boolean): { name: BuildName | null; reason: string } {
  if (typeof WebAssembly !== "object") {
    return { name: null, reason: "this browser has no WebAssembly, or it is switched off" };
  }
  let lacking: WasmFeature | undefined;
  for (const build of BUILDS.filter((build) => isForThreads(build) === threads && !isWide(build.name))) {
    const missing = build.needs.find((feature) => !has(feature));
    if (missing === undefined) {
      const best = threads ? "the best build needs" : "the best build for one thread needs";
      return { name: build.name, reason: lacking ? without(lacking) : `this browser has all that ${best}` };
    }
    lacking = missing;
  }
  return { name: null, reason: without(lacking ?? "simd128") };
}

function without(feature: WasmFeature): string {
  return `this browser's WebAssembly has no ${SAID[feature]}`;
}

/** The build and the threads for a load; throws where the build asked for does not run here. */
export function chooseBuild(forced: BuildName | undefined, wanted: "auto" | number): BuildChoice {
  const obstacle = whyOneThread(wanted);
  if (forced === undefined) {
    const { name, reason } = bestBuild(obstacle === undefined);
    if (name) return { name, reason, ...threadsOf(wanted, obstacle) };
    throw new BitpaneError("RuntimeUnavailable", reason);
  }
  const unavailable = (why: string): BitpaneError =>
    new BitpaneError("RuntimeUnavailable", `the build "${forced}" does not run here: ${why}`);
  const build = BUILDS.find(({ name }) => name === forced);
  const missing = build?.needs.find((feature) => !has(feature));
  if (missing !== undefined) throw unavailable(without(missing));
  const choice = { name: forced, reason: "asked for" };
  if (!build || !isForThreads(build)) {
    return { ...choice, ...threadsOf(wanted, obstacle ?? `one thread: the build "${forced}" has no more`) };
  }
  const cannotShare = whyNoSharedMemory();
  if (cannotShare !== undefined) throw unavailable(cannotShare);
  return { ...choice, ...threadsOf(wanted, obstacle) };
}

/** The choice with a 64-bit memory in the place of another, with as many threads; or what stands against it, for people. */
export function widerBuild(choice: BuildChoice, reason: string): BuildChoice | string {
  const name = choice.name === withoutThreads(choice.name) ? "relaxed64" : "relaxed64-threads";
  const missing = BUILDS.find((build) => build.name === name)?.needs.find((feature) => !has(feature));
  return missing === undefined ? { ...choice, name, reason } : without(missing);
}

/** How many threads to start, given what stands against more than one. */
function threadsOf(wanted: "auto" | number, obstacle: string | undefined): Omit<BuildChoice, "name" | "reason"> {
  if (obstacle !== undefined) return { threads: 1, isGuess: false, threadsReason: obstacle };
  if (wanted !== "auto") return { threads: wanted, isGuess: false, threadsReason: "asked for" };
  const logical = logicalCores();
  const threads = guessedCores(logical);
  return { threads, isGuess: true, threadsReason: `a guess of the processor's cores, of which ${logical} are logical` };
}

/**
 * Physical cores behind so many logical ones, at most 8: half of them, but all of up to four, since
 * small processors often have a core for each. Which number is best is then measured.
 */
function guessedCores(logical: number): number {
  return Math.min(Math.max(Math.ceil(logical / 2), Math.min(logical, 4)), 8);
}

function logicalCores(): number {
  return host.cores?.() || globalThis.navigator?.hardwareConcurrency || 1;
}

/** Whether memory may be shared: on pages that are isolated, and where there are no pages. */
function mayShare(): boolean {
  return globalThis.crossOriginIsolated === true || host.cores !== undefined;
}

/** What keeps the runtime at one thread here, for people. */
function whyOneThread(wanted: "auto" | number): string | undefined {
  if (wanted === 1) return "one thread: asked for";
  if (typeof Worker === "undefined" && !host.cores) return "one thread: no workers can be started here";
  const cannotShare = whyNoSharedMemory();
  if (cannotShare !== undefined) return `one thread: ${cannotShare}`;
  if (wanted === "auto" && logicalCores() === 1) return "one thread: as far as the browser tells, there is one core";
  return undefined;
}

function whyNoSharedMemory(): string | undefined {
  if (!mayShare()) {
    return "the page is not cross-origin isolated (it needs the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp)";
  }
  if (typeof SharedArrayBuffer === "undefined" || !has("threads")) return without("threads");
  return undefined;
}

/** The build for one thread that is made of the same file. */
export function withoutThreads(name: BuildName): OneThreadBuild {
  return name.replace("-threads", "") as OneThreadBuild;
}

/**
 * Finds out what this browser offers and which build of the runtime `load` will use.
 * Never throws; fetches nothing.
 */
export async function detectFeatures(): Promise<Features> {
  const obstacle = whyOneThread("auto");
  const { name: build, reason: buildReason } = bestBuild(obstacle === undefined);
  const { threads: maxThreads, threadsReason } = threadsOf("auto", obstacle);
  return {
    simd128: has("simd128"),
    relaxedSimd: has("relaxedSimd"),
    threads: has("threads"),
    memory64: has("memory64"),
    crossOriginIsolated: globalThis.crossOriginIsolated === true,
    hardwareConcurrency: logicalCores(),
    build,
    buildReason,
    maxThreads,
    threadsReason,
  };
}
