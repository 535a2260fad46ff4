/** Files of fewer bits, made in the page. */
import { Engine, forgotten } from "./engine.js";
import { BUILD_NAMES, chooseBuild, type BuildName } from "./features.js";
import { badArgument } from "./errors.js";
import { opened, transferOf } from "./load.js";
import * as rule from "./options.js";
import { sendable } from "./source.js";
import type {
  CurvePoint, ModelFiles, Progress, QuantizationBudget, QuantizationPlan, QuantizationReport, QuantizeType, Source, WeightSurvey,
} from "./types.js";

/** Options of everything that reads a file to quantize it. */
export interface QuantizerOptions {
  /** What lies beside a safetensors file. A language model needs its configuration and its tokenizer. */
  files?: ModelFiles;
  /** Takes weights that are NaN or infinite for zeros instead of rejecting with `NonFiniteWeight`. */
  allowNonfinite?: boolean;
  /** Threads, as in a load. The result is the same. */
  threads?: "auto" | number;
  /** The build of the runtime, as in a load. */
  build?: BuildName;
  /** Aborts the work, which then rejects with an `AbortError`. */
  signal?: AbortSignal;
  /** Hears how far the work is. */
  onProgress?: (progress: Progress) => void;
}

/** Options of {@link Quantizer.open} and {@link inspectWeights}. */
export interface SurveyOptions extends QuantizerOptions {
  /** Types to compare; by default all that fit. */
  types?: readonly QuantizeType[];
}

/** Options of {@link Quantizer.write}. */
export interface WriteOptions {
  /** Rounds again what has been rounded before, which loses more than rounding the original once. */
  allowRequantize?: boolean;
  /** Rounds to the nearest codes instead of searching for scales: the baseline. */
  nearest?: boolean;
  /** Aborts the writing and ends this quantizer. */
  signal?: AbortSignal;
  /** Hears how far the writing is. */
  onProgress?: (progress: Progress) => void;
}

/** Options of {@link quantizeFile}: a type, a plan, or a budget. */
export interface QuantizeFileOptions extends QuantizerOptions, WriteOptions, QuantizationBudget {
  /** One type for all matrices. */
  type?: QuantizeType;
  /** Types for each tensor. */
  plan?: QuantizationPlan;
}

/** A written file. */
export interface QuantizedFile {
  /** A GGUF file. */
  blob: Blob;
  /** What became of each tensor. */
  report: QuantizationReport;
  /** Threads that it took, and why so many, for people. */
  threads: number;
  threadsReason: string;
}

const modelFiles: rule.Rule<ModelFiles> = (_key, value) => rule.readOptions<ModelFiles>(value, {
  config: rule.text, tokenizer: rule.text, tokenizerConfig: rule.text, chatTemplate: rule.text, name: rule.text,
});

const OPEN_RULES: rule.Rules<SurveyOptions> = {
  files: modelFiles,
  allowNonfinite: rule.flag,
  threads: rule.threads,
  build: rule.oneOf(BUILD_NAMES),
  signal: rule.abortSignal,
  onProgress: rule.callback as rule.Rule<(progress: Progress) => void>,
  types: rule.texts,
};

const WRITE_RULES: rule.Rules<WriteOptions> = {
  allowRequantize: rule.flag,
  nearest: rule.flag,
  signal: rule.abortSignal,
  onProgress: rule.callback as rule.Rule<(progress: Progress) => void>,
};

const BUDGET_RULES: rule.Rules<QuantizationBudget> = {
  targetBytes: rule.number,
  bitsPerWeight: rule.number,
  maxLoss: rule.number,
};

const plan: rule.Rule<QuantizationPlan> = (key, value) => {
  if (typeof value === "object" && value !== null && Array.isArray((value as QuantizationPlan).tensors)) {
    return JSON.parse(JSON.stringify(value)) as QuantizationPlan;
  }
  throw badArgument(key, `"${key}" must be a plan: an object with a list of tensors`);
};

const FILE_RULES: rule.Rules<QuantizeFileOptions> = {
  files: OPEN_RULES.files,
  allowNonfinite: OPEN_RULES.allowNonfinite,
  threads: OPEN_RULES.threads,
  build: OPEN_RULES.build,
  ...WRITE_RULES,
  ...BUDGET_RULES,
  type: rule.text,
  plan,
};

/** Something that can be read as often as needed. */
function rereadable(source: Source): Source {
  if (source instanceof ReadableStream) {
    throw badArgument("source", "a stream can be read once only, and this reads twice: pass a File, a Blob or an address");
  }
  // The caller may change or transfer a buffer in between.
  return source instanceof ArrayBuffer ? new Blob([source]) : source;
}

/**
 * A model file whose weights have been measured in a worker: plans come at once, and the file is written under
 * any of them.
 */
