"""Whether llama.cpp loads what `bitpane quantize` writes, and computes the same from it.

    pip install -r tests/bench/requirements-llama.txt gguf numpy
    cargo build --features cli --bin bitpane
    python tests/data/llama_cpp_loads.py [--bitpane PATH] [--model F16.gguf ...] [--only NAME]

For each file three sets of logits over the same tokens: those of bitpane, those of llama.cpp, and the exact ones, which
are llama.cpp's of the same weights decoded to F32 by gguf-py. Both programs round what goes into a product to 8 bits, each
in its way, so that neither gets the exact ones; ours are to be at most 1.25 times as far from them as llama.cpp's, and
where llama.cpp is exact, within a thousandth of their size. Tokens of a text must be the same.

The files: each --model in every type that can be written, and random models as Hugging Face keeps them (safetensors,
config.json, tokenizer.json) of each architecture that is imported, in F16 and two quantized types.
"""
import argparse
import ctypes
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

TYPES = [
    "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4", "Q3_K", "Q2_K",
    "TQ2_0", "TQ1_0",
]
TEXT = "Once upon a time, there was a little girl named Lily. She liked to play outside in the park, and 2 dogs!"
LARGEST = 1.25
EXACT = 1e-3


def bitpane(*args):
    done = subprocess.run([OPTIONS.bitpane, *map(str, args), "--json"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


class Llama:
    """llama.cpp's model of a file, on the processor."""

    def __init__(self, path):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        # Weights as they are, without a copy in another layout.
        params.use_extra_bufts = False
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError("llama.cpp does not load it")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def tokenize(self, text):
        data = text.encode()
        out = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), out, len(out), True, False)
        return list(out[:n])

    def logits(self, tokens):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 256
        params.n_threads = params.n_threads_batch = 1
        # The keys and values of the exact model are not to be rounded either.
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
        context = llama_cpp.llama_init_from_model(self.model, params)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, True
        if llama_cpp.llama_decode(context, batch):
            raise RuntimeError("llama.cpp does not compute it")
        n = llama_cpp.llama_vocab_n_tokens(self.vocab)
        rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (n,)).copy() for i in range(len(tokens))]
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        return np.array(rows, np.float64)

    def close(self):
        llama_cpp.llama_model_free(self.model)


def decoded(path, out):
    """The same file with all weights as F32."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), kind)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, values.reshape([int(d) for d in tensor.shape][::-1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rms(x):
    return math.sqrt(float((x * x).mean()))


def centred(x):
    return x - x.mean(1, keepdims=True)


def compare(label, path, folder):
    """One row of the table; whether it is as it should be."""
    exact_path = os.path.join(folder, "exact.gguf")
    decoded(path, exact_path)
    theirs, exact = Llama(path), Llama(exact_path)
    try:
        tokens = theirs.tokenize(TEXT)
        same_tokens = bitpane("tokenize", path, "--text", TEXT, "--add-special")["tokens"][0] == tokens
        tokens = tokens[:64]
        reference, found = centred(exact.logits(tokens)), centred(theirs.logits(tokens))
    finally:
        theirs.close()
        exact.close()
    ids = ",".join(map(str, tokens))
    ours = centred(np.array(bitpane("logits", path, "--tokens", ids, "--last", len(tokens), "--kv-type", "F32")["logits"]))
    size, off_ours, off_theirs = rms(reference), rms(ours - reference), rms(found - reference)
    same_top = (ours.argmax(1) == found.argmax(1)).mean()
    is_good = same_tokens and (off_ours <= LARGEST * off_theirs or off_ours <= EXACT * size)
    ratio = off_ours / off_theirs if off_theirs > 1e-6 * size else math.nan
    print(
        f"| {label} | {os.path.getsize(path)} | {'same' if same_tokens else 'OTHER'} | {off_theirs / size:.1e} | {off_ours / size:.1e} | "
        f"{ratio:.2f} | {same_top * 100:.0f} % |{'' if is_good else ' WRONG |'}",
        flush=True,
    )
    return is_good


HEAD = (
    "| file | bytes | tokens | llama.cpp from exact | bitpane from exact | ratio | same likeliest token |\n"
    "|---|--:|---|--:|--:|--:|--:|"
)

# ---- random models as Hugging Face keeps them ----

D, FF, HEADS, KV, LAYERS = 256, 512, 4, 2, 2
DH = D // HEADS


def byte_letters():
    """GPT-2's letters for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(256 + extra)
            extra += 1
    return letters


