/** How far a load is: what its listener hears. */
import type { WasmLoader } from "./builds.js";
import type { Progress } from "./types.js";
import type { Context } from "./worker.js";

/** Progress is told at most this often, in milliseconds. */
const TELL_MS = 50;
/** The rate is that of the last so many milliseconds. */
const RATE_MS = 4000;

interface LoaderProgress {
  tensorsDone: number;
  tensorsTotal: number;
}

/** Counts the bytes of one attempt to load a model. */
export class Meter {
  #loaded = 0;
  #cached = 0;
  #told = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #file = 0;
  /** Bytes of the files before this one, and of this one as far as that is known. */
  #before = 0;
  #expected: number | undefined;
  /** Times and bytes from which the rate is reckoned. */
  #marks: { at: number; loaded: number }[] = [];
  /** Whether the last bytes came from the cache. */
  #wasCached: boolean | undefined;

  constructor(
    private readonly loader: WasmLoader, private readonly files: number,
    private readonly tensorStatus: "repack" | "quantize", private readonly context: Context,
  ) {}

  /** A file begins. */
  begin(index: number, length: number | undefined): void {
    this.#file = index + 1;
    this.#before = this.#loaded;
    this.#expected = length;
  }

  /** The length of the file turns out. */
  expect(length: number | undefined): void {
    this.#expected = length;
  }

  /** Bytes have come. */
  add(bytes: number, isCached = false): void {
    // How quickly the disk was says nothing about the network.
    if (isCached !== this.#wasCached) this.#marks = [{ at: performance.now(), loaded: this.#loaded }];
    this.#wasCached = isCached;
    this.#loaded += bytes;
    if (isCached) this.#cached += bytes;
    if (performance.now() - this.#told >= TELL_MS) this.#tell();
    // What comes just before a pause is told, too.
    else this.#timer ??= setTimeout(() => this.#tell(), TELL_MS);
  }

  /** All bytes have come. */
  end(): void {
    this.#tell();
  }

  /** Nothing more is to be told. */
  close(): void {
    clearTimeout(this.#timer);
  }

  #tell(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const now = performance.now();
    this.#told = now;
    this.#marks.push({ at: now, loaded: this.#loaded });
    while (this.#marks.length > 2 && now - this.#marks[0]!.at > RATE_MS) this.#marks.shift();
    this.context.send({ kind: "progress", progress: this.#transfer() });
    const { tensorsDone, tensorsTotal } = this.loader.progress() as LoaderProgress;
    if (tensorsTotal > 0) {
      this.context.send({ kind: "progress", progress: { status: this.tensorStatus, tensorsDone, tensorsTotal } });
    }
  }

  #transfer(): Progress {
    const [first] = this.#marks;
    const last = this.#marks.at(-1);
    const ms = first && last ? last.at - first.at : 0;
    const bytesPerSecond = first && last && ms > 0 ? ((last.loaded - first.loaded) / ms) * 1000 : 0;
    const progress: Progress = {
      status: "download", loaded: this.#loaded, cached: this.#cached, bytesPerSecond, file: this.#file, files: this.files,
    };
    // The lengths of later files are not known before their turn.
    const isLast = this.#file === this.files;
    const total = this.#expected === undefined || !isLast ? undefined : this.#before + this.#expected;
    if (total !== undefined && total >= this.#loaded) {
      progress.total = total;
      if (bytesPerSecond > 0) progress.secondsLeft = (total - this.#loaded) / bytesPerSecond;
    }
    return progress;
  }
}
