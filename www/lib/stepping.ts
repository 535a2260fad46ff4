/** Long computations, step by step, so that a cancellation can get in between. */
import type { WasmGeneration, WasmText } from "./builds.js";
import { BitpaneError } from "./errors.js";
import type { GenerateResult, WireGenerateOptions } from "./protocol.js";
import type { FinishReason, Piece, TextModelInfo } from "./types.js";
import type { Context } from "./worker.js";

/** What `TextModel.step` of the runtime returns. */
type Step =
  | { type: "prefill"; done: number; total: number }
  | { type: "piece"; text: string; token: number }
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
  model: WasmText, prompt: string | Uint32Array, options: WireGenerateOptions, context: Context,
): Promise<GenerateResult> {
  const { addSpecial = true, parseSpecial = false, ...rest } = options;
  const tokens = typeof prompt === "string" ? model.tokenize(prompt, addSpecial, parseSpecial) : prompt;
  const result: GenerateResult = {
    promptTokens: tokens.length, cachedTokens: 0, promptMs: 0, decodeTokens: 0, decodeMs: 0, finishReason: "abort",
  };
  await eventLoop(); // one that was cancelled while it waited does nothing
  if (context.cancelled()) return result;
  const generation = model.start(tokens, rest);
  result.cachedTokens = generation.cachedTokens();
  try {
    await steps(model, generation, result, context);
  } finally {
    generation.free();
  }
  return result;
}

async function steps(
  model: WasmText, generation: WasmGeneration, result: GenerateResult, context: Context,
): Promise<void> {
  let pieces: Piece[] = [];
  let sliceStart = performance.now();
  for (;;) {
    const start = performance.now();
    const step = model.step(generation) as Step;
    const end = performance.now();
    count(result, step, end - start);
    if (step.type === "piece") pieces.push({ text: step.text, token: step.token });
    if (step.type === "done" && step.text !== "") pieces.push({ text: step.text, token: null });
    if (step.type !== "done" && end - sliceStart < SLICE_MS) continue;
    if (pieces.length > 0) context.send({ kind: "pieces", pieces });
    pieces = [];
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

/** Mean negative log-likelihood of a text, in chunks of `context` tokens. */
export async function runPerplexity(
  model: WasmText, text: string, context: number | undefined,
): Promise<{ nll: number; tokens: number }> {
  const n_ctx = context ?? (model.info() as TextModelInfo).contextLength;
  if (n_ctx < 2) throw new BitpaneError("BadArgument", "\"context\" must be 2 or more", { key: "context" });
  const bos = model.bos();
  const ids = model.tokenize(text, false, false);
  let sum = 0;
  let tokens = 0;
  for (let start = 0; start < ids.length; start += n_ctx - 1) {
    const piece = ids.subarray(start, start + n_ctx - 1);
    const chunk = bos === undefined ? piece : Uint32Array.of(bos, ...piece);
    sum += model.nll(chunk);
    tokens += chunk.length - 1;
    await eventLoop();
  }
  if (tokens === 0) throw new BitpaneError("BadArgument", "the text has no token to score", { key: "text" });
  return { nll: sum / tokens, tokens };
}
