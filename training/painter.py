"""A small diffusion model of 32 x 32 pictures (Karras et al. 2022): what it reads, and how it paints.

Pictures are [B, 32, 32, 3] between -1 and 1. Parameters are a flat dictionary of arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 32
# Standard deviation of the pixels of photos, about.
SPREAD = 0.5
# Channels at 32 x 32, 16 x 16 and 8 x 8 pixels.
WIDTHS = [32, 64, 128]
BLOCKS = {"down0": 2, "down1": 2, "middle": 3, "up1": 2, "up0": 2}
N_EMBD = 128
N_HEAD = 4
N_FREQUENCY = 8


def init(seed):
    rng = np.random.default_rng(seed)
    params = {}

    def dense(name, n_in, n_out, size=1.0):
        weight = rng.standard_normal((n_in, n_out)) * size / np.sqrt(n_in)
        params[f"{name}.w"] = weight.astype(np.float32)
        params[f"{name}.b"] = np.zeros(n_out, np.float32)

    def conv(name, n_in, n_out, side=3, size=1.0):
        dense(name, side * side * n_in, n_out, size)
        params[f"{name}.w"] = params[f"{name}.w"].reshape(side, side, n_in, n_out)

    dense("noise1", 2 * N_FREQUENCY, N_EMBD)
    dense("noise2", N_EMBD, N_EMBD)
    conv("first", 3, WIDTHS[0])
    for part, n_block in BLOCKS.items():
        width = WIDTHS[2 if part == "middle" else int(part[-1])]
        for i in range(n_block):
            joined = part.startswith("up") and i == 0
            n_in = 2 * width if joined else width
            conv(f"{part}.{i}.a", n_in, width)
            conv(f"{part}.{i}.b", width, width, size=0.0)
            dense(f"{part}.{i}.noise", N_EMBD, 2 * width)
            if joined:
                conv(f"{part}.{i}.skip", n_in, width, side=1)
    for i in range(2):
        conv(f"shrink{i}", WIDTHS[i], WIDTHS[i + 1])
        conv(f"grow{i}", WIDTHS[i + 1], WIDTHS[i])
    dense("qkv", WIDTHS[2], 3 * WIDTHS[2])
    dense("attended", WIDTHS[2], WIDTHS[2], size=0.0)
    conv("last", WIDTHS[0], 3, size=0.0)
    return params


def _dense(params, name, x):
    return x @ params[f"{name}.w"] + params[f"{name}.b"]


def _conv(params, name, x, stride=1):
    layout = ("NHWC", "HWIO", "NHWC")
    out = jax.lax.conv_general_dilated(x, params[f"{name}.w"], (stride, stride), "SAME", dimension_numbers=layout)
    return out + params[f"{name}.b"]


def _norm(x, groups=8):
    """Group normalisation without gains."""
    grouped = x.reshape(*x.shape[:3], groups, -1)
    mean = grouped.mean((1, 2, 4), keepdims=True)
    variance = ((grouped - mean) ** 2).mean((1, 2, 4), keepdims=True)
    return ((grouped - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape)


def _block(params, name, x, noise):
    """Two convolutions beside the stream; the noise level scales and shifts what is between them."""
    inner = _conv(params, f"{name}.a", jax.nn.silu(_norm(x)))
    gain, shift = jnp.split(_dense(params, f"{name}.noise", noise)[:, None, None], 2, -1)
    inner = _conv(params, f"{name}.b", jax.nn.silu(_norm(inner) * (1 + gain) + shift))
    return inner + (_conv(params, f"{name}.skip", x) if f"{name}.skip.w" in params else x)


def _attention(params, x):
    n_batch, height, width, n_embd = x.shape
    rows = _norm(x).reshape(n_batch, height * width, n_embd)
    heads = lambda v: v.reshape(n_batch, -1, N_HEAD, n_embd // N_HEAD).transpose(0, 2, 1, 3)
    q, k, v = map(heads, jnp.split(_dense(params, "qkv", rows), 3, -1))
    weights = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(n_embd // N_HEAD), -1)
    out = (weights @ v).transpose(0, 2, 1, 3).reshape(rows.shape)
    return x + _dense(params, "attended", out).reshape(x.shape)


def _network(params, x, level):
    """What to add, of a scaled picture [B, 32, 32, 3] and its noise level [B]."""
    angles = level[:, None] * jnp.exp(jnp.linspace(0, np.log(100.0), N_FREQUENCY))
    noise = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
    noise = jax.nn.silu(_dense(params, "noise1", noise))
    noise = jax.nn.silu(_dense(params, "noise2", noise))
    x = _conv(params, "first", x)
    skips = []
    for i in range(2):
        for j in range(BLOCKS[f"down{i}"]):
            x = _block(params, f"down{i}.{j}", x, noise)
        skips.append(x)
        x = _conv(params, f"shrink{i}", x, stride=2)
    for j in range(BLOCKS["middle"]):
        x = _block(params, f"middle.{j}", x, noise)
        x = _attention(params, x) if j == 0 else x
    for i in (1, 0):
        x = _conv(params, f"grow{i}", x.repeat(2, 1).repeat(2, 2))
        x = jnp.concatenate([x, skips[i]], -1)
        for j in range(BLOCKS[f"up{i}"]):
            x = _block(params, f"up{i}.{j}", x, noise)
    return _conv(params, "last", jax.nn.silu(_norm(x)))


def denoise(params, x, sigma):
    """The picture in x [B, 32, 32, 3], to which noise of deviation sigma [B] was added; scaled as in Karras et al., table 1."""
    level = jnp.log(sigma) / 4
    sigma = sigma[:, None, None, None]
    total = jnp.sqrt(sigma**2 + SPREAD**2)
    inner = _network(params, x / total, level)
    return (SPREAD / total) ** 2 * x + sigma * SPREAD / total * inner


def loss(params, pictures, sigma, noise):
    """The squared error of denoising, weighed so that all levels count alike."""
    weight = (sigma**2 + SPREAD**2) / (sigma * SPREAD) ** 2
    noisy = pictures + noise * sigma[:, None, None, None]
    return (weight[:, None, None, None] * (denoise(params, noisy, sigma) - pictures) ** 2).mean()


def paint(params, n, seed, steps=25, largest=20.0, smallest=0.02, restart=1.09):
    """n pictures as bytes [n, 32, 32, 3], from noise by Heun's method; a little new noise before each step."""
    rng = np.random.default_rng(seed)
    step = jax.jit(denoise)
    clean = lambda x, sigma: np.asarray(step(params, x.astype(np.float32), np.full(len(x), sigma, np.float32)))
    root = lambda v: v ** (1 / 5)
    sigmas = np.append((root(largest) + np.linspace(0, 1, steps) * (root(smallest) - root(largest))) ** 5, 0)
    done = []
    for first in range(0, n, 32):
        x = largest * rng.standard_normal((32, SIDE, SIDE, 3))
        for i, (sigma, after) in enumerate(zip(sigmas, sigmas[1:])):
            if i > 0 and after > 0:
                x = x + sigma * np.sqrt(restart**2 - 1) * rng.standard_normal(x.shape)
                sigma = sigma * restart
            slope = (x - clean(x, sigma)) / sigma
            moved = x + (after - sigma) * slope
            if after > 0:
                slope = (slope + (moved - clean(moved, after)) / after) / 2
                moved = x + (after - sigma) * slope
            x = moved
        done.append(np.clip((x + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8))
        print(f"{first + 32} pictures", flush=True)
    return np.concatenate(done)[:n]
