// What is measured: each case is one model in one precision, and who runs it. `entries` are measured
// in turn, so that ratios within a case are of the same minutes; `file` names are made by files.mjs.

const PROMPT_LEN = 128;
const DECODE_LEN = 64;
// At a few tokens per second the slowest peers would take an hour over one case.
const FEWER = { promptLen: 24, decodeLen: 16 };

function textEntry(runner, file, changes) {
  return { name: runner, runner, file, promptLen: PROMPT_LEN, decodeLen: DECODE_LEN, ...changes };
}

function text(shape, type) {
  const file = `${shape}-${type}.gguf`;
  const peer = shape.startsWith("qwen3") ? FEWER : {};
  return {
    name: `${shape} ${type}`,
    kind: "text",
    entries: [
      textEntry("bitpane", file),
      textEntry("wllama", file, peer),
      // candle reads neither ternary nor 1-bit files.
      ...(/^(TQ|Q1)/.test(type) ? [] : [textEntry("candle", file, peer)]),
      textEntry("llama.cpp (native)", file),
    ],
  };
}

/** bitpane beside itself with two threads. */
function threads(shape, type) {
  const file = `${shape}-${type}.gguf`;
  return {
    name: `${shape} ${type}, threads`,
    kind: "text",
    entries: [
      textEntry("bitpane", file, { threads: 1 }),
      textEntry("bitpane", file, { name: "bitpane, 2 threads", threads: 2 }),
    ],
  };
}

/** bitpane beside itself with a longer context. */
function depth(shape, type, kvType) {
  const file = `${shape}-${type}.gguf`;
  return {
    name: `${shape} ${type}, ${kvType} cache, context`,
    kind: "text",
    entries: [
      textEntry("bitpane", file, { kvType, decodeLen: 32 }),
      textEntry("bitpane", file, { name: "bitpane, after 1024", kvType, promptLen: 1024, decodeLen: 32 }),
    ],
  };
}

// onnxruntime runs the precision of its own that is nearest: int8 with activations quantized
// on the way, and 4-bit blocks of 32. Low-bit weights of bitpane are quantized while the F16 file loads.
function vision(shape, quantize, onnx, changes = []) {
  const own = { name: "bitpane", runner: "bitpane", file: `${shape}-${quantize ? "F16" : "F32"}.safetensors`, quantize };
  const peer = (runner) => ({ name: runner, runner, file: `${shape}-${onnx}.onnx` });
  return {
    name: `${shape} ${quantize ?? "F32"}`,
    kind: "vision",
    imageShape: [1, 3, 224, 224],
    entries: [
      own,
      ...changes.map((change) => ({ ...own, ...change })),
      peer("onnxruntime-web"),
      peer("onnxruntime (native)"),
    ],
  };
}

const TWO = { name: "bitpane, 2 threads", threads: 2 };

/** 4-bit beside onnxruntime-web's int8, the fastest that it has. */
function beside8(shape) {
  const task = vision(shape, "Q4_0", "q4", [TWO]);
  const int8 = { name: "onnxruntime-web, int8", runner: "onnxruntime-web", file: `${shape}-int8.onnx` };
  return { ...task, entries: [...task.entries, int8] };
}

export const cases = [
  text("smollm2-135m", "Q4_0"),
  text("smollm2-135m", "Q8_0"),
  vision("deit-tiny", "Q8_0", "int8", [TWO]),
  beside8("deit-tiny"),
  vision("deit-tiny", undefined, "fp32"),
  vision("vit-base-16", "Q8_0", "int8", [TWO]),
  beside8("vit-base-16"),
  vision("vit-base-16", undefined, "fp32"),
  ...["Q8_0", "Q4_0", "Q4_K", "Q2_K", "TQ2_0", "Q1_0"].map((type) => text("qwen3-0.6b", type)),
  threads("smollm2-135m", "Q4_0"),
  threads("qwen3-0.6b", "Q4_0"),
  depth("qwen3-0.6b", "Q4_0", "Q8_0"),
  depth("qwen3-0.6b", "Q8_0", "Q8_0"),
];

// Ids of one-syllable words with a leading space in the vocabulary of
// examples/random_model/vocabulary.rs, and the syllables themselves in the same order.
const CONSONANTS = [..."bcdfghjklmnpqrstvwxz"];
const VOWELS = [..."aeiou"];
const SYLLABLES = CONSONANTS.flatMap((c) => VOWELS.map((v) => c + v));
const BOS = 1;
const N_BEFORE_WORDS = 3 + 256 + 1 + CONSONANTS.length + VOWELS.length;

/**
 * A prompt of `n` tokens, BOS included, as text and as ids. Each round has its own, so that
 * no runtime can answer from a cache of the last prompt.
 */
export function prompt(n, round) {
  let state = round + 1;
  const words = Array.from({ length: n - 1 }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % SYLLABLES.length;
  });
  return {
    text: words.map((w) => SYLLABLES[w]).join(" "),
    ids: [BOS, ...words.map((w) => N_BEFORE_WORDS + SYLLABLES.length + w)],
  };
}