MERGES = ["t h", "th e", "Ġ t", "Ġ a", "i n", "a n", "an d", "Ġ w", "e r", "o u", "l i", "Ġ s", "Ġ the", "Ġ p", "a y", "l y"]


def byte_level(pattern, specials):
    """A BPE tokenizer over bytes: 256 letters, what the merges make, special tokens."""
    texts = list(byte_letters().values()) + [m.replace(" ", "") for m in MERGES]
    n = len(texts)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern is None}
    pre = plain if pattern is None else {"type": "Sequence", "pretokenizers": [split, plain]}
    return {
        "added_tokens": [{"id": n + i, "content": s, "special": True} for i, s in enumerate(specials)],
        "pre_tokenizer": pre,
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(texts)}, "merges": MERGES, "byte_fallback": False},
    }, n + len(specials)


def sentencepiece(specials):
    """A BPE tokenizer over characters with bytes to fall back on."""
    texts = list(specials) + [f"<0x{b:02X}>" for b in range(256)] + ["▁"] + [chr(c) for c in range(33, 127)]
    merges = [m.replace("Ġ", "▁") for m in MERGES]
    texts += [m.replace(" ", "") for m in merges]
    return {
        "added_tokens": [{"id": i, "content": s, "special": True} for i, s in enumerate(specials)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": {t: i for i, t in enumerate(texts)}, "merges": merges,
                  "byte_fallback": True},
    }, len(texts)


GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = GPT4.replace("{1,3}", "")


