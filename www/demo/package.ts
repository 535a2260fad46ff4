/** The package, fetched when it is first needed: whoever only looks at the page need not have it. */
export type Package = typeof import("./pkg/index.js");

let fetched: Promise<Package> | undefined;

/** The package. */
export function bitpane(): Promise<Package> {
  fetched ??= import("./pkg/index.js").catch((error: unknown) => {
    fetched = undefined; // the connection may be back the next time
    throw error;
  });
  return fetched;
}
