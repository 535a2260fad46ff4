"""Writes format_goldens.json: what gguf-py (pip install gguf numpy, newer than 0.19) decodes from pseudo-random
blocks of every block type. `tests/formats.rs` makes the same blocks and compares.

Per type: `values` are the first decoded weights (f32, little-endian hex), `hash` is FNV-1a (64
bit) over the f32 bits of all of them, word by word. N_BLOCKS is large enough to use every entry
of every codebook.

Usage: python3 format_goldens.py > format_goldens.json
"""

import json

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES

N_BLOCKS = 1024
N_VALUES = 64

# Type -> byte offsets whose bit 6 is cleared, so that f16 scales stay below 2 and finite (the
# NaN payloads of f16 are nobody's business).
SCALES = {
    "Q4_0": [1],
    "Q4_1": [1, 3],
    "Q5_0": [1],
    "Q5_1": [1, 3],
    "Q8_0": [1],
    "Q2_K": [81, 83],
    "Q3_K": [109],
    "Q4_K": [1, 3],
    "Q5_K": [1, 3],
    "Q6_K": [209],
    "IQ1_S": [1],
    "IQ1_M": [55],
    "IQ2_XXS": [1],
    "IQ2_XS": [1],
    "IQ2_S": [1],
    "IQ3_XXS": [1],
    "IQ3_S": [1],
    "IQ4_NL": [1],
    "IQ4_XS": [1],
    "TQ1_0": [53],
    "TQ2_0": [65],
    "MXFP4": [],
    "NVFP4": [],
    "Q1_0": [1],
    "Q2_0": [1],
}


def random_bytes(n, seed):
    """splitmix64, eight little-endian bytes a step."""
    i = np.arange(1, (n + 7) // 8 + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return z.astype("<u8").view(np.uint8)[:n].copy()


def q1_0(blocks):
    """Q1_0 as ggml defines it; gguf-py has no decoder for it."""
    d = blocks[:, :2].copy().view("<f2").astype(np.float32)
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32)
    return np.where(bits > 0, d, -d)


def q2_0(blocks):
    """Q2_0 as ggml defines it; gguf-py has no decoder for it."""
    d = blocks[:, :2].copy().view("<f2").astype(np.float32)
    codes = (blocks[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
    return d * (codes.reshape(len(blocks), -1).astype(np.float32) - 1)


def decode(name, blocks):
    if name == "Q2_0":
        return q2_0(blocks)
    if name == "Q1_0":
        return q1_0(blocks)
    return quants.dequantize(blocks, T[name])


def fnv1a(values):
    h = 0xCBF29CE484222325
    for word in values.view("<u4").tolist():
        h = (h ^ word) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def main():
    out = {}
    for seed, (name, scales) in enumerate(SCALES.items()):
        _, n_bytes = GGML_QUANT_SIZES[T[name]]
        blocks = random_bytes(N_BLOCKS * n_bytes, seed).reshape(N_BLOCKS, n_bytes)
        for at in scales:
            blocks[:, at] &= 0xBF
        values = np.ascontiguousarray(decode(name, blocks), dtype="<f4").reshape(-1)
        out[name] = {
            "seed": seed,
            "clear_bit_6_at": scales,
            "n_blocks": N_BLOCKS,
            "values": values[:N_VALUES].tobytes().hex(),
            "hash": f"{fnv1a(values):016x}",
        }
    print(json.dumps(out, indent=1))


main()