def tokenizer(kind):
    if kind == "spm":
        return sentencepiece(["<unk>", "<s>", "</s>"])
    if kind == "gemma":
        found, n = sentencepiece(["<pad>", "<eos>", "<bos>", "<unk>"])
        found["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        return found, n
    return byte_level({"qwen2": QWEN2, "llama3": GPT4, "gpt2": None}[kind], ["<|begin|>", "<|end|>"])


def gated(prefix="mlp."):
    return {prefix + "gate_proj.weight": (FF, D), prefix + "up_proj.weight": (FF, D), prefix + "down_proj.weight": (D, FF)}


def attention(bias=(), dh=DH):
    shapes = {"q": (HEADS * dh, D), "k": (KV * dh, D), "v": (KV * dh, D), "o": (D, HEADS * dh)}
    out = {f"self_attn.{p}_proj.weight": s for p, s in shapes.items()}
    out |= {f"self_attn.{p}_proj.bias": s[:1] for p, s in shapes.items() if p in bias}
    return out


def norms(*names, bias=False):
    return {f"{n}.{part}": (D,) for n in names for part in (["weight", "bias"] if bias else ["weight"])}


PRE = ("input_layernorm", "post_attention_layernorm")
SANDWICH = (*PRE, "pre_feedforward_layernorm", "post_feedforward_layernorm")
QK = {"self_attn.q_norm.weight": (DH,), "self_attn.k_norm.weight": (DH,)}
RMS = {"rms_norm_eps": 1e-5}
BASE = {
    "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV,
    "max_position_embeddings": 512, "rope_theta": 10000.0,
}
OUTER = {"embed_tokens.weight": None, "norm.weight": (D,)}

# name -> (model type, tokenizer, more of the configuration, tensors of a layer, other tensors (None: rows of the vocabulary))
MODELS = {
    "llama": ("llama", "spm", RMS, attention() | gated() | norms(*PRE), OUTER | {"lm_head.weight": None}),
    "llama 3 (scaled rotation)": (
        "llama", "llama3",
        RMS | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 64}},
        attention() | gated() | norms(*PRE), OUTER | {"lm_head.weight": None}),
    "mistral": ("mistral", "spm", RMS, attention() | gated() | norms(*PRE), OUTER | {"lm_head.weight": None}),
    "smollm3": ("smollm3", "llama3", RMS | {"tie_word_embeddings": True}, attention() | gated() | norms(*PRE), OUTER),
    "granite": (
        "granite", "gpt2",
        RMS | {"attention_multiplier": 0.125, "embedding_multiplier": 2.0, "residual_multiplier": 0.5, "logits_scaling": 2.0,
               "tie_word_embeddings": True},
        attention() | gated() | norms(*PRE), OUTER),
    "qwen2": ("qwen2", "qwen2", RMS | {"tie_word_embeddings": True}, attention("qkv") | gated() | norms(*PRE), OUTER),
    "qwen3": ("qwen3", "qwen2", RMS | {"tie_word_embeddings": True, "head_dim": DH}, attention() | QK | gated() | norms(*PRE), OUTER),
    "phi3": (
        "phi3", "spm", RMS,
        {"self_attn.qkv_proj.weight": ((HEADS + 2 * KV) * DH, D), "self_attn.o_proj.weight": (D, D),
         "mlp.gate_up_proj.weight": (2 * FF, D), "mlp.down_proj.weight": (D, FF)} | norms(*PRE),
        OUTER | {"lm_head.weight": None}),
    "stablelm": (
        "stablelm", "qwen2", {"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25},
        attention() | gated() | norms(*PRE, bias=True), OUTER | {"norm.bias": (D,), "lm_head.weight": None}),
    "starcoder2": (
        "starcoder2", "gpt2", {"norm_epsilon": 1e-5, "tie_word_embeddings": True},
        attention("qkvo") | {"mlp.c_fc.weight": (FF, D), "mlp.c_fc.bias": (FF,), "mlp.c_proj.weight": (D, FF), "mlp.c_proj.bias": (D,)}
        | norms(*PRE, bias=True),
        OUTER | {"norm.bias": (D,)}),
    "olmo2": (
        "olmo2", "llama3", RMS,
        attention() | {"self_attn.q_norm.weight": (D,), "self_attn.k_norm.weight": (KV * DH,)} | gated()
        | norms("post_attention_layernorm", "post_feedforward_layernorm"),
        OUTER | {"lm_head.weight": None}),
    "gemma": ("gemma", "gemma", RMS | {"head_dim": DH}, attention() | gated() | norms(*PRE), OUTER),
    "gemma2": (
        "gemma2", "gemma",
        RMS | {"head_dim": DH, "sliding_window": 32, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        attention() | gated() | norms(*SANDWICH), OUTER),
    "gemma3": (
        "gemma3_text", "gemma", RMS | {"head_dim": DH, "sliding_window": 32, "rope_local_base_freq": 10000.0, "rope_theta": 1e6},
        attention() | QK | gated() | norms(*SANDWICH), OUTER),
    "gpt2": (
        "gpt2", "gpt2", {"n_embd": D, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 512, "layer_norm_epsilon": 1e-5},
        {"attn.c_attn.weight": (D, 3 * D), "attn.c_attn.bias": (3 * D,), "attn.c_proj.weight": (D, D), "attn.c_proj.bias": (D,),
         "mlp.c_fc.weight": (D, 4 * D), "mlp.c_fc.bias": (4 * D,), "mlp.c_proj.weight": (4 * D, D), "mlp.c_proj.bias": (D,)}
        | norms("ln_1", "ln_2", bias=True),
        {"wte.weight": None, "wpe.weight": (512, D), "ln_f.weight": (D,), "ln_f.bias": (D,)}),
    "gpt_neox": (
        "gpt_neox", "gpt2", {"layer_norm_eps": 1e-5, "rotary_pct": 0.25, "use_parallel_residual": True},
        {"attention.query_key_value.weight": (3 * D, D), "attention.query_key_value.bias": (3 * D,),
         "attention.dense.weight": (D, D), "attention.dense.bias": (D,), "mlp.dense_h_to_4h.weight": (FF, D),
         "mlp.dense_h_to_4h.bias": (FF,), "mlp.dense_4h_to_h.weight": (D, FF), "mlp.dense_4h_to_h.bias": (D,)} | norms(*PRE, bias=True),
        {"embed_in.weight": None, "final_layer_norm.weight": (D,), "final_layer_norm.bias": (D,), "embed_out.weight": None}),
}
# How names of layers begin, and of all but the output matrix.
PREFIXES = {"gpt2": ("h.", "transformer."), "gpt_neox": ("layers.", "gpt_neox.")}


def write_safetensors(path, tensors):
    header, data, at = {}, [], 0
    for name, values in tensors.items():
        raw = values.astype(np.float16).tobytes()
        header[name] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))


