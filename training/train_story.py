"""Trains the story model on one CPU core from what prepare_stories.py wrote; resumes from its checkpoint.

    python train_story.py --steps 3000

The learning rate is flat until the last `--cooldown` steps. `--from` starts from another run's checkpoint, which is how
an early version is branched off a longer run, or a longer context is learned at the end.
"""

import argparse
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece as spm

import llama
import optim
from prepare_stories import BOS, EOS


def parse():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--work", default="work", help="folder with the prepared text, for checkpoints too")
    args.add_argument("--name", default="story", help="name of the checkpoint")
    args.add_argument("--from", dest="origin", help="checkpoint to start from when there is none of this name")
    args.add_argument("--steps", type=int, default=3000)
    args.add_argument("--until", type=int, help="stop at this step of the schedule, to go on with other settings")
    args.add_argument("--cooldown", type=int, default=800)
    args.add_argument("--context", type=int, default=256)
    args.add_argument("--tokens", type=int, default=2048, help="tokens in a step")
    args.add_argument("--lr-muon", type=float, default=0.02)
    args.add_argument("--lr-adam", type=float, default=3e-3)
    args.add_argument("--decay", type=float, default=0.05)
    args.add_argument("--layers", type=int, default=3)
    args.add_argument("--ffn", type=int, default=512)
    args.add_argument("--seed", type=int, default=7)
    args.add_argument("--minutes-per-save", type=float, default=3)
    return args.parse_args()


def config(args, vocab=1024):
    return llama.Config(vocab, width=256, ffn=args.ffn, layers=args.layers, heads=8, kv_heads=4, context=args.context)


def is_matrix(name):
    """Whether Muon trains this tensor: the linear weights inside the blocks."""
    return name.startswith("blk.") and "norm" not in name


def make_step(cfg, args):
    @jax.jit
    def step(params, state, tokens, factor):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(llama.token_losses(cfg, p, tokens)))(params)
        lrs = (args.lr_muon * factor, args.lr_adam * factor)
        return *optim.update(params, state, grads, *lrs, args.decay, is_matrix), loss

    return step


def batch_of(step, args, stream):
    """Windows [B, context + 1] of a step: each pass over the stream cuts it at another offset and shuffles the pieces."""
    rows, length = args.tokens // args.context, args.context
    per_pass = (len(stream) - length - 1) // length // rows
    rng = np.random.default_rng([args.seed, step // per_pass])
    offset, order = rng.integers(length), rng.permutation(per_pass * rows)
    at = step % per_pass * rows
    starts = offset + order[at : at + rows] * length
    return stream[starts[:, None] + np.arange(length + 1)].astype(np.int32)


def held_out_loss(cfg, params, stories, tokenizer):
    """Summed loss and number of scored tokens: each story is read from BOS in windows that overlap by half."""
    losses = jax.jit(lambda tokens: llama.token_losses(cfg, params, tokens))
    total, count = 0.0, 0
    for story in stories:
        ids = [BOS, *tokenizer.encode(story), EOS]
        at, done = 0, 1
        while done < len(ids):
            window = ids[at : at + cfg.context + 1]
            padded = window + [EOS] * (cfg.context + 1 - len(window))
            found = np.asarray(losses(np.array([padded], np.int32)))[0]
            total += float(found[done - at - 1 : len(window) - 1].sum(dtype=np.float64))
            count += at + len(window) - done
            at, done = at + cfg.context // 2, at + len(window)
    return total, count


def main():
    args = parse()
    cfg = config(args)
    stream = np.load(f"{args.work}/story_train.npy")
    held = json.load(open(f"{args.work}/story_held_out.json"))
    tokenizer = spm.SentencePieceProcessor(model_file=f"{args.work}/story.spm")
    path = f"{args.work}/{args.name}.ckpt.npz"
    source = path if os.path.exists(path) else args.origin
    if source:
        params, state = optim.load(source)
    else:
        params = llama.init(cfg, args.seed)
        state = optim.start(params, is_matrix)
    first = int(state["step"])
    print(f"{sum(v.size for v in params.values())} parameters, from step {first}", flush=True)

    step_fn, start, saved, losses = make_step(cfg, args), time.time(), time.time(), []
    last = min(args.until or args.steps, args.steps)
    for step in range(first, last):
        factor = optim.trapezoid(step, 100, args.steps, args.cooldown)
        params, state, loss = step_fn(params, state, batch_of(step, args, stream), factor)
        losses.append(float(loss))
        if step % 50 == 49 or step + 1 == last:
            rate = (step + 1 - first) * args.tokens / (time.time() - start)
            print(f"step {step + 1} loss {np.mean(losses):.4f} {rate:.0f} tokens/s", flush=True)
            losses = []
        if time.time() - saved > args.minutes_per_save * 60 or step + 1 == last:
            optim.save(path, params, state)
            saved = time.time()
    total, count = held_out_loss(cfg, params, held, tokenizer)
    bits = total / sum(map(len, held)) / np.log(2)
    print(f"step {last} held-out {total / count:.4f} nats/token, {bits:.4f} bits/char", flush=True)


if __name__ == "__main__":
    main()
