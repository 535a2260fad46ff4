// What is measured: one row per model file set, and which contender can run it.
// `files` maps a contender to the file it loads; the names are made by files.mjs.

const PROMPT_LEN = 128;
const DECODE_LEN = 64;

function text(shape, type) {
  const model = `${shape}-${type}.gguf`;
  return {
    name: `${shape} ${type}`,
    kind: "text",
    promptLen: PROMPT_LEN,
    decodeLen: DECODE_LEN,
    files: { bitpane: model, wllama: model, candle: model, "llama.cpp (native)": model },
  };
}

// onnxruntime runs the precision of its own that is nearest: int8 with activations quantized
// on the way, and 4-bit blocks of 32.
function vision(shape, quantize, onnx) {
  const model = `${shape}-${onnx}.onnx`;
  return {
    name: `${shape} ${quantize ?? "F32"}`,
    kind: "vision",
    imageShape: [1, 3, 224, 224],
    quantize,
    files: {
      // Low-bit weights are quantized while the F16 file loads.
      bitpane: `${shape}-${quantize ? "F16" : "F32"}.safetensors`,
      "onnxruntime-web": model,
      "onnxruntime (native)": model,
    },
  };
}

export const cases = [
  text("smollm2-135m", "Q4_0"),
  text("smollm2-135m", "Q8_0"),
  vision("deit-tiny", "Q8_0", "int8"),
  vision("deit-tiny", "Q4_0", "q4"),
  vision("deit-tiny", undefined, "fp32"),
  vision("vit-base-16", "Q8_0", "int8"),
  vision("vit-base-16", "Q4_0", "q4"),
  vision("vit-base-16", undefined, "fp32"),
  text("qwen3-0.6b", "Q4_0"),
  text("qwen3-0.6b", "Q8_0"),
];

/** Contenders in the order of the tables; the first is the one that ratios refer to. */
export const contenders = [
  "bitpane",
  "wllama",
  "candle",
  "onnxruntime-web",
  "llama.cpp (native)",
  "onnxruntime (native)",
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
