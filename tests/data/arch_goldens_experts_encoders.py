"""Writes arch/NAME.gguf and arch/NAME.json for mixtures of experts, layers with a state, and encoders; see
arch_goldens.py.

Encoders have `token_embeddings_*`, the vectors of the last four positions without pooling, and `pooled_*`, what
llama.cpp's pooling of that name makes of all of them, not normalized. All tokens are of token type 0.

Needs and usage: as arch_goldens.py.
"""

import ctypes
import json
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

import arch_goldens as base
from arch_goldens import FOLDER, N_STORED, N_TOKENS, N_VOCAB, Model, digits, rel_rms

POOLINGS = {"mean": llama_cpp.LLAMA_POOLING_TYPE_MEAN, "rank": 4}


def experts(model, n_expert, n_ff, shared=None, shared_gate=False):
    """The experts of every layer; what is shared is `shared` wide."""
    e = model.n_embd
    stack = lambda n, k: (model.random.standard_normal((n_expert, n, k)) * 1.5 / np.sqrt(k)).astype(np.float16)
    for i in range(model.n_layer):
        p = f"blk.{i}.ffn_"
        model.vector(f"{p}gate_inp.weight", n_expert, e, spread=0.3)
        model.tensors[f"{p}gate_exps.weight"] = stack(n_ff, e)
        model.tensors[f"{p}up_exps.weight"] = stack(n_ff, e)
        model.tensors[f"{p}down_exps.weight"] = stack(e, n_ff)
        if shared:
            model.matrix(f"{p}gate_shexp", shared, e)
            model.matrix(f"{p}up_shexp", shared, e)
            model.matrix(f"{p}down_shexp", e, shared)
        if shared_gate:
            model.vector(f"{p}gate_inp_shexp.weight", e)
    return model


def attention(model, qk_norm=False):
    for i in range(model.n_layer):
        model.norm(f"blk.{i}.attn_norm")
        model.attention(i)
        if qk_norm:
            model.norm(f"blk.{i}.attn_q_norm", model.head_dim)
            model.norm(f"blk.{i}.attn_k_norm", model.head_dim)
        model.norm(f"blk.{i}.ffn_norm")
    return model.end(output=True)


def granitemoe(shared=None):
    keys = {
        "attention.scale": 0.4,
        "embedding_scale": 3.0,
        "residual_scale": 0.6,
        "logit_scale": 4.0,
        "rope.dimension_count": 16,
        "expert_count": 5,
        "expert_used_count": 2,
    }
    alterations = {"1 expert": {"expert_used_count": 1}, "residual scale 1": {"residual_scale": 1.0}}
    if shared:
        keys["expert_shared_feed_forward_length"] = shared
    model = experts(attention(Model("granitemoe", n_ff=28, **keys)), 5, 28, shared)
    if shared:
        down = {n: np.zeros_like(t) for n, t in model.tensors.items() if "down_shexp" in n}
        alterations["no shared expert"] = down
    return model, alterations


def qwen3moe():
    keys = {"rope.freq_base": 1e6, "expert_count": 6, "expert_used_count": 3, "expert_feed_forward_length": 20}
    model = experts(attention(Model("qwen3moe", **keys), qk_norm=True), 6, 20)
    return model, {"2 experts": {"expert_used_count": 2}, "q norm 1": base.ones(model, "attn_q_norm")}


def mixtral():
    keys = {"expert_count": 4, "expert_used_count": 2}
    model = experts(attention(Model("llama", **keys)), 4, 48)
    return model, {"1 expert": {"expert_used_count": 1}}


