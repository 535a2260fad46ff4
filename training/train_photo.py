"""Trains the photo classifier (a small ViT on CIFAR-10) on one CPU core; resumes from its checkpoint.

    python train_photo.py --train cifar10_train_jpeg.zip --test cifar10_test_jpeg.zip --steps 8000

The learning rate is flat until the last `--cooldown` steps. `--from` starts from another run's checkpoint, which is how
an early version is branched off a longer run.
"""

import argparse
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import cifar
import optim
import vit

SMOOTHING = 0.1


def parse():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--train", required=True, help="zip of training images")
    args.add_argument("--test", required=True, help="zip of test images")
    args.add_argument("--work", default="work", help="folder for caches and checkpoints")
    args.add_argument("--name", default="photo", help="name of the checkpoint")
    args.add_argument("--from", dest="origin", help="checkpoint to start from when there is none of this name")
    args.add_argument("--steps", type=int, default=8000)
    args.add_argument("--until", type=int, help="stop at this step of the schedule, to go on with other settings")
    args.add_argument("--cooldown", type=int, default=2000)
    args.add_argument("--batch", type=int, default=128)
    args.add_argument("--keep", type=int, default=64, help="patches of each image used in a training step")
    args.add_argument("--cutout", type=int, default=0, help="side of the square hidden in each training image")
    args.add_argument("--lr-muon", type=float, default=0.015)
    args.add_argument("--lr-adam", type=float, default=2e-3)
    args.add_argument("--decay", type=float, default=0.05)
    args.add_argument("--width", type=int, default=128)
    args.add_argument("--ffn", type=int, default=256)
    args.add_argument("--layers", type=int, default=6)
    args.add_argument("--heads", type=int, default=4)
    args.add_argument("--seed", type=int, default=7)
    args.add_argument("--minutes-per-save", type=float, default=3)
    return args.parse_args()


def make_step(cfg, args):
    def loss_of(params, images, labels, keep):
        logp = jax.nn.log_softmax(vit.forward(cfg, params, images, keep, training=True))
        target = jax.nn.one_hot(labels, cfg.classes) * (1 - SMOOTHING) + SMOOTHING / cfg.classes
        return -jnp.mean(jnp.sum(target * logp, axis=-1))

    @jax.jit
    def step(params, state, images, labels, keep, factor):
        loss, grads = jax.value_and_grad(loss_of)(params, images, labels, keep)
        lrs = (args.lr_muon * factor, args.lr_adam * factor)
        return *optim.update(params, state, grads, *lrs, args.decay, vit.is_matrix, vit.fused_parts), loss

    return step


def accuracy(cfg, params, images, labels, batch=500):
    predict = jax.jit(lambda p, x: jnp.argmax(vit.forward(cfg, p, x), axis=-1))
    right = 0
    for i in range(0, len(images), batch):
        right += int(np.sum(np.asarray(predict(params, cifar.normalise(images[i : i + batch]))) == labels[i : i + batch]))
    return right / len(images)


def batch_of(step, args, cfg, images, labels):
    """The batch of a step, which depends on the seed and the step alone, so that a resumed run sees the same."""
    per_epoch = len(images) // args.batch
    order = np.random.default_rng([args.seed, step // per_epoch]).permutation(len(images))
    at = step % per_epoch * args.batch
    pick = order[at : at + args.batch]
    rng = np.random.default_rng([args.seed, 1, step])
    keep = None
    if args.keep < cfg.patches:
        keep = np.argsort(rng.random((args.batch, cfg.patches)), axis=1)[:, : args.keep]
    return cifar.augment(images[pick], rng, cutout=args.cutout), labels[pick], keep


def main():
    args = parse()
    os.makedirs(args.work, exist_ok=True)
    cfg = vit.Config(width=args.width, ffn=args.ffn, layers=args.layers, heads=args.heads)
    images, labels = cifar.load(args.train, f"{args.work}/cifar_train.npz")
    test = cifar.load(args.test, f"{args.work}/cifar_test.npz")
    path = f"{args.work}/{args.name}.ckpt.npz"
    source = path if os.path.exists(path) else args.origin
    if source:
        params, state = optim.load(source)
    else:
        params = vit.init(cfg, args.seed, cifar.normalise(images[::25]))
        state = optim.start(params, vit.is_matrix)
    print(f"{sum(v.size for v in params.values())} parameters, from step {int(state['step'])}", flush=True)

    step_fn, start, saved, losses = make_step(cfg, args), time.time(), time.time(), []
    first = int(state["step"])
    last = min(args.until or args.steps, args.steps)
    for step in range(first, last):
        batch = batch_of(step, args, cfg, images, labels)
        factor = optim.trapezoid(step, 200, args.steps, args.cooldown)
        params, state, loss = step_fn(params, state, *batch, factor)
        losses.append(float(loss))
        if step % 100 == 99 or step + 1 == last:
            rate = (step + 1 - first) * args.batch / (time.time() - start)
            print(f"step {step + 1} loss {np.mean(losses):.4f} {rate:.0f} images/s", flush=True)
            losses = []
        if time.time() - saved > args.minutes_per_save * 60 or step + 1 == last:
            optim.save(path, params, state)
            saved = time.time()
    found = accuracy(cfg, params, *(a[::10] for a in test))
    print(f"step {last} accuracy {found:.3f} on every tenth test image", flush=True)


if __name__ == "__main__":
    main()
