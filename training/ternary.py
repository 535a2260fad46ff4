"""Ternary weights in training: a matrix is used as {-s, 0, s} and learned as if it had not been rounded.

The scale s is the mean magnitude of the matrix (Ma et al. 2024, "The Era of 1-bit LLMs", section 2), rounded to f16 as a
TQ2_0 block stores it, so the exported file holds exactly the numbers that were trained.
"""

import jax
import jax.numpy as jnp


def round_matrix(w):
    """The ternary matrix nearest to w [n, k]; gradients pass through to w."""
    scale = (jnp.mean(jnp.abs(w)) + 1e-8).astype(jnp.float16).astype(jnp.float32)
    rounded = jnp.clip(jnp.round(w / scale), -1.0, 1.0) * scale
    return w + jax.lax.stop_gradient(rounded - w)


def round_all(params, is_matrix):
    """The parameters with every matrix in ternary form."""
    return {name: round_matrix(w) if is_matrix(name) else w for name, w in params.items()}