def mamba2():
    d_inner, d_state, n_head, n_group, n_tap = 48, 8, 6, 2, 4
    keys = {
        "ssm.conv_kernel": n_tap,
        "ssm.inner_size": d_inner,
        "ssm.state_size": d_state,
        "ssm.time_step_rank": n_head,
        "ssm.group_count": n_group,
    }
    model = Model("mamba2", n_embd=32, n_ff=0, n_head=0, n_head_kv=0, **keys)
    model.keys.pop("attention.key_length"), model.keys.pop("attention.value_length")
    model.keys["attention.head_count_kv"] = None
    conv = d_inner + 2 * n_group * d_state
    for i in range(model.n_layer):
        p = f"blk.{i}."
        model.norm(f"{p}attn_norm")
        model.matrix(f"{p}ssm_in", d_inner + conv + n_head, model.n_embd)
        model.vector(f"{p}ssm_conv1d.weight", conv, n_tap, spread=0.6)
        model.vector(f"{p}ssm_conv1d.bias", conv)
        model.vector(f"{p}ssm_dt.bias", n_head)
        model.tensors[f"{p}ssm_a"] = -np.linspace(0.1, 2.0, n_head, dtype=np.float32)[:, None]
        model.vector(f"{p}ssm_d", n_head, 1)
        model.norm(f"{p}ssm_norm", (n_group, d_inner // n_group))
        model.matrix(f"{p}ssm_out", model.n_embd, d_inner)
    return model.end(), {
        "ssm_a -1": {n: -np.ones_like(t) for n, t in model.tensors.items() if n.endswith("ssm_a")},
        "ssm_norm 1": {n: np.ones_like(t) for n, t in model.tensors.items() if "ssm_norm" in n},
        "ssm_d 0": {n: np.zeros_like(t) for n, t in model.tensors.items() if n.endswith("ssm_d")},
    }


def lfm2():
    kv = [0, 1, 0, 3]
    keys = {"attention.head_count_kv": kv, "shortconv.l_cache": 3, "rope.freq_base": 1e6}
    model = Model("lfm2", n_embd=48, n_ff=48, n_layer=4, n_head=3, **keys)
    for i, n_head_kv in enumerate(kv):
        p = f"blk.{i}."
        model.norm(f"{p}attn_norm")
        if n_head_kv:
            model.n_kv = n_head_kv * model.head_dim
            model.attention(i)
            model.norm(f"{p}attn_q_norm", model.head_dim)
            model.norm(f"{p}attn_k_norm", model.head_dim)
        else:
            model.vector(f"{p}shortconv.conv.weight", model.n_embd, 3, spread=0.6)
            model.matrix(f"{p}shortconv.in_proj", 3 * model.n_embd, model.n_embd)
            model.matrix(f"{p}shortconv.out_proj", model.n_embd, model.n_embd)
        model.norm(f"{p}ffn_norm")
        model.mlp(i)
    model.norm("token_embd_norm")
    taps = {n: np.full_like(t, 0.3) for n, t in model.tensors.items() if "conv.weight" in n}
    return model, {"conv taps equal": taps, "rope base 10000": {"rope.freq_base": 10000.0}}


def rwkv7():
    # llama.cpp's vectorized step is wrong for heads that are no multiple of 32.
    size, ranks = 32, {"w": 4, "a": 4, "v": 3, "g": 6}
    keys = {
        "wkv.head_size": size,
        "attention.decay_lora_rank": ranks["w"],
        "attention.iclr_lora_rank": ranks["a"],
        "attention.value_residual_mix_lora_rank": ranks["v"],
        "attention.gate_lora_rank": ranks["g"],
    }
    model = Model("rwkv7", n_embd=64, n_ff=32, n_head=0, n_head_kv=0, norm="layer", **keys)
    model.keys.pop("attention.key_length"), model.keys.pop("attention.value_length")
    model.keys["attention.head_count_kv"] = None
    n = model.n_embd
    model.norm("token_embd_norm")
    for i in range(model.n_layer):
        p = f"blk.{i}."
        model.norm(f"{p}attn_norm")
        model.norm(f"{p}attn_norm_2")
        t = f"{p}time_mix_"
        model.norm(f"{t}ln")
        model.vector(f"{t}lerp_fused.weight", 6, 1, 1, n, mean=0.5)
        for part, rank in ranks.items():
            # llama.cpp wants this width of the first layer's, which is unused.
            rank = ranks["a"] if part == "v" and i == 0 else rank
            model.vector(f"{t}{part}1.weight", rank, n)
            model.vector(f"{t}{part}2.weight", n, rank)
            if part != "g":
                model.vector(f"{t}{part}0.weight", n, spread=0.8)
        model.vector(f"{t}k_k.weight", n, mean=0.8)
        model.vector(f"{t}k_a.weight", n, mean=1.0)
        model.vector(f"{t}r_k.weight", n)
        for part in ("key", "value", "receptance", "output"):
            model.matrix(f"{t}{part}", n, n)
        model.vector(f"{p}channel_mix_lerp_k.weight", 1, 1, n, mean=0.5)
        model.matrix(f"{p}channel_mix_key", model.n_ff, n)
        model.matrix(f"{p}channel_mix_value", n, model.n_ff)
    model.end(output=True)
    zeros = lambda part: {n: np.zeros_like(t) for n, t in model.tensors.items() if part in n}
    return model, {"decay w0 0": zeros("mix_w0"), "r_k 0": zeros("r_k"), "token shift 0": zeros("lerp"), "v0 0": zeros("mix_v0")}


def encoder(arch, norm_bias=True, **keys):
    n_head = keys.pop("n_head", 3)
    model = Model(arch, n_head=n_head, n_head_kv=n_head, norm="layer", **{"attention.causal": False, "pooling_type": 1, **keys})
    model.norm_bias = norm_bias
    model.extra["tokenizer.ggml.token_type_count"] = 2
    model.norm("token_embd_norm")
    return model


def post_norm_layers(model, gated, bias, fused):
    model.vector("token_types.weight", 2, model.n_embd, spread=1.0)
    for i in range(model.n_layer):
        model.attention(i, fused=fused, bias=bias, out_bias=bias)
        model.norm(f"blk.{i}.attn_output_norm")
        model.mlp(i, gated=gated, bias=bias)
        model.norm(f"blk.{i}.layer_output_norm")
    return model


def zero(model, name):
    return {name: np.zeros_like(model.tensors[name])}


def nomic_bert():
    model = post_norm_layers(encoder("nomic-bert", **{"rope.freq_base": 1000.0}), gated=True, bias=False, fused=True)
    return model, {"rope base 10000": {"rope.freq_base": 10000.0}, "token type 0": zero(model, "token_types.weight")}


def bert_rank():
    labels = [f"label {i}" for i in range(16)]
    model = encoder("bert", **{"pooling_type": 4, "context_length": 128, "classifier.output_labels": labels})
    post_norm_layers(model, gated=False, bias=True, fused=True)
    model.vector("position_embd.weight", 128, model.n_embd, spread=1.0)
    model.matrix("cls", model.n_embd, model.n_embd, bias=True)
    model.matrix("cls.output", len(labels), model.n_embd, bias=True)
    return model, {"cls bias 0": zero(model, "cls.bias"), "position embedding 0": zero(model, "position_embd.weight")}


def modern_bert(**more):
    keys = {
        "attention.sliding_window": 8,
        "rope.freq_base": 160000.0,
        "rope.freq_base_swa": 10000.0,
    }
    model = encoder("modern-bert", norm_bias=False, n_layer=5, n_embd=32, n_ff=40, n_head=2, **keys, **more)
    for i in range(model.n_layer):
        if i > 0:
            model.norm(f"blk.{i}.attn_norm")
        model.attention(i, fused=True)
        model.norm(f"blk.{i}.ffn_norm")
        model.mlp(i, fused=True)
    model.end()
    return model, {
        "window 512": {"attention.sliding_window": 512},
        "local rope base 160000": {"rope.freq_base_swa": 160000.0},
        "last norm 1": {"output_norm.weight": np.ones(model.n_embd, np.float32)},
    }


TEXT = {
    "granitemoe": granitemoe,
    "granitemoe-shared": lambda: granitemoe(24),
    "qwen3moe": qwen3moe,
    "llama-experts": mixtral,
    "mamba2": mamba2,
    "lfm2": lfm2,
    "rwkv7": rwkv7,
}
ENCODERS = {"nomic-bert": nomic_bert, "bert-rank": bert_rank, "modern-bert": modern_bert}


def vectors_of(path, ids, pooling):
    """llama.cpp's vectors: of every token without pooling, else one."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"{path}: llama.cpp does not load it"
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = 0
    params.embeddings = True
    params.pooling_type = POOLINGS.get(pooling, 0)
    context = llama_cpp.llama_init_from_model(model, params)
    assert context, path
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert llama_cpp.llama_decode(context, batch) == 0
    read = lambda pointer, n: np.ctypeslib.as_array(pointer, shape=(n,)).copy()
    if pooling == "rank":
        vectors = read(llama_cpp.llama_get_embeddings_seq(context, 0), llama_cpp.llama_model_n_cls_out(model))
    elif pooling:
        vectors = read(llama_cpp.llama_get_embeddings_seq(context, 0), llama_cpp.llama_model_n_embd(model))
    else:
        n_embd = llama_cpp.llama_model_n_embd(model)
        vectors = np.stack([read(llama_cpp.llama_get_embeddings_ith(context, i), n_embd) for i in range(len(ids))])
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    assert np.isfinite(vectors).all(), path
    return vectors


def golden(name, model, alterations):
    ids = [1] + [int(i) for i in np.random.default_rng(7).integers(4, N_VOCAB, N_TOKENS - 1)]
    pooling = {1: "mean", 4: "rank"}[model.keys["pooling_type"]]
    path = FOLDER / f"{name}.gguf"
    model.write(path, expand=False)
    document = {
        "architecture": model.arch,
        "kind": "embedding",
        "pooling_type": pooling,
        "hparams": model.keys,
        "tensors": {n: ["F16" if t.dtype == np.float16 else "F32", *t.shape[::-1]] for n, t in model.tensors.items()},
        "token_ids": ids,
        "positions": list(range(N_TOKENS - N_STORED, N_TOKENS)),
    }
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "f32.gguf"

        def exact(changes, pooling):
            tensors = {k: v for k, v in changes.items() if k in model.tensors}
            keys = {k: v for k, v in changes.items() if k not in tensors}
            model.write(scratch, True, keys, tensors)
            return vectors_of(scratch, ids, pooling)

        each, pooled = exact({}, None), exact({}, pooling)
        error = rel_rms(vectors_of(path, ids, pooling), pooled)
        sensitivity = {what: rel_rms(exact(changes, pooling), pooled) for what, changes in alterations.items()}
        document |= {
            "sensitivity": {what: float(f"{moved:.3g}") for what, moved in sensitivity.items()},
            "error_llamacpp_vs_f32": float(f"{error:.3g}"),
            "token_embeddings_f32": digits(each[-N_STORED:]),
            "token_embeddings_llamacpp": digits(vectors_of(path, ids, None)[-N_STORED:]),
            "pooled_f32": digits([pooled])[0],
            "pooled_llamacpp": digits([vectors_of(path, ids, pooling)])[0],
        }
    for what, moved in sensitivity.items():
        assert moved > 10 * error, f"{name}: {what} moves the vector by {moved}, rounding by {error}"
    (FOLDER / f"{name}.json").write_text(json.dumps(document) + "\n")
    print(f"{name}: {path.stat().st_size} bytes, error {error:.2e}, " + ", ".join(f"{k}: {v:.2g}" for k, v in sensitivity.items()))


if __name__ == "__main__":
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(base.show_errors, ctypes.c_void_p())
    for name in sys.argv[1:] or [*TEXT, *ENCODERS]:
        if name in TEXT:
            base.golden(name, *TEXT[name]())
        else:
            golden(name, *ENCODERS[name]())
