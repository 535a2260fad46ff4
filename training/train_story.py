"""Trains a story model from what prepare_stories.py wrote; resumes from its checkpoint.

    python train_story.py --name teacher_a --width 512 --layers 8 --ffn 1024 --dropout 0.2 --steps 1200
    python train_story.py --name story --teachers work/teacher_*.ckpt.npz --more work/imagined.npy --steps 6000

The text is small, so a model that reads it several times needs `--dropout`. `--teachers` are checkpoints whose mean
prediction is learned beside the text, and `--more` is a token stream that they wrote (imagine.py); with both, a small model
gets nearer to the text than the text alone brings it. `--ternary` trains matrices of {-s, 0, s}. """

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
import ternary
from prepare_stories import BOS, EOS

SHAPE_FILE = "shape.json"


def parse():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--work", default="work", help="folder with the prepared text, for checkpoints too")
    args.add_argument("--name", default="story", help="name of the checkpoint")
    args.add_argument("--steps", type=int, default=3000)
    args.add_argument("--minutes", type=float, help="length of the run instead of --steps")
    args.add_argument("--cooldown", type=float, default=0.3, help="share of the run in which the learning rate falls")
    args.add_argument("--context", type=int, default=512)
    args.add_argument("--rows", type=int, default=64, help="sequences of `context` tokens in a step")
    args.add_argument("--lr-muon", type=float, default=0.02)
    args.add_argument("--lr-adam", type=float, default=3e-3)
    args.add_argument("--decay", type=float, default=0.05)
    args.add_argument("--dropout", type=float, default=0.0)
    args.add_argument("--width", type=int, default=256)
    args.add_argument("--layers", type=int, default=6)
    args.add_argument("--ffn", type=int, default=768)
    args.add_argument("--heads", type=int, default=8)
    args.add_argument("--kv-heads", type=int, default=4)
    args.add_argument("--ternary", action="store_true")
    args.add_argument("--teachers", nargs="*", default=[], help="checkpoints to learn from")
    args.add_argument("--trust", type=float, default=0.8, help="share of the loss that is the teachers'")
    args.add_argument("--more", help="tokens that teachers wrote (uint16 .npy)")
    args.add_argument("--more-share", type=float, default=0.6, help="share of the sequences taken from them")
    args.add_argument("--seed", type=int, default=7)
    args.add_argument("--minutes-per-save", type=float, default=3)
    return args.parse_args()


def config(args, vocab=1024):
    return llama.Config(vocab, args.width, args.ffn, args.layers, args.heads, args.kv_heads, args.context)


def is_matrix(name):
    """Whether Muon trains this tensor: the linear weights inside the blocks."""
    return name.startswith("blk.") and "norm" not in name


def load_model(path):
    """Config, parameters and optimizer state of a checkpoint."""
    params, state = optim.load(path)
    return llama.Config(**json.load(open(path.replace(".ckpt.npz", "." + SHAPE_FILE)))), params, state


def make_step(cfg, args, teachers):
    """One optimizer step. `teachers` are (config, parameters); their mean prediction is the soft target."""

    def soft_target(tokens, teacher_params):
        logps = [jax.nn.log_softmax(llama.forward(c, p, tokens)) for (c, _), p in zip(teachers, teacher_params)]
        return jnp.exp(jax.nn.logsumexp(jnp.stack(logps), axis=0) - np.log(len(logps)))

    def loss_of(params, tokens, key, target):
        used = ternary.round_all(params, is_matrix) if args.ternary else params
        logits = llama.forward(cfg, used, tokens[:, :-1], key, args.dropout)
        hard = jnp.mean(llama.losses_of(logits, tokens[:, 1:]))
        if target is None:
            return hard
        soft = -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))
        return args.trust * soft + (1 - args.trust) * hard

    @jax.jit
    def step(params, state, tokens, factor, key, teacher_params):
        target = soft_target(tokens[:, :-1], teacher_params) if teachers else None
        loss, grads = jax.value_and_grad(loss_of)(params, tokens, key, target)
        lrs = (args.lr_muon * factor, args.lr_adam * factor)
        return *optim.update(params, state, grads, *lrs, args.decay, is_matrix), loss

    return step


def windows(step, rows, length, stream, seed):
    """Windows [rows, length + 1] of a step: each pass over the stream cuts it at another offset and shuffles the pieces."""
    per_pass = (len(stream) - length - 1) // length // rows
    rng = np.random.default_rng([seed, step // per_pass])
    offset, order = rng.integers(length), rng.permutation(per_pass * rows)
    starts = offset + order[step % per_pass * rows :][:rows] * length
    return stream[starts[:, None] + np.arange(length + 1)].astype(np.int32)


def batch_of(step, args, stream, more):
    n_more = 0 if more is None else round(args.rows * args.more_share)
    parts = [windows(step, args.rows - n_more, args.context, stream, args.seed)]
    if n_more:
        parts.append(windows(step, n_more, args.context, more, args.seed + 1))
    return np.concatenate(parts)


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
    more = np.load(args.more) if args.more else None
    choices = json.load(open(f"{args.work}/story_choices.json"))
    tokenizer = spm.SentencePieceProcessor(model_file=f"{args.work}/story.spm")
    path = f"{args.work}/{args.name}.ckpt.npz"
    if os.path.exists(path):
        params, state = optim.load(path)
    else:
        params = llama.init(cfg, args.seed)
        state = optim.start(params, is_matrix)
    json.dump(cfg.__dict__, open(f"{args.work}/{args.name}.{SHAPE_FILE}", "w"))
    first = int(state["step"])
    print(f"{args.name}: {sum(v.size for v in params.values())} parameters, from step {first}", flush=True)

    teachers = [load_model(t)[:2] for t in args.teachers]
    teacher_params = [jax.device_put(p) for _, p in teachers]
    step_fn, start, saved, losses = make_step(cfg, args, teachers), time.time(), time.time(), []
    schedule, step, over = optim.Schedule(args.steps, args.cooldown, args.minutes), first, False
    while not over:
        key = jax.random.key(args.seed * 1_000_003 + step)
        tokens = batch_of(step, args, stream, more)
        params, state, loss = step_fn(params, state, tokens, schedule.factor(step), key, teacher_params)
        over = schedule.after(step, loss)
        losses.append(loss)
        step += 1
        if step % 200 == 0 or over:
            mean = float(jnp.mean(jnp.stack(losses)))
            rate = (step - first) * args.rows * args.context / (time.time() - start)
            print(f"{args.name}: step {step} loss {mean:.4f} {rate:.0f} tokens/s", flush=True)
            losses = []
        if time.time() - saved > args.minutes_per_save * 60 or over:
            optim.save(path, params, state)
            saved = time.time()
    used = ternary.round_all(params, is_matrix) if args.ternary else params
    total, count = held_out_loss(cfg, used, choices, tokenizer)
    bits = total / sum(map(len, choices)) / np.log(2)
    print(f"{args.name}: step {step} stories kept apart {total / count:.4f} nats/token, {bits:.4f} bits/char", flush=True)


if __name__ == "__main__":
    main()
