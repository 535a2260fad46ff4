/**
 * The version of this JavaScript. The worker script and the .wasm must report the same one
 * (`VersionMismatch` otherwise); the build fails when it differs from Cargo.toml's.
 */
export const VERSION = "0.1.0";
