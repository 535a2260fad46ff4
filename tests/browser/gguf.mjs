/** GGUF files for the tests: small language models with random weights, of any size. */

const [U32, F32, STRING, ARRAY] = [4, 6, 8, 9];
const [F32_TYPE, Q8_0] = [0, 8];
/** Bytes of a type's block, and the elements in it. */
const BLOCKS = { 0: [4, 1], 2: [18, 32], 8: [34, 32] };

const u32 = (n) => { const b = Buffer.alloc(4); b.writeUInt32LE(n); return b; };
const u64 = (n) => { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(n)); return b; };
const f32 = (x) => { const b = Buffer.alloc(4); b.writeFloatLE(x); return b; };
const string = (s) => Buffer.concat([u64(Buffer.byteLength(s)), Buffer.from(s)]);
const entry = (key, type, value) => Buffer.concat([string(key), u32(type), value]);
const array = (key, type, items) => entry(key, ARRAY, Buffer.concat([u32(type), u64(items.length), ...items]));

/** Random numbers that only depend on the seed (xorshift32, Marsaglia 2003). */
export function random(seed) {
  let x = (seed * 2654435761 + 1) >>> 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>>= 0) / 2 ** 32;
  };
}

/** A `llama` of these dimensions: what its header holds and its tensors. */
function llama({ n_embd, n_ff, n_layer, n_head, n_ctx, type }) {
  const tokens = ["<unk>", "<s>", "</s>", ...Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`)];
  const types = [2, 3, 3, ...Array(256).fill(6)];
  const arch = "llama";
  const entries = [
    entry("general.architecture", STRING, string(arch)),
    ...Object.entries({
      context_length: n_ctx, embedding_length: n_embd, block_count: n_layer, feed_forward_length: n_ff,
      "attention.head_count": n_head, "attention.head_count_kv": n_head, "rope.dimension_count": n_embd / n_head,
    }).map(([key, value]) => entry(`${arch}.${key}`, U32, u32(value))),
    entry(`${arch}.attention.layer_norm_rms_epsilon`, F32, f32(1e-5)),
    entry("tokenizer.ggml.model", STRING, string("llama")),
    array("tokenizer.ggml.tokens", STRING, tokens.map(string)),
    array("tokenizer.ggml.scores", F32, tokens.map(() => f32(0))),
    array("tokenizer.ggml.token_type", 5, types.map(u32)),
    entry("tokenizer.ggml.bos_token_id", U32, u32(1)),
    entry("tokenizer.ggml.eos_token_id", U32, u32(2)),
  ];
  const norm = (name) => ({ name, shape: [n_embd], type: 0 });
  const matrix = (name, n, k) => ({ name, shape: [n, k], type });
  const layers = Array.from({ length: n_layer }, (_, i) => [
    norm(`blk.${i}.attn_norm.weight`),
    ...["q", "k", "v", "output"].map((name) => matrix(`blk.${i}.attn_${name}.weight`, n_embd, n_embd)),
    norm(`blk.${i}.ffn_norm.weight`),
    matrix(`blk.${i}.ffn_gate.weight`, n_ff, n_embd),
    matrix(`blk.${i}.ffn_up.weight`, n_ff, n_embd),
    matrix(`blk.${i}.ffn_down.weight`, n_embd, n_ff),
  ]);
  return { entries, tensors: [matrix("token_embd.weight", tokens.length, n_embd), ...layers.flat(), norm("output_norm.weight")] };
}

function sizeOf({ shape, type }) {
  const [bytes, length] = BLOCKS[type];
  return (shape.reduce((n, d) => n * d, 1) / length) * bytes;
}

const padded = (n) => Math.ceil(n / 32) * 32;

function header({ entries, tensors }, more = []) {
  let offset = 0;
  const heads = tensors.map((tensor) => {
    const { name, shape, type } = tensor;
    const head = Buffer.concat([string(name), u32(shape.length), ...[...shape].reverse().map(u64), u32(type), u64(offset)]);
    offset += padded(sizeOf(tensor));
    return head;
  });
  const bytes = Buffer.concat([
    Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(entries.length + more.length), ...entries, ...more, ...heads,
  ]);
  return Buffer.concat([bytes, Buffer.alloc(padded(bytes.length) - bytes.length)]);
}

/** Small weights: scales of 2^-7 or so, norms of one. */
function data(tensor, next) {
  const bytes = Buffer.alloc(padded(sizeOf(tensor)));
  if (tensor.type === F32_TYPE) {
    const value = tensor.shape.length === 1 ? () => 1 : () => (next() - 0.5) / 8;
    for (let at = 0; at < sizeOf(tensor); at += 4) bytes.writeFloatLE(value(), at);
    return bytes;
  }
  const [blockBytes] = BLOCKS[tensor.type];
  for (let at = 0; at < sizeOf(tensor); at += blockBytes) {
    bytes.writeUInt16LE(0x1400, at);
    for (let i = 2; i < blockBytes; i += 1) bytes[at + i] = next() * 256;
  }
  return bytes;
}

const SHAPE = { n_embd: 256, n_ff: 768, n_layer: 22, n_head: 4, n_ctx: 512, type: Q8_0 };

/** A whole file; with the default shape of 20 MB. `type` is that of the matrices: Q8_0, 2 for Q4_0, 0 for F32. */
export function randomModel(shape = {}, seed = 1) {
  const model = llama({ ...SHAPE, ...shape });
  const next = random(seed);
  return Buffer.concat([header(model), ...model.tensors.map((tensor) => data(tensor, next))]);
}

/** Only the header of such a file. */
export function headerOnly(shape) {
  return header(llama({ ...SHAPE, ...shape }));
}

/** The same model in `n` files, as gguf-split makes them: all metadata in the first. */
export function splitModel(n, shape = {}, seed = 1) {
  const model = llama({ ...SHAPE, ...shape });
  const next = random(seed);
  const perFile = Math.ceil(model.tensors.length / n);
  return Array.from({ length: n }, (_, i) => {
    const part = { entries: i === 0 ? model.entries : [], tensors: model.tensors.slice(i * perFile, (i + 1) * perFile) };
    const split = [
      entry("split.no", U32, u32(i)), entry("split.count", U32, u32(n)), entry("split.tensors.count", U32, u32(model.tensors.length)),
    ];
    return Buffer.concat([header(part, split), ...part.tensors.map((tensor) => data(tensor, next))]);
  });
}

/**
 * A model whose last layers are those of `randomModel(shape, seed)`, after `n` that add nothing to what comes in: as
 * large as wanted, and it computes the same. Its bytes come in portions: together they may be more than a buffer holds.
 */
export function deepModel(n, shape = {}, seed = 1) {
  const whole = { ...SHAPE, ...shape };
  const model = llama({ ...whole, n_layer: n + whole.n_layer });
  const isEmpty = ({ name, shape }) => shape.length > 1 && Number(/^blk\.(\d+)\./.exec(name)?.[1]) < n;
  const head = header(model);
  const zeros = Buffer.alloc(1 << 22);
  return {
    length: head.length + model.tensors.reduce((sum, tensor) => sum + padded(sizeOf(tensor)), 0),
    * chunks() {
      const next = random(seed);
      yield head;
      for (const tensor of model.tensors) {
        if (!isEmpty(tensor)) yield data(tensor, next);
        else for (let left = padded(sizeOf(tensor)); left > 0; left -= zeros.length) yield zeros.subarray(0, Math.min(left, zeros.length));
      }
    },
  };
}
