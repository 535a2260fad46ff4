/** One generation as an async iterator. */
import type { Engine } from "./engine.js";
import { abortError, badArgument } from "./errors.js";
import * as rule from "./options.js";
import type { GenerateResult, WireGenerateOptions } from "./protocol.js";
import { SAMPLERS, type GenerateOptions, type Piece, type SpeculationOptions } from "./types.js";

const RULES: rule.Rules<GenerateOptions> = {
  maxTokens: rule.count,
  temperature: rule.number,
  dynatempRange: rule.number,
  dynatempExponent: rule.number,
  topK: rule.count,
  topP: rule.number,
  minP: rule.number,
  typicalP: rule.number,
  topNSigma: rule.number,
  xtcProbability: rule.number,
  xtcThreshold: rule.number,
  repeatPenalty: rule.number,
  repeatLastN: rule.countOrAll,
  presencePenalty: rule.number,
  frequencyPenalty: rule.number,
  logitBias: rule.logitBias,
  dryMultiplier: rule.number,
  dryBase: rule.number,
  dryAllowedLength: rule.count,
  dryPenaltyLastN: rule.countOrAll,
  drySequenceBreakers: rule.texts,
  mirostat: rule.oneOf([0, 2]),
  mirostatTau: rule.number,
  mirostatEta: rule.number,
  samplers: rule.listOf(rule.oneOf(SAMPLERS)),
  seed: rule.count,
  logprobs: rule.count,
  contextShift: rule.flag,
  nKeep: rule.countOrAll,
  speculative: speculation,
  grammar: rule.text,
  jsonSchema: rule.jsonSchema,
  ignoreEos: rule.flag,
  stop: rule.textOrTexts,
  addSpecial: rule.flag,
  parseSpecial: rule.flag,
  signal: rule.abortSignal,
};

function speculation(key: string, value: unknown): boolean | SpeculationOptions {
  if (typeof value === "boolean") return value;
  const rules = { maxDraft: rule.count, ngram: rule.count, minP: rule.number };
  if (typeof value === "object") return rule.readOptions<SpeculationOptions>(value, rules);
  throw badArgument(key, `"${key}" must be true, false or an object`);
}

/** Pieces that have arrived and not been taken, and whoever waits for the next. */
class Inbox {
  #pieces: Piece[] = [];
  #wake: (() => void) | undefined;

  add(pieces: Piece[]): void {
    this.#pieces.push(...pieces);
    this.wake();
  }

  wake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }

  take(): Piece[] {
    const pieces = this.#pieces;
    this.#pieces = [];
    return pieces;
  }

  /** Resolves at the next {@link wake}. */
  changed(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}

/** How long an aborted generation waits for its figures, in milliseconds. */
const ABORT_PATIENCE_MS = 15;

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Runs one generation; `onEnd` hears its figures, also when it was aborted. */
export async function* generation(
  engine: Engine, prompt: string | readonly number[] | Uint32Array | { chat: string }, options: GenerateOptions,
  onEnd: (result: GenerateResult) => void,
): AsyncGenerator<Piece, void, void> {
  const { signal, ...given } = rule.readOptions<GenerateOptions>(options, RULES);
  if (signal?.aborted) throw abortError(signal);
  const isWire = typeof prompt === "string" || (typeof prompt === "object" && prompt !== null && "chat" in prompt);
  const wirePrompt = isWire ? prompt : rule.tokenIds("prompt", prompt);

  const inbox = new Inbox();
  let outcome: { error?: unknown } | undefined;
  const { speculative, ...others } = given;
  const guesses = speculative === true ? {} : speculative || undefined;
  const wireOptions = { ...others, ...(guesses && { speculative: guesses }) } as WireGenerateOptions;
  const call = engine.begin("generate", { prompt: wirePrompt, options: wireOptions }, [], {
    onPieces: (pieces) => inbox.add(pieces),
  });
  const ended = call.result
    .then((result) => {
      onEnd(result);
      outcome = {};
    })
    .catch((error: unknown) => {
      outcome = { error };
    })
    .finally(() => inbox.wake());
  const onAbort = (): void => {
    call.cancel();
    inbox.wake();
  };
  signal?.addEventListener("abort", onAbort, { once: true });

  try {
    for (;;) {
      const pieces = inbox.take();
      for (const piece of pieces) {
        yield piece;
        if (signal?.aborted) throw abortError(signal);
      }
      if (signal?.aborted) throw abortError(signal);
      // More may have come, and the end too, while the caller did something with these.
      if (pieces.length > 0) continue;
      if (outcome) break;
      await inbox.changed();
    }
    if (outcome.error !== undefined) throw outcome.error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
    if (!outcome) {
      call.cancel();
      // The figures follow within a step. An abort waits for them only as long as nobody notices.
      await (signal?.aborted ? Promise.race([ended, delay(ABORT_PATIENCE_MS)]) : ended);
    }
  }
}
