"""Has story models write a token stream to train smaller ones on.

    python imagine.py --models work/teacher_*.ckpt.npz --tokens 20000000 --out work/imagined.npy

Each model writes an equal part, drawn from its own distribution as it is (temperature 1), in rows that begin with BOS and
go on from story to story.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import llama
from prepare_stories import BOS
from train_story import load_model


def writer_of(cfg, rows):
    """A function (parameters, key) -> tokens [rows, context]."""

    @jax.jit
    def write(params, key):
        def step(carry, at):
            tokens, cache, key = carry
            key, sub = jax.random.split(key)
            logits, cache = llama.extend(cfg, params, tokens[:, None], cache, at)
            tokens = jax.random.categorical(sub, logits).astype(jnp.int32)
            return (tokens, cache, key), tokens

        first = jnp.full((rows,), BOS, jnp.int32)
        cache = llama.empty_cache(cfg, rows, cfg.context)
        _, written = jax.lax.scan(step, (first, cache, key), jnp.arange(cfg.context - 1))
        return jnp.concatenate([first[:, None], written.T], axis=1)

    return write


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--models", nargs="+", required=True)
    args.add_argument("--tokens", type=int, default=20_000_000)
    args.add_argument("--rows", type=int, default=1024, help="sequences written at once")
    args.add_argument("--out", required=True)
    args.add_argument("--seed", type=int, default=11)
    args = args.parse_args()

    parts, start = [], time.time()
    for m, path in enumerate(args.models):
        cfg, params, _ = load_model(path)
        write = writer_of(cfg, args.rows)
        params = jax.device_put(params)
        for i in range(-(-args.tokens // len(args.models) // (args.rows * cfg.context))):
            key = jax.random.fold_in(jax.random.key(args.seed), m * 10_000 + i)
            parts.append(np.asarray(write(params, key)).astype(np.uint16).ravel())
    stream = np.concatenate(parts)
    np.save(args.out, stream)
    print(f"{len(stream)} tokens in {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