export class Quantizer {
  readonly #engine: Engine;
  readonly #source: Source;
  readonly #read: { files: ModelFiles | undefined; allowNonfinite: boolean | undefined };
  /** What each type would cost each tensor. */
  readonly survey: WeightSurvey;
  /** Size against expected loss, of the plans that cannot be improved on; smallest first. */
  readonly curve: CurvePoint[];

  private constructor(engine: Engine, source: Source, read: Partial<SurveyOptions>, found: { survey: WeightSurvey; curve: CurvePoint[] }) {
    this.#engine = engine;
    this.#source = source;
    this.#read = { files: read.files, allowNonfinite: read.allowNonfinite };
    this.survey = found.survey;
    this.curve = found.curve;
    forgotten.register(this, engine, this);
  }

  /**
   * Measures the weights of a GGUF or safetensors file, which is read once now and once for each {@link write}.
   *
   * @throws {BitpaneError} with the code of what is wrong with the source, the file or the options.
   */
  static async open(source: Source, options: SurveyOptions = {}): Promise<Quantizer> {
    const given = rule.readOptions<SurveyOptions>(options, OPEN_RULES);
    const kept = await opened(rereadable(source));
    const { files, allowNonfinite, types, signal, onProgress } = given;
    const { wire, transfer } = sendable(kept);
    const build = chooseBuild(given.build, given.threads ?? "auto");
    const engine = await Engine.start(signal);
    try {
      const args = { source: wire, build, options: { files, allowNonfinite, types: types && [...types] }, transfer: transferOf({}) };
      const found = await engine.during(signal, engine.call("survey", args, transfer, { onProgress }));
      return new Quantizer(engine, kept, given, found);
    } catch (error) {
      engine.dispose();
      throw error;
    }
  }

  /**
   * The plan of least expected loss within a budget.
   *
   * @throws {BitpaneError} `BudgetInfeasible`, naming the smallest budget that can be met.
   */
  async plan(budget: QuantizationBudget): Promise<QuantizationPlan> {
    const given = rule.readOptions<QuantizationBudget>(budget, BUDGET_RULES);
    return this.#engine.call("plan", { survey: this.survey, budget: given });
  }

  /** Writes the file under a plan, or with one type for all matrices. */
  async write(what: QuantizationPlan | QuantizeType, options: WriteOptions = {}): Promise<QuantizedFile> {
    const given = rule.readOptions<WriteOptions>(options, WRITE_RULES);
    const chosen = typeof what === "string" ? { type: what } : { plan: plan("plan", what) };
    const { allowRequantize, nearest, signal, onProgress } = given;
    const { wire, transfer } = sendable(this.#source);
    const args = { source: wire, options: { ...chosen, allowRequantize, nearest, ...this.#read }, transfer: transferOf({}) };
    return this.#engine.during(signal, this.#engine.call("quantize", args, transfer, { onProgress }));
  }

  /** Ends the worker and frees its memory. */
  async dispose(): Promise<void> {
    forgotten.unregister(this);
    this.#engine.dispose();
  }
}

/** Measures the weights of a file: for each tensor its outliers, and what each type would cost it. */
export async function inspectWeights(source: Source, options: SurveyOptions = {}): Promise<WeightSurvey> {
  const quantizer = await Quantizer.open(source, options);
  await quantizer.dispose();
  return quantizer.survey;
}

/**
 * Writes a GGUF file of fewer bits from a GGUF or safetensors file, with one type, a plan, or within a budget.
 *
 * @throws {BitpaneError} with the code of what is wrong with the source, the file or the options.
 */
export async function quantizeFile(source: Source, options: QuantizeFileOptions): Promise<QuantizedFile> {
  const given = rule.readOptions<QuantizeFileOptions>(options, FILE_RULES);
  const { type, plan: planned, targetBytes, bitsPerWeight, maxLoss, files, allowNonfinite, threads, build, ...writing } = given;
  const reading = { files, allowNonfinite, threads, build, signal: given.signal, onProgress: given.onProgress };
  const what = type ?? planned;
  if (what === undefined) {
    const quantizer = await Quantizer.open(source, defined(reading));
    try {
      return await quantizer.write(await quantizer.plan(defined({ targetBytes, bitsPerWeight, maxLoss })), writing);
    } finally {
      await quantizer.dispose();
    }
  }
  const { wire, transfer } = sendable(await opened(source));
  const engine = await Engine.start(given.signal);
  try {
    const chosen = typeof what === "string" ? { type: what } : { plan: what };
    const { allowRequantize, nearest } = writing;
    const args = {
      source: wire,
      build: chooseBuild(build, threads ?? "auto"),
      options: { ...chosen, allowRequantize, nearest, files, allowNonfinite },
      transfer: transferOf({}),
    };
    return await engine.during(given.signal, engine.call("quantize", args, transfer, { onProgress: given.onProgress }));
  } finally {
    engine.dispose();
  }
}

/** Without what is undefined. */
function defined<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as never;
}
