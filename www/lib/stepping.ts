/** Long computations, step by step, so that a cancellation can get in between. */
import type { WasmEncoder, WasmGeneration, WasmText } from "./builds.js";
import type { Calls, GenerateResult, WireGenerateOptions, WirePrompt } from "./protocol.js";
import type { FinishReason, Perplexity, Piece, PieceLogprobs } from "./types.js";
import type { Context } from "./worker.js";
import { release } from "./release.js";

/** What `TextModel.step` of the runtime returns. */
type Step =
  | { type: "prefill"; done: number; total: number }
  | { type: "piece"; text: string; token: number; logprobs?: PieceLogprobs }
  | { type: "done"; text: string; reason: FinishReason };

/**
 * The event loop runs at least this often, in milliseconds of computing. It bounds both how
 * late a cancellation is seen and how many messages a fast model causes.
 */
const SLICE_MS = 8;

const turn = new MessageChannel();

/** Lets waiting messages in. Unlike a timer, this is not delayed by the browser's 4 ms minimum. */
function eventLoop(): Promise<void> {
  return new Promise((resolve) => {
    turn.port1.onmessage = () => resolve();
    turn.port2.postMessage(null);
  });
}

/** Generates until the model, a limit or a cancellation ends it. */
export async function runGeneration(
  model: WasmText, prompt: WirePrompt, options: WireGenerateOptions, context: Context,
): Promise<GenerateResult> {
  const { addSpecial = true, parseSpecial = false, jsonSchema, ...given } = options;
  // As text: an object would lose the order of its properties on the way.
  const rest = jsonSchema === undefined ? given : { ...given, jsonSchema: JSON.stringify(jsonSchema) };
  const tokens = promptTokens(model, prompt, addSpecial, parseSpecial);
  const result: GenerateResult = {
    promptTokens: tokens.length, cachedTokens: 0, forgottenTokens: 0, promptMs: 0, decodeTokens: 0, decodeMs: 0,
    seed: options.seed ?? null, guessedTokens: 0, acceptedTokens: 0, finishReason: "abort",
  };
  await eventLoop(); // one that was cancelled while it waited does nothing
  if (context.cancelled()) return result;
  const generation = model.start(tokens, rest);
  result.cachedTokens = generation.cachedTokens();
  result.seed = generation.seed();
  try {
    await steps(model, generation, result, context);
    result.forgottenTokens = generation.forgottenTokens();
    [result.guessedTokens = 0, result.acceptedTokens = 0] = generation.guesses();
  } finally {
    release(generation);
  }
  return result;
}

function promptTokens(model: WasmText, prompt: WirePrompt, addSpecial: boolean, parseSpecial: boolean): Uint32Array {
  if (typeof prompt === "string") return model.tokenize(prompt, addSpecial, parseSpecial);
  return prompt instanceof Uint32Array ? prompt : model.chatTokens(prompt.chat, wallClock());
}

/** Seconds since 1970-01-01 00:00 as the clock on the wall counts them: templates may ask for the date. */
export function wallClock(): number {
  const now = new Date();
  return Math.floor(now.getTime() / 1000) - now.getTimezoneOffset() * 60;
}

async function steps(
  model: WasmText, generation: WasmGeneration, result: GenerateResult, context: Context,
): Promise<void> {
  let pieces: Piece[] = [];
  const send = (): void => {
    if (pieces.length > 0) context.send({ kind: "pieces", pieces });
    pieces = [];
  };
  let sliceStart = performance.now();
  for (;;) {
    const start = performance.now();
    let step: Step;
    try {
      step = model.step(generation) as Step;
    } catch (error) {
      send(); // what was written before stays written
      throw error;
    }
    const end = performance.now();
    count(result, step, end - start);
    if (step.type === "piece") {
      const { text, token, logprobs } = step;
      pieces.push(logprobs ? { text, token, logprobs } : { text, token });
    }
    if (step.type === "done" && step.text !== "") pieces.push({ text: step.text, token: null });
    if (step.type !== "done" && end - sliceStart < SLICE_MS) continue;
    send();
    if (step.type === "done") return;
    await eventLoop();
    if (context.cancelled()) return;
    sliceStart = performance.now();
  }
}

function count(result: GenerateResult, step: Step, ms: number): void {
  if (step.type === "prefill") {
    result.promptMs += ms;
  } else {
    result.decodeMs += ms;
  }
  if (step.type === "piece") result.decodeTokens += 1;
  if (step.type === "done") result.finishReason = step.reason;
}

/** Scores a text, piece by piece. */
export async function runPerplexity(model: WasmText, args: Calls["perplexity"]["args"]): Promise<Perplexity> {
  const { text, context, record = false, against } = args;
  const scoring = model.startScoring(text, context, record, against);
  try {
    const recorded: Uint8Array<ArrayBuffer>[] = [];
    for (let last = false; !last;) {
      last = model.stepScoring(scoring);
      if (record) recorded.push(scoring.takeRecord() as Uint8Array<ArrayBuffer>);
      await eventLoop();
    }
    const score = scoring.score() as Perplexity;
    return record ? { ...score, record: new Uint8Array(await new Blob(recorded).arrayBuffer()) } : score;
  } finally {
    release(scoring);
  }
}

/** Makes the vector of each text. */
export async function runEmbedding(
  model: WasmText | WasmEncoder, args: Calls["embed"]["args"],
): Promise<Float32Array[]> {
  const vectors: Float32Array[] = [];
  for (const text of args.texts) {
    const tokens = typeof text === "string" ? model.tokenize(text, true, false) : text;
    vectors.push(model.embed(tokens, args.options));
    await eventLoop();
  }
  return vectors;
}

/** Scores each document. */
export async function runReranking(model: WasmEncoder, args: Calls["rerank"]["args"]): Promise<number[]> {
  const scores: number[] = [];
  for (const document of args.documents) {
    scores.push(model.rerank(args.query, document));
    await eventLoop();
  }
  return scores;
}
