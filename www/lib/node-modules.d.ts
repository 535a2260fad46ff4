/** What the package uses of Node: enough to compile without Node's own types, which would add theirs to the browser's. */
declare module "node:fs/promises" {
  interface FileHandle {
    read: (buffer: Uint8Array, offset: number, length: number, position: number) => Promise<{ bytesRead: number }>;
    stat: () => Promise<{ size: number }>;
    close: () => Promise<void>;
  }
  export function open(path: URL): Promise<FileHandle>;
  export function readFile(path: URL, encoding: "utf8"): Promise<string>;
  export function stat(path: URL): Promise<{ isFile: () => boolean }>;
}
declare module "node:os" {
  export function availableParallelism(): number;
}
declare module "node:url" {
  export function pathToFileURL(path: string): URL;
}
declare module "node:worker_threads" {
  interface Listening {
    on: (event: "message" | "messageerror" | "error", listener: (value: never) => void) => void;
    postMessage: (message: unknown, transfer?: readonly unknown[]) => void;
  }
  export class Worker implements Listening {
    constructor(script: URL, options: { execArgv: string[] });
    on: Listening["on"];
    postMessage: Listening["postMessage"];
    terminate(): Promise<number>;
    ref(): void;
    unref(): void;
  }
  export const parentPort: (Listening & { close: () => void }) | null;
}
