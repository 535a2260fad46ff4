"""Writes arch/NAME.gguf, tiny models with random weights, and arch/NAME.json, llama.cpp's logits for them.

Needs: pip install gguf==0.19.0 llama-cpp-python==0.3.36 numpy
Usage: python arch_goldens.py [NAME ...]

The matrices are F16 and the norms F32. `logits_f32` are llama.cpp's logits for the same model with every tensor
expanded to F32, `logits_llamacpp` those for the file itself: CPU, one thread, key-value cache in F32, no flash
attention, no weight repacking, n_ctx = n_batch = n_ubatch = 256, all tokens in one batch; the last four positions.

`sensitivity` says how far the logits move (RMS over RMS) when a feature is altered, so that a forward pass without
that feature is known to fail. A model whose feature does not show is refused.
"""

import ctypes
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

FOLDER = Path(__file__).parent / "arch"
N_VOCAB = 64
N_TOKENS = 24
N_STORED = 4


class Model:
    """Metadata and tensors of one model; shapes are outermost first."""

    def __init__(self, arch, n_embd=32, n_ff=48, n_layer=2, n_head=2, n_head_kv=1, head_dim=16, norm="rms", **keys):
        self.arch = arch
        self.n_embd, self.n_ff, self.n_layer = n_embd, n_ff, n_layer
        self.n_q, self.n_kv, self.head_dim = n_head * head_dim, n_head_kv * head_dim, head_dim
        self.n_head, self.n_head_kv = n_head, n_head_kv
        self.keys = {
            "context_length": 512,
            "embedding_length": n_embd,
            "block_count": n_layer,
            "feed_forward_length": n_ff,
            "attention.head_count": n_head,
            "attention.head_count_kv": n_head_kv,
            "vocab_size": N_VOCAB,
        }
        eps = "attention.layer_norm_rms_epsilon" if norm == "rms" else "attention.layer_norm_epsilon"
        self.keys[eps] = 1e-5
        if n_head * head_dim != n_embd:
            self.keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
        self.keys |= keys
        # Keys without the architecture's name before them.
        self.extra = {}
        self.norm_bias = norm == "layer"
        self.tensors = {}
        self.random = np.random.default_rng(int.from_bytes(hashlib.sha256(arch.encode()).digest()[:4], "little"))
        self.matrix("token_embd", N_VOCAB, n_embd, scale=1.0)

    def matrix(self, name, n, k, scale=1.5, bias=False):
        weights = self.random.standard_normal((n, k)) * (scale / np.sqrt(k) if name != "token_embd" else scale)
        self.tensors[f"{name}.weight"] = weights.astype(np.float16)
        if bias:
            self.vector(f"{name}.bias", n)

    def vector(self, name, *shape, mean=0.0, spread=0.3):
        values = mean + spread * self.random.standard_normal(shape)
        self.tensors[name] = values.astype(np.float32)

    def norm(self, name, n=None, bias=None):
        n = self.n_embd if n is None else n
        self.vector(f"{name}.weight", *(n if isinstance(n, tuple) else (n,)), mean=1.0)
        if self.norm_bias if bias is None else bias:
            self.vector(f"{name}.bias", n)

    def attention(self, i, fused=False, bias=False, out_bias=False):
        p, e = f"blk.{i}.", self.n_embd
        if fused:
            self.matrix(f"{p}attn_qkv", self.n_q + 2 * self.n_kv, e, 2.5, bias)
        else:
            self.matrix(f"{p}attn_q", self.n_q, e, 2.5, bias)
            self.matrix(f"{p}attn_k", self.n_kv, e, 2.5, bias)
            self.matrix(f"{p}attn_v", self.n_kv, e, 1.5, bias)
        self.matrix(f"{p}attn_output", e, self.n_q, 1.5, out_bias)

    def mlp(self, i, gated=True, fused=False, bias=False):
        p, e, f = f"blk.{i}.", self.n_embd, self.n_ff
        if gated and not fused:
            self.matrix(f"{p}ffn_gate", f, e, 1.5, bias)
        self.matrix(f"{p}ffn_up", 2 * f if fused else f, e, 1.5, bias)
        self.matrix(f"{p}ffn_down", e, f, 1.5, bias)

    def layers(self, norms=("attn_norm", "ffn_norm"), qk_norm=None, **attention):
        """Layers of attention and a gated feed-forward part, with these norms over n_embd."""
        for i in range(self.n_layer):
            for part in norms:
                self.norm(f"blk.{i}.{part}")
            self.attention(i, **attention)
            if qk_norm:
                q, k = {
                    "head": (self.head_dim, self.head_dim),
                    "full": (self.n_q, self.n_kv),
                    "per head": ((self.n_head, self.head_dim), (self.n_head_kv, self.head_dim)),
                }[qk_norm]
                self.norm(f"blk.{i}.attn_q_norm", q, bias=False)
                self.norm(f"blk.{i}.attn_k_norm", k, bias=False)
            self.mlp(i)
        return self.end()

    def blocks(self, norms=("attn_norm", "ffn_norm"), attention=None, mlp=None, **end):
        """Layers of an attention and a feed-forward part of these kinds."""
        for i in range(self.n_layer):
            for part in norms:
                self.norm(f"blk.{i}.{part}")
            self.attention(i, **(attention or {}))
            self.mlp(i, **(mlp or {}))
        return self.end(**end)

    def end(self, output=False, output_bias=False, norm=True):
        if norm:
            self.norm("output_norm")
        if output:
            self.matrix("output", N_VOCAB, self.n_embd, 2.0, output_bias)
        return self

    def write(self, path, expand, keys=(), tensors=()):
        """The file, with every tensor as F32 if `expand`, and some keys and tensors altered."""
        writer = gguf.GGUFWriter(str(path), self.arch)
        writer.add_name("tiny-random")
        for key, value in {**self.extra, **self.keys, **dict(keys)}.items():
            key = key if key in self.extra else f"{self.arch}.{key}"
            if isinstance(value, bool):
                writer.add_bool(key, value)
            elif isinstance(value, int):
                writer.add_uint32(key, value)
            elif isinstance(value, float):
                writer.add_float32(key, value)
            elif isinstance(value, str):
                writer.add_string(key, value)
            elif isinstance(value, list):
                writer.add_array(key, value)
            else:
                assert value is None, key
        writer.add_tokenizer_model("llama")
        letters = [chr(ord("a") + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(N_VOCAB - 4)]
        writer.add_token_list(["<unk>", "<s>", "</s>", "\u2581", *letters])
        writer.add_token_scores([-float(i) for i in range(N_VOCAB)])
        writer.add_token_types([2, 3, 3] + [1] * (N_VOCAB - 3))
        for name, values in {**self.tensors, **dict(tensors)}.items():
            writer.add_tensor(name, values.astype(np.float32) if expand else values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def logits_of(path, ids):
    """llama.cpp's logits at every position, `[N_TOKENS, N_VOCAB]`."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"{path}: llama.cpp does not load it"
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = 0
    params.flash_attn_type = 0
    params.swa_full = True
    context = llama_cpp.llama_init_from_model(model, params)
    assert context, path
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert llama_cpp.llama_decode(context, batch) == 0
    rows = llama_cpp.llama_get_logits(context)
    logits = np.ctypeslib.as_array(rows, shape=(len(ids), N_VOCAB)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    assert np.isfinite(logits).all(), path
    return logits


def rel_rms(got, want):
    return float(np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)))


def ones(model, part):
    return {n: np.ones_like(t) for n, t in model.tensors.items() if f".{part}." in n}


def gemma3():
    sizes = dict(n_embd=24, n_ff=32, n_layer=7, n_head=2, head_dim=16)
    keys = {
        "attention.sliding_window": 8,
        "rope.freq_base": 1e6,
        "rope.freq_base_swa": 10000.0,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 8.0,
    }
    norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    model = Model("gemma3", **sizes, **keys).layers(norms, "head")
    return model, {
        "window 512": {"attention.sliding_window": 512},
        "local rope base 1e6": {"rope.freq_base_swa": 1e6},
        "no scaling": {"rope.scaling.factor": 1.0},
        "q norm 1": ones(model, "attn_q_norm"),
        "post_ffw_norm 1": ones(model, "post_ffw_norm"),
    }


def olmo2():
    model = Model("olmo2", **{"rope.freq_base": 500000.0})
    model.layers(("post_attention_norm", "post_ffw_norm"), "full")
    model.matrix("output", N_VOCAB, model.n_embd, 2.0)
    return model, {"q norm 1": ones(model, "attn_q_norm"), "k norm 1": ones(model, "attn_k_norm")}


def olmo2_window():
    sizes = dict(n_embd=32, n_ff=48, n_layer=5, n_head=2, head_dim=16)
    keys = {
        "attention.sliding_window": 8,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 8.0,
        "rope.scaling.original_context_length": 64,
        "rope.scaling.attn_factor": 1.2,
    }
    model = Model("olmo2", **sizes, **keys)
    model.layers(("post_attention_norm", "post_ffw_norm"), "full")
    model.matrix("output", N_VOCAB, model.n_embd, 2.0)
    return model, {"window 512": {"attention.sliding_window": 512}, "no scaling": {"rope.scaling.type": "none"}}


def granite():
    keys = {
        "attention.scale": 0.4,
        "embedding_scale": 3.0,
        "residual_scale": 0.6,
        "logit_scale": 4.0,
        "rope.dimension_count": 16,
    }
    model = Model("granite", **keys).layers()
    return model, {
        "attention scale 0.25": {"attention.scale": 0.25},
        "embedding scale 1": {"embedding_scale": 1.0},
        "residual scale 1": {"residual_scale": 1.0},
        "logit scale 1": {"logit_scale": 1.0},
    }


def stablelm():
    keys = {"rope.dimension_count": 4, "use_parallel_residual": True}
    model = Model("stablelm", n_head_kv=2, norm="layer", **keys).layers(bias=True)
    model.matrix("output", N_VOCAB, model.n_embd, 2.0)
    return model, {"rope dims 16": {"rope.dimension_count": 16}}


def stablelm_parallel():
    keys = {"rope.dimension_count": 4, "use_parallel_residual": True}
    model = Model("stablelm", n_head=4, n_head_kv=2, head_dim=8, norm="layer", **keys)
    model.layers(("attn_norm",), "per head")
    model.matrix("output", N_VOCAB, model.n_embd, 2.0)
    return model, {"q norm 1": ones(model, "attn_q_norm"), "k norm 1": ones(model, "attn_k_norm")}


def exaone4():
    keys = {"rope.freq_base": 1e6, "attention.sliding_window": 8}
    model = Model("exaone4", **keys).layers(("post_attention_norm", "post_ffw_norm"), "head")
    return model, {"q norm 1": ones(model, "attn_q_norm"), "rope base 10000": {"rope.freq_base": 10000.0}}


def exaone4_window():
    sizes = dict(n_embd=8, n_ff=16, n_layer=64, n_head=1, head_dim=8)
    keys = {"attention.sliding_window": 8, "attention.sliding_window_pattern": 4}
    model = Model("exaone4", **sizes, **keys).layers(("post_attention_norm", "post_ffw_norm"), "head")
    return model, {"window 512": {"attention.sliding_window": 512}, "all local": {"attention.sliding_window_pattern": 0}}


def hunyuan_dense():
    keys = {"rope.freq_base": 10000.0, "rope.scaling.alpha": 50.0}
    model = Model("hunyuan-dense", head_dim=24, **keys).layers(qk_norm="head")
    return model, {"alpha 0": {"rope.scaling.alpha": 0.0}, "q norm 1": ones(model, "attn_q_norm")}


def llama_yarn():
    keys = {
        "rope.dimension_count": 16,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 64,
        "rope.scaling.attn_factor": 1.1,
    }
    model = Model("llama", **keys).layers()
    return model, {
        "no scaling": {"rope.scaling.type": "none"},
        "linear": {"rope.scaling.type": "linear"},
        "attn_factor 1": {"rope.scaling.attn_factor": 1.0},
        "original context 512": {"rope.scaling.original_context_length": 512},
    }


def llama_linear():
    keys = {"rope.dimension_count": 16, "rope.scaling.factor": 4.0}
    model = Model("llama", **keys).layers()
    return model, {"no scaling": {"rope.scaling.type": "none"}}


def phi3_long():
    keys = {
        "rope.dimension_count": 16,
        "rope.scaling.original_context_length": 128,
        "rope.scaling.attn_factor": 1.19,
        "attention.sliding_window": 8,
    }
    model = Model("phi3", **keys).blocks(attention=dict(fused=True), mlp=dict(fused=True), output=True)
    model.tensors["rope_factors_long.weight"] = np.linspace(1.1, 6.0, 8, dtype=np.float32)
    model.tensors["rope_factors_short.weight"] = np.linspace(1.0, 1.5, 8, dtype=np.float32)
    return model, {
        "original context 256 (short factors)": {"rope.scaling.original_context_length": 256},
        "attn_factor 1": {"rope.scaling.attn_factor": 1.0},
    }


def gptneox_sequential():
    keys = {"rope.dimension_count": 4, "use_parallel_residual": False}
    model = Model("gptneox", n_head_kv=2, norm="layer", **keys)
    attention = dict(fused=True, bias=True, out_bias=True)
    model.blocks(attention=attention, mlp=dict(gated=False, bias=True), output=True)
    return model, {"parallel residual": {"use_parallel_residual": True}}


def internlm2():
    model = Model("internlm2", **{"rope.freq_base": 1e6}).blocks(output=True)
    return model, {"rope base 10000": {"rope.freq_base": 10000.0}}


def exaone():
    model = Model("exaone", **{"rope.freq_base": 1e6}).blocks()
    model.vector("rope_freqs.weight", 8, mean=4.0)
    return model, {"rope_freqs 1": {"rope_freqs.weight": np.ones(8, np.float32)}}


def starcoder():
    model = Model("starcoder", norm="layer")
    model.keys["context_length"] = 256
    model.vector("position_embd.weight", 256, model.n_embd, spread=0.5)
    attention = dict(fused=True, bias=True, out_bias=True)
    model.blocks(attention=attention, mlp=dict(gated=False, bias=True))
    return model, {"position embedding 0": {"position_embd.weight": np.zeros((256, model.n_embd), np.float32)}}


def orion():
    model = Model("orion", norm="layer").blocks(output=True)
    return model, {"norm bias 0": {f"blk.{i}.attn_norm.bias": np.zeros(model.n_embd, np.float32) for i in range(2)}}


def nemotron():
    model = Model("nemotron", norm="layer", **{"rope.dimension_count": 8})
    model.blocks(mlp=dict(gated=False), output=True)
    return model, {"rope dims 16": {"rope.dimension_count": 16}}


def arcee():
    keys = {"rope.scaling.type": "yarn", "rope.scaling.factor": 20.0, "rope.scaling.original_context_length": 32}
    return Model("arcee", **keys).blocks(mlp=dict(gated=False)), {"no scaling": {"rope.scaling.type": "none"}}


def olmo():
    model = Model("olmo", norm="layer", **{"attention.clamp_kqv": 1.5}).blocks(norms=())
    model.tensors = {n: t for n, t in model.tensors.items() if not n.startswith("output_norm")}
    return model, {"clamp 100": {"attention.clamp_kqv": 100.0}}


def minicpm():
    model = Model("minicpm", n_layer=3).blocks()
    return model, {"residual scale 1": {"residual_scale": 1.0}, "embedding scale 1": {"embedding_scale": 1.0}}


def falcon():
    model = Model("falcon", norm="layer")
    return model.blocks(("attn_norm",), dict(fused=True), dict(gated=False)), {}


def falcon_40b():
    model = Model("falcon", n_head=4, n_head_kv=2, head_dim=8, norm="layer")
    model.blocks(("attn_norm", "attn_norm_2"), dict(fused=True), dict(gated=False), output=True)
    return model, {"attn_norm_2 1": ones(model, "attn_norm_2")}


def command_r():
    model = Model("command-r", norm="layer", **{"logit_scale": 0.25})
    model.norm_bias = False
    return model.blocks(("attn_norm",)), {"logit scale 1": {"logit_scale": 1.0}}


def cohere2():
    keys = {"logit_scale": 0.25, "attention.sliding_window": 8, "rope.dimension_count": 8}
    model = Model("cohere2", n_embd=24, n_ff=32, n_layer=5, n_head=3, head_dim=8, norm="layer", **keys)
    model.norm_bias = False
    return model.blocks(("attn_norm",)), {"window 512": {"attention.sliding_window": 512}}


def glm4():
    norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    model = Model("glm4", **{"rope.dimension_count": 8})
    model.blocks(norms, dict(bias=True), dict(fused=True), output=True)
    return model, {"rope dims 16": {"rope.dimension_count": 16}, "post_ffw_norm 1": ones(model, "post_ffw_norm")}


MODELS = {
    "gemma3": gemma3,
    "olmo2": olmo2,
    "olmo2-window": olmo2_window,
    "granite": granite,
    "stablelm": stablelm,
    "stablelm-parallel": stablelm_parallel,
    "exaone4": exaone4,
    "exaone4-window": exaone4_window,
    "hunyuan-dense": hunyuan_dense,
    "llama-yarn": llama_yarn,
    "llama-linear": llama_linear,
    "phi3-long": phi3_long,
    "gptneox-sequential": gptneox_sequential,
    "internlm2": internlm2,
    "exaone": exaone,
    "starcoder": starcoder,
    "orion": orion,
    "nemotron": nemotron,
    "arcee": arcee,
    "olmo": olmo,
    "minicpm": minicpm,
    "falcon": falcon,
    "falcon-40b": falcon_40b,
    "command-r": command_r,
    "cohere2": cohere2,
    "glm4": glm4,
}


def digits(rows):
    return [[float(f"{x:.6g}") for x in row] for row in rows]


def golden(name, model, alterations):
    ids = [1] + [int(i) for i in np.random.default_rng(7).integers(4, N_VOCAB, N_TOKENS - 1)]
    path = FOLDER / f"{name}.gguf"
    model.write(path, expand=False)
    theirs = logits_of(path, ids)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "f32.gguf"

        def exact(changes):
            tensors = {k: v for k, v in changes.items() if k in model.tensors}
            keys = {k: v for k, v in changes.items() if k not in tensors}
            model.write(scratch, True, keys, tensors)
            return logits_of(scratch, ids)

        want = exact({})
        error = rel_rms(theirs, want)
        sensitivity = {what: rel_rms(exact(changes), want) for what, changes in alterations.items()}
    for what, moved in sensitivity.items():
        assert moved > 10 * error, f"{name}: {what} moves the logits by {moved}, rounding by {error}"
    document = {
        "architecture": model.arch,
        "kind": "logits",
        "hparams": model.keys,
        "tensors": {n: ["F16" if t.dtype == np.float16 else "F32", *t.shape[::-1]] for n, t in model.tensors.items()},
        "token_ids": ids,
        "positions": list(range(N_TOKENS - N_STORED, N_TOKENS)),
        "sensitivity": {what: float(f"{moved:.3g}") for what, moved in sensitivity.items()},
        "error_llamacpp_vs_f32": float(f"{error:.3g}"),
        "logits_f32": digits(want[-N_STORED:]),
        "logits_llamacpp": digits(theirs[-N_STORED:]),
    }
    if model.n_layer > 8:
        document["tensors"] = {n: t for n, t in document["tensors"].items() if not n.startswith("blk.") or n.startswith("blk.0.")}
    (FOLDER / f"{name}.json").write_text(json.dumps(document) + "\n")
    print(f"{name}: {path.stat().st_size} bytes, error {error:.2e}, " + ", ".join(f"{k}: {v:.2g}" for k, v in sensitivity.items()))


@llama_cpp.llama_log_callback
def show_errors(level, text, _):
    if level == 4:
        sys.stderr.write(text.decode())


if __name__ == "__main__":
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(show_errors, ctypes.c_void_p())
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or MODELS:
        golden(name, *MODELS[name]())