def write_model(folder, name):
    """A random model in a folder."""
    model_type, kind, more, inner, outer = MODELS[name]
    tokens, n_vocab = tokenizer(kind)
    layers, prefix = PREFIXES.get(model_type, ("layers.", "model."))
    random = np.random.default_rng(len(name))
    shapes = {n if n in ("lm_head.weight", "embed_out.weight") else prefix + n: s or (n_vocab, D) for n, s in outer.items()}
    for layer in range(LAYERS):
        shapes |= {f"{prefix}{layers}{layer}.{n}": s for n, s in inner.items()}

    def values(tensor, shape):
        if len(shape) == 1:
            is_gain = tensor.endswith("norm.weight") or ".ln_" in tensor and tensor.endswith(".weight")
            gain = 0.0 if model_type.startswith("gemma") else 1.0
            return random.normal(gain if is_gain else 0.0, 0.1, shape)
        return random.normal(0.0, 1.0 if "embed" in tensor else 1.5 / math.sqrt(shape[-1]), shape)

    config = ({} if model_type == "gpt2" else BASE) | {"model_type": model_type} | more
    if model_type in ("gpt_neox",):
        config.pop("num_key_value_heads")
    if kind == "gemma":
        config |= {"bos_token_id": 2, "eos_token_id": 1}
    elif kind == "spm":
        config |= {"bos_token_id": 1, "eos_token_id": 2}
    else:
        config |= {"bos_token_id": n_vocab - 2, "eos_token_id": n_vocab - 1}
    write_safetensors(os.path.join(folder, "model.safetensors"), {n: values(n, s) for n, s in shapes.items()})
    for file, content in [("config.json", config), ("tokenizer.json", tokens), ("tokenizer_config.json", {
            "add_bos_token": kind in ("spm", "gemma")})]:
        with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
            json.dump(content, f)


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bitpane", default="target/debug/bitpane")
    parser.add_argument("--model", action="append", default=[], help="a language model of floats")
    parser.add_argument("--only", help="an architecture, or a type")
    OPTIONS = parser.parse_args()
    # What it says of each file it loads is of no interest here.
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    wrong = []
    wanted = lambda name: OPTIONS.only in (None, name)

    def attempt(label, folder, source, kind):
        path = os.path.join(folder, "written.gguf")
        try:
            bitpane("quantize", source, path, "--type", kind)
            if not compare(label, path, folder):
                wrong.append(label)
        except RuntimeError as error:
            print(f"| {label} | {error} |", flush=True)
            wrong.append(label)

    with tempfile.TemporaryDirectory() as folder:
        print(HEAD)
        for model in OPTIONS.model:
            for kind in filter(wanted, TYPES):
                attempt(f"{os.path.basename(model)} as {kind}", folder, model, kind)
        for name in filter(wanted, MODELS):
            source = os.path.join(folder, "model")
            os.makedirs(source)
            write_model(source, name)
            for kind in ("F16", "Q8_0", "Q4_K"):
                attempt(f"{name} as {kind}", folder, source, kind)
            shutil.rmtree(source)
    if wrong:
        sys.exit(f"{len(wrong)} are not as they should be: {', '.join(wrong)}")


main()
