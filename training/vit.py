"""A vision transformer in JAX, with weights named as in timm.

Linear weights have the shape [outputs, inputs]; the patch kernel is stored as [width, channels * patch * patch], which
is the flattened convolution kernel. GELU is the exact one and the class token alone feeds the head.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import llama

CHANNELS = 3


@dataclass(frozen=True)
class Config:
    image: int = 32
    patch: int = 4
    width: int = 128
    ffn: int = 256
    layers: int = 6
    heads: int = 4
    classes: int = 10
    eps: float = 1e-6

    @property
    def patches(self):
        return (self.image // self.patch) ** 2


def sine_positions(cfg):
    """Fixed sine and cosine features of the row and the column of each patch, [patches, width]; a start for pos_embed."""
    side, quarter = cfg.image // cfg.patch, cfg.width // 4
    freq = 100.0 ** (-np.arange(quarter) / quarter)
    axis = np.arange(side)[:, None] * freq[None, :]
    waves = np.concatenate([np.sin(axis), np.cos(axis)], axis=1)
    rows, columns = np.repeat(waves, side, axis=0), np.tile(waves, (side, 1))
    return np.concatenate([rows, columns], axis=1)


def factors(target):
    """Two square matrices whose product is `target`, of equal norms."""
    u, s, v = np.linalg.svd(target)
    root = np.sqrt(s)
    return u * root, root[:, None] * v


def attention_weights(cfg, rng):
    """Query, key, value and projection that start near what trained ones look like.

    Each head's query-key product is near the identity, so tokens look at those with similar positions; the product of
    value and projection is near minus the identity.
    """
    d, hd = cfg.width, cfg.width // cfg.heads
    noise = lambda: rng.standard_normal((d, d)) / np.sqrt(d)
    q, k = [], []
    for _ in range(cfg.heads):
        u, s, v = np.linalg.svd(0.7 * noise() + 0.7 * np.eye(d))
        root = np.sqrt(s[:hd])
        q.append((u[:, :hd] * root).T)
        k.append(root[:, None] * v[:hd])
    out, value = factors(0.4 * noise() - 0.4 * np.eye(d))
    return np.concatenate(q + k + [value]), out


def whitened_kernel(cfg, images, rng):
    """A patch kernel whose outputs are uncorrelated and of unit variance on normalised images [n, 3, H, W]."""
    x = np.asarray(patches(cfg, images)).reshape(-1, CHANNELS * cfg.patch**2)
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    whiten = vectors.T / np.sqrt(values + 1e-2)[:, None]
    spread, _ = np.linalg.qr(rng.standard_normal((cfg.width, len(values))))
    return spread @ whiten


def init(cfg, seed, images):
    """Starting weights; some normalised training images set the scale of the patch kernel."""
    rng = np.random.default_rng(seed)
    d = cfg.width
    normal = lambda *shape: rng.standard_normal(shape) / np.sqrt(shape[-1])
    params = {
        "patch_embed.proj.weight": whitened_kernel(cfg, images, rng),
        "patch_embed.proj.bias": np.zeros(d),
        "cls_token": np.zeros((1, 1, d)),
        "pos_embed": np.concatenate([np.zeros((1, d)), 0.5 * sine_positions(cfg)])[None],
    }
    for i in range(cfg.layers):
        b = f"blocks.{i}."
        qkv, proj = attention_weights(cfg, rng)
        params |= {b + "norm1.weight": np.ones(d), b + "norm1.bias": np.zeros(d)}
        params |= {b + "attn.qkv.weight": qkv, b + "attn.qkv.bias": np.zeros(3 * d)}
        params |= {b + "attn.proj.weight": proj, b + "attn.proj.bias": np.zeros(d)}
        params |= {b + "norm2.weight": np.ones(d), b + "norm2.bias": np.zeros(d)}
        params |= {b + "mlp.fc1.weight": normal(cfg.ffn, d), b + "mlp.fc1.bias": np.zeros(cfg.ffn)}
        params |= {b + "mlp.fc2.weight": normal(d, cfg.ffn) * 0.5, b + "mlp.fc2.bias": np.zeros(d)}
    params |= {"norm.weight": np.ones(d), "norm.bias": np.zeros(d)}
    params |= {"head.weight": np.zeros((cfg.classes, d)), "head.bias": np.zeros(cfg.classes)}
    return {k: v.astype(np.float32) for k, v in params.items()}


def is_matrix(name):
    """Whether Muon trains this tensor: the linear weights inside the blocks."""
    return name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name


def fused_parts(name):
    return 3 if name.endswith("qkv.weight") else 1


def layer_norm(x, weight, bias, eps):
    mean = jnp.mean(x, axis=-1, keepdims=True)
    x = x - mean
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight + bias


def linear(params, name, x):
    return llama.linear(x, params[name + ".weight"]) + params[name + ".bias"]


def attention(cfg, params, name, x):
    batch, rows, d = x.shape
    weights = jnp.split(params[name + ".qkv.weight"], 3)
    biases = jnp.split(params[name + ".qkv.bias"], 3)
    split = lambda t: t.reshape(batch, rows, cfg.heads, d // cfg.heads).transpose(0, 2, 1, 3)
    q, k, v = (split(llama.linear(x, w) + b) for w, b in zip(weights, biases))
    return linear(params, name + ".proj", llama.mix(q, k, v, 0.0).transpose(0, 2, 1, 3).reshape(batch, rows, d))


def patches(cfg, images):
    """Images [B, 3, H, W] to flattened patches [B, patches, 3 * patch * patch] in the order of the kernel."""
    batch, side, p = images.shape[0], cfg.image // cfg.patch, cfg.patch
    x = images.reshape(batch, CHANNELS, side, p, side, p)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(batch, side * side, CHANNELS * p * p)


def forward(cfg, params, images, training=False):
    """Class logits of normalised images [B, 3, H, W].

    Training takes the tanh form of GELU, which differs from the exact one by less than 5e-4 and is faster.
    """
    batch = images.shape[0]
    x = linear(params, "patch_embed.proj", patches(cfg, images)) + params["pos_embed"][:, 1:]
    first = params["cls_token"] + params["pos_embed"][:, :1]
    x = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, cfg.width)), x], axis=1)
    for i in range(cfg.layers):
        b = f"blocks.{i}."
        norm = lambda n, t: layer_norm(t, params[b + n + ".weight"], params[b + n + ".bias"], cfg.eps)
        x = x + attention(cfg, params, b + "attn", norm("norm1", x))
        h = jax.nn.gelu(linear(params, b + "mlp.fc1", norm("norm2", x)), approximate=training)
        x = x + linear(params, b + "mlp.fc2", h)
    x = layer_norm(x[:, 0], params["norm.weight"], params["norm.bias"], cfg.eps)
    return linear(params, "head", x)
