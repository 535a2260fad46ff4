"""The llama architecture in JAX, with weights named as in GGUF.

A model is a dictionary of float32 arrays. Linear weights have the shape [outputs, inputs], as in a GGUF file read by
gguf-py, so a file is loaded and written without any transposition. RoPE rotates the pairs (2i, 2i+1), which is what
llama.cpp does for this architecture.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Config:
    """Sizes of a llama model. `context` is the longest sequence it is trained on, in tokens."""

    vocab: int
    width: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    context: int
    eps: float = 1e-5
    rope_base: float = 10000.0

    @property
    def head_dim(self):
        return self.width // self.heads


def layer_shapes(cfg):
    """Name within a block -> shape, for every tensor of one block."""
    kv = cfg.kv_heads * cfg.head_dim
    return {
        "attn_norm": (cfg.width,),
        "attn_q": (cfg.width, cfg.width),
        "attn_k": (kv, cfg.width),
        "attn_v": (kv, cfg.width),
        "attn_output": (cfg.width, cfg.width),
        "ffn_norm": (cfg.width,),
        "ffn_gate": (cfg.ffn, cfg.width),
        "ffn_up": (cfg.ffn, cfg.width),
        "ffn_down": (cfg.width, cfg.ffn),
    }


def shapes(cfg):
    """GGUF tensor name -> shape for the whole model; the embedding is also the output matrix."""
    out = {"token_embd.weight": (cfg.vocab, cfg.width)}
    for i in range(cfg.layers):
        out |= {f"blk.{i}.{name}.weight": shape for name, shape in layer_shapes(cfg).items()}
    return out | {"output_norm.weight": (cfg.width,)}


def init(cfg, seed):
    """Random weights: normal with deviation 0.02, projections into the residual stream smaller by sqrt(2 layers)."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in shapes(cfg).items():
        if len(shape) == 1:
            params[name] = np.ones(shape, np.float32)
            continue
        scale = 0.02 / np.sqrt(2 * cfg.layers) if "attn_output" in name or "ffn_down" in name else 0.02
        params[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
    return params


def rope_tables(cfg, length):
    """cos and sin of every position and pair, each [length, head_dim / 2]."""
    freq = cfg.rope_base ** (-np.arange(0, cfg.head_dim, 2) / cfg.head_dim)
    angle = np.arange(length)[:, None] * freq[None, :]
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate(x, cos, sin):
    """RoPE on x [..., head_dim]; cos and sin broadcast against [..., head_dim / 2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def rms_norm(x, weight, eps):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def factor(x):
    """x as a factor of a product: accelerators multiply in bfloat16 and add in float32."""
    return x if jax.default_backend() == "cpu" else x.astype(jnp.bfloat16)


def product(a, b):
    """a [..., m, k] times b [..., k, n], in float32."""
    return jnp.matmul(factor(a), factor(b), preferred_element_type=jnp.float32)


def linear(x, weight):
    """x [..., inputs] times a weight [outputs, inputs]."""
    x, weight = factor(x), factor(weight)
    return jax.lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=jnp.float32)


def mix_forward(q, k, v, mask):
    q, k, v = factor(q), factor(k), factor(v)
    probs = factor(jax.nn.softmax(product(q, k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5 + mask, axis=-1))
    return product(probs, v), (q, k, v, probs)


def mix_backward(saved, g):
    q, k, v, probs = saved
    d_probs = product(g, v.swapaxes(-1, -2))
    d_scores = factor(probs * (d_probs - jnp.sum(d_probs * probs, axis=-1, keepdims=True)) * q.shape[-1] ** -0.5)
    return product(d_scores, k), product(d_scores.swapaxes(-1, -2), q), product(probs.swapaxes(-1, -2), g), None


@jax.custom_vjp
def mix(q, k, v, mask):
    """Attention over [B, heads, rows, d]; the gradient is written out because the derived one is slow on a CPU."""
    return mix_forward(q, k, v, mask)[0]


mix.defvjp(mix_forward, mix_backward)


def attention(cfg, q, k, v, mask):
    """Grouped-query attention: q [B, heads, T, d], k and v [B, kv_heads, S, d], mask [T, S] added to the scores."""
    batch, _, rows, dim = q.shape
    group = cfg.heads // cfg.kv_heads
    q = q.reshape(batch, cfg.kv_heads, group * rows, dim)
    return mix(q, k, v, jnp.tile(mask, (group, 1))).reshape(batch, cfg.heads, rows, dim)


def block(cfg, params, i, x, cos, sin, mask, cache=None):
    """One block on x [B, T, width]. With `cache` (keys, values, position) the new rows are appended to it first."""
    w = lambda name: params[f"blk.{i}.{name}.weight"]
    batch, rows, _ = x.shape
    split = lambda t, heads: t.reshape(batch, rows, heads, cfg.head_dim).transpose(0, 2, 1, 3)
    h = rms_norm(x, w("attn_norm"), cfg.eps)
    q = rotate(split(linear(h, w("attn_q")), cfg.heads), cos, sin)
    k = rotate(split(linear(h, w("attn_k")), cfg.kv_heads), cos, sin)
    v = split(linear(h, w("attn_v")), cfg.kv_heads)
    if cache is not None:
        keys, values, at = cache
        k = jax.lax.dynamic_update_slice(keys, k, (0, 0, at, 0))
        v = jax.lax.dynamic_update_slice(values, v, (0, 0, at, 0))
    a = attention(cfg, q, k, v, mask).transpose(0, 2, 1, 3).reshape(batch, rows, cfg.width)
    x = x + linear(a, w("attn_output"))
    h = rms_norm(x, w("ffn_norm"), cfg.eps)
    x = x + linear(jax.nn.silu(linear(h, w("ffn_gate"))) * linear(h, w("ffn_up")), w("ffn_down"))
    return x, (k, v)


def logits_of(cfg, params, x):
    x = rms_norm(x, params["output_norm.weight"], cfg.eps)
    return linear(x, params.get("output.weight", params["token_embd.weight"]))


def drop(x, key, rate):
    """Sets a share `rate` of the values to zero and scales the others up; nothing without a key."""
    if key is None or rate == 0.0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)


def forward(cfg, params, tokens, key=None, rate=0.0):
    """Logits [B, T, vocab] of whole sequences tokens [B, T]; with a key, dropout on what each block adds."""
    rows = tokens.shape[1]
    cos, sin = rope_tables(cfg, rows)
    mask = np.where(np.tril(np.ones((rows, rows), bool)), 0.0, -1e9).astype(np.float32)
    keys = [None] * (cfg.layers + 1) if key is None else jax.random.split(key, cfg.layers + 1)
    x = drop(jnp.take(params["token_embd.weight"], tokens, axis=0), keys[-1], rate)
    for i in range(cfg.layers):
        after, _ = block(cfg, params, i, x, cos, sin, mask)
        x = x + drop(after - x, keys[i], rate)
    return logits_of(cfg, params, x)


def losses_of(logits, tokens):
    """Negative log likelihood [B, T] of the tokens [B, T] under the logits [B, T, vocab]."""
    picked = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def token_losses(cfg, params, tokens):
    """Negative log likelihood [B, T - 1] of each token given those before it."""
    return losses_of(forward(cfg, params, tokens[:, :-1]), tokens[:, 1:])


def empty_cache(cfg, batch, length):
    """Keys and values of every layer, each [batch, kv_heads, length, head_dim]."""
    shape = (batch, cfg.kv_heads, length, cfg.head_dim)
    return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(cfg.layers)]


def extend(cfg, params, tokens, cache, at):
    """Appends tokens [B, T] at position `at`; returns the logits [B, vocab] after the last one and the new cache."""
    rows, length = tokens.shape[1], cache[0][0].shape[2]
    cos, sin = (jax.lax.dynamic_slice_in_dim(jnp.asarray(t), at, rows) for t in rope_tables(cfg, length))
    seen = jnp.arange(length)[None, :] <= at + jnp.arange(rows)[:, None]
    mask = jnp.where(seen, 0.0, -1e9)
    x = jnp.take(params["token_embd.weight"], tokens, axis=0)
    new = []
    for i, (keys, values) in enumerate(cache):
        x, kv = block(cfg, params, i, x, cos, sin, mask, (keys, values, at))
        new.append(kv)
    return logits_of(cfg, params, x[:, -1]), new


def load_gguf(path):
    """Config, float32 weights and metadata reader of a llama GGUF file of any type that gguf-py decodes."""
    import gguf

    reader = gguf.GGUFReader(path)
    get = lambda key: reader.fields[f"llama.{key}"].contents()
    params = {t.name: np.array(gguf.quants.dequantize(t.data, t.tensor_type), np.float32) for t in reader.tensors}
    cfg = Config(
        vocab=params["token_embd.weight"].shape[0],
        width=get("embedding_length"),
        ffn=get("feed_forward_length"),
        layers=get("block_count"),
        heads=get("attention.head_count"),
        kv_heads=get("attention.head_count_kv"),
        context=get("context_length"),
        eps=get("attention.layer_norm_rms_epsilon"),
    )
    return cfg, params, reader
