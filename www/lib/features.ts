/**
 * What this browser's WebAssembly can do, and which build of the runtime fits it.
 *
 * WebAssembly validates a whole module before it runs, so a build that uses a missing
 * instruction cannot even be compiled: the choice has to be made beforehand. Each probe is
 * the smallest module that uses one feature; validating it costs microseconds.
 */
import { BitpaneError } from "./errors.js";

/** A WebAssembly proposal that a build may need. */
export type WasmFeature = "simd128" | "relaxedSimd" | "threads" | "memory64";

/** A build of the runtime: its folder in the package, and `info.backend.build`. */
export const BUILD_NAMES = ["relaxed", "simd128"] as const;
export type BuildName = (typeof BUILD_NAMES)[number];

/** A build and why it was taken, for people. */
export interface BuildChoice {
  name: BuildName;
  reason: string;
}

/** What {@link detectFeatures} found. */
export interface Features {
  /** 128-bit SIMD. Without it nothing of this package runs. */
  simd128: boolean;
  /** Relaxed SIMD. */
  relaxedSimd: boolean;
  /** Atomics and shared memory in WebAssembly (usable only when `crossOriginIsolated`). */
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
  /** Why `threads: "auto"` means what it means here, for people. */
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

/** Every build in the package and what the browser must offer for it, the best first. */
const BUILDS: readonly { name: BuildName; needs: readonly WasmFeature[] }[] = [
  { name: "relaxed", needs: ["simd128", "relaxedSimd"] },
  { name: "simd128", needs: ["simd128"] },
];

/** What each feature is called, and which browsers have it. */
const SAID: Record<WasmFeature, string> = {
  simd128: "SIMD instructions (Chrome 91, Firefox 89, Safari 16.4 or newer have)",
  relaxedSimd: "relaxed SIMD instructions (Chrome 114, Firefox 145 or newer have)",
  threads: "shared memory",
  memory64: "64-bit memories",
};

/** The best build that runs here; without a name where none does. */
function bestBuild(): { name: BuildName | null; reason: string } {
  if (typeof WebAssembly !== "object") {
    return { name: null, reason: "this browser has no WebAssembly, or it is switched off" };
  }
  let lacking: WasmFeature | undefined;
  for (const { name, needs } of BUILDS) {
    const missing = needs.find((feature) => !has(feature));
    if (missing === undefined) {
      return { name, reason: lacking ? without(lacking) : "this browser has all that the best build needs" };
    }
    lacking = missing;
  }
  return { name: null, reason: without(lacking ?? "simd128") };
}

function without(feature: WasmFeature): string {
  return `this browser's WebAssembly has no ${SAID[feature]}`;
}

/** The build asked for, or else the best one; throws where it does not run here. */
export function chooseBuild(forced?: BuildName): BuildChoice {
  if (forced === undefined) {
    const { name, reason } = bestBuild();
    if (name) return { name, reason };
    throw new BitpaneError("RuntimeUnavailable", reason);
  }
  const missing = BUILDS.find((build) => build.name === forced)?.needs.find((feature) => !has(feature));
  if (missing === undefined) return { name: forced, reason: "asked for" };
  throw new BitpaneError("RuntimeUnavailable", `the build "${forced}" does not run here: ${without(missing)}`);
}

function isolated(): boolean {
  return globalThis.crossOriginIsolated === true;
}

/** Why the runtime uses one thread here. */
export function threadsReason(): string {
  if (!isolated()) {
    return "one thread: the page is not cross-origin isolated (it needs the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp)";
  }
  return "one thread: this version of bitpane has no multi-threaded build";
}

/**
 * Finds out what this browser offers and which build of the runtime `load` will use.
 * Never throws; fetches nothing.
 */
export async function detectFeatures(): Promise<Features> {
  const { name: build, reason: buildReason } = bestBuild();
  return {
    simd128: has("simd128"),
    relaxedSimd: has("relaxedSimd"),
    threads: has("threads"),
    memory64: has("memory64"),
    crossOriginIsolated: isolated(),
    hardwareConcurrency: globalThis.navigator?.hardwareConcurrency || 1,
    build,
    buildReason,
    threadsReason: threadsReason(),
  };
}
