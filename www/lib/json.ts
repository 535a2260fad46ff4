/** JSON documents that are given as what they hold, as an address, or as a file. */
import { badArgument, BitpaneError } from "./errors.js";
import { host } from "./host.js";
import { opened } from "./load.js";
import { addressOf } from "./source.js";
import type { JsonSource } from "./types.js";

/** The text of a document; `undefined` where none was given. The runtime judges what it says. */
export async function jsonText(key: string, given: JsonSource | undefined): Promise<string | undefined> {
  if (given === undefined) return undefined;
  if (given instanceof Blob) return given.text();
  if (typeof given === "string" || given instanceof URL) {
    const source = await opened(given);
    return fetchText(key, addressOf(source as string | URL));
  }
  if (typeof given !== "object" || given === null) throw badArgument(key, `"${key}" must be an object, an address or a file`);
  try {
    return JSON.stringify(given);
  } catch (cause) {
    throw new BitpaneError("BadArgument", `"${key}" cannot be written as JSON`, { key, cause });
  }
}

async function fetchText(key: string, url: URL): Promise<string> {
  if (url.protocol === "file:" && host.readText) return host.readText(url);
  let response: Response;
  try {
    response = await fetch(url);
  } catch (cause) {
    throw new BitpaneError("NetworkError", `the ${key} cannot be fetched`, { url: url.href, cause });
  }
  if (!response.ok) throw new BitpaneError("HttpStatus", `HTTP ${response.status} for the ${key}`, { url: url.href });
  return response.text();
}
