"""A residual network in JAX that classifies CIFAR-10 well; the photo model learns from it and it is not shipped.

Nine layers of convolutions with batch norm and CELU (after Page 2018, "How to train your ResNet"). Parameters and running
statistics are dictionaries of float32 arrays; convolution kernels are [outputs, inputs, 3, 3].
"""

import jax
import jax.numpy as jnp
import numpy as np

import llama

# Name, input and output channels; whether a 2 x 2 maximum follows.
CONVS = [
    ("prep", 3, 64, False),
    ("layer1", 64, 128, True),
    ("res1a", 128, 128, False),
    ("res1b", 128, 128, False),
    ("layer2", 128, 256, True),
    ("layer3", 256, 512, True),
    ("res3a", 512, 512, False),
    ("res3b", 512, 512, False),
]
MOMENTUM = 0.9
LOGIT_SCALE = 0.125


def init(classes, seed):
    """Starting parameters and running statistics."""
    rng = np.random.default_rng(seed)
    params, stats = {}, {}
    for name, n_in, n_out, _ in CONVS:
        deviation = np.sqrt(2 / (9 * n_in))
        params[name] = (rng.standard_normal((n_out, n_in, 3, 3)) * deviation).astype(np.float32)
        params[name + ".scale"] = np.ones(n_out, np.float32)
        params[name + ".bias"] = np.zeros(n_out, np.float32)
        stats[name] = np.stack([np.zeros(n_out), np.ones(n_out)]).astype(np.float32)
    params["head"] = (rng.standard_normal((classes, 512)) / np.sqrt(512)).astype(np.float32)
    return params, stats


def maximum(x):
    """Maximum of each 2 x 2 square of x [B, C, H, W]."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def unit(params, stats, new_stats, name, x, training):
    """Convolution, batch norm, activation; training takes and records the batch's own statistics."""
    x, kernel = llama.factor(x), llama.factor(params[name])
    x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    x = x.astype(jnp.float32)
    if training:
        mean, variance = jnp.mean(x, axis=(0, 2, 3)), jnp.var(x, axis=(0, 2, 3))
        new_stats[name] = MOMENTUM * stats[name] + (1 - MOMENTUM) * jnp.stack([mean, variance])
    else:
        mean, variance = stats[name]
    column = lambda v: v[None, :, None, None]
    x = (x - column(mean)) * column(jax.lax.rsqrt(variance + 1e-5) * params[name + ".scale"])
    return jax.nn.celu(x + column(params[name + ".bias"]), 0.075)


def forward(params, stats, x, training=False):
    """Class logits of normalised images [B, 3, 32, 32], and the new running statistics."""
    new_stats, kept = {}, None
    for name, _, _, pooled in CONVS:
        if name.endswith("a"):
            kept = x
        x = unit(params, stats, new_stats, name, x, training)
        x = maximum(x) if pooled else x
        x = x + kept if name.endswith("b") else x
    return LOGIT_SCALE * jnp.max(x, axis=(2, 3)) @ params["head"].T, new_stats
