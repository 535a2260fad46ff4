/**
 * Memories with 64-bit addresses: for models that 4 GiB cannot hold, and for nothing else. Their build is another
 * file and slower, so that it is fetched only once a model's header has said that it takes too much.
 */
import { BitpaneError } from "./errors.js";
import { widerBuild, type BuildChoice } from "./features.js";

const GIB = 2 ** 30;
/** What 32-bit addresses reach. */
const NARROW_BYTES = 4 * GIB;
/** Memory of a device that does not say: most of those with such browsers have this much. */
const ASSUMED_GIB = 8;

/** Bytes that a model may take in a 64-bit memory, unless the caller says: what the device has, as far as it tells. */
export function wideLimit(): number {
  const { deviceMemory = ASSUMED_GIB } = (globalThis.navigator ?? {}) as { deviceMemory?: number };
  return deviceMemory * GIB;
}

/**
 * The build with which to begin a failed load anew; `limit` is what a model may take then. Throws the failure where
 * more memory is not what it lacked, or there is no more.
 */
export function afterFailure(failure: unknown, choice: BuildChoice, limit: number, isForced: boolean, isStream: boolean): BuildChoice {
  if (!(failure instanceof BitpaneError) || failure.code !== "OutOfMemory" || failure.needed === undefined) throw failure;
  if (isForced || limit <= NARROW_BYTES) throw failure;
  const wider = widerBuild(choice, "the model takes more than 32-bit memories can hold");
  if (typeof wider === "string") throw explained(failure, wider);
  if (isStream) throw explained(failure, `a stream cannot be begun anew: build: "${wider.name}" begins with a 64-bit memory`);
  return wider;
}

function explained(failure: BitpaneError, why: string): BitpaneError {
  return new BitpaneError(failure.code, `${failure.message}; 32-bit memories end there, and ${why}`, failure);
}
