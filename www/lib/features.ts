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

/** The instruction set of a build, as `info.backend.isa` reports it. */
export type BuildName = "simd128";

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
  // i8x16.relaxed_swizzle
  relaxedSimd: [
    ...HEADER, ...TYPE_TO_V128, ...ONE_FUNCTION,
    ...code(...SPLAT_ZERO, ...SPLAT_ZERO, 0xfd, 0x80, 0x02),
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
  { name: "simd128", needs: ["simd128"] },
];

function bestBuild(): BuildName | null {
  return BUILDS.find((build) => build.needs.every(has))?.name ?? null;
}

/** The best build that runs here. */
export function chooseBuild(): BuildName {
  const build = bestBuild();
  if (build) return build;
  const reason =
    typeof WebAssembly === "object"
      ? "this browser's WebAssembly has no SIMD instructions (Chrome 91, Firefox 89, Safari 16.4 or newer have)"
      : "this browser has no WebAssembly, or it is switched off";
  throw new BitpaneError("RuntimeUnavailable", reason);
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
  return {
    simd128: has("simd128"),
    relaxedSimd: has("relaxedSimd"),
    threads: has("threads"),
    memory64: has("memory64"),
    crossOriginIsolated: isolated(),
    hardwareConcurrency: globalThis.navigator?.hardwareConcurrency || 1,
    build: bestBuild(),
    threadsReason: threadsReason(),
  };
}
