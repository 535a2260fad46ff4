"""Trains the model that paints the pictures on which vision models are calibrated, and has it paint them.

    python train_painter.py train --train cifar10_train_jpeg.zip --minutes 25
    python train_painter.py paint --out ../src/cli/painted.jpg
"""

import argparse
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import cifar
import painter

COLUMNS = 16


@jax.jit
def step(params, first, second, average, pictures, sigma, noise, n, rate):
    """Adam, with gradients no longer than 1; `average` is what is painted with, a mean over about 300 steps."""
    loss, grads = jax.value_and_grad(painter.loss)(params, pictures, sigma, noise)
    length = jnp.sqrt(sum((g**2).sum() for g in grads.values()))
    grads = {k: g * jnp.minimum(1, 1 / length) for k, g in grads.items()}
    first = {k: 0.9 * first[k] + 0.1 * g for k, g in grads.items()}
    second = {k: 0.99 * second[k] + 0.01 * g**2 for k, g in grads.items()}
    move = lambda k: first[k] / (1 - 0.9**n) / (jnp.sqrt(second[k] / (1 - 0.99**n)) + 1e-8)
    params = {k: p - rate * move(k) for k, p in params.items()}
    keep = jnp.minimum(0.997, 1 - 1 / (n + 1))
    average = {k: keep * average[k] + (1 - keep) * p for k, p in params.items()}
    return params, first, second, average, loss


def train(args):
    os.makedirs(args.work, exist_ok=True)
    images, _ = cifar.load(args.train, f"{args.work}/cifar_train.npz")
    rng = np.random.default_rng(args.seed)
    params = average = painter.init(args.seed)
    first = second = {k: np.zeros_like(v) for k, v in params.items()}
    start, seconds, n, losses = time.time(), 60 * args.minutes, 0, []
    while time.time() - start < seconds:
        pick = images[rng.integers(0, len(images), args.batch)].transpose(0, 2, 3, 1).astype(np.float32) / 127.5 - 1
        pick = np.where(rng.random((args.batch, 1, 1, 1)) < 0.5, pick[:, :, ::-1], pick)
        sigma = np.exp(rng.normal(-1.0, 1.2, args.batch)).astype(np.float32)
        noise = rng.standard_normal(pick.shape).astype(np.float32)
        n += 1
        rate = args.rate * min(1, n / 200) * max(0, 1 - (time.time() - start) / seconds) ** 0.5
        params, first, second, average, loss = step(
            params, first, second, average, pick, sigma, noise, float(n), rate
        )
        losses.append(float(loss))
        if n % 200 == 0:
            print(f"step {n} loss {np.mean(losses[-200:]):.4f} {time.time() - start:.0f} s", flush=True)
            np.savez(f"{args.work}/painter.npz", **average)
    np.savez(f"{args.work}/painter.npz", **average)
    print(f"{n} steps of {args.batch} pictures", flush=True)


def paint(args):
    params = dict(np.load(f"{args.work}/painter.npz"))
    pictures = painter.paint(params, args.pictures, args.seed)
    rows = pictures.reshape(-1, COLUMNS, painter.SIDE, painter.SIDE, 3)
    sheet = rows.transpose(0, 2, 1, 3, 4).reshape(-1, COLUMNS * painter.SIDE, 3)
    Image.fromarray(sheet).save(args.out, quality=args.quality, subsampling="4:2:0")
    print(f"{len(pictures)} pictures, {os.path.getsize(args.out)} bytes")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = args.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--work", default="work")
    common.add_argument("--seed", type=int, default=1)
    learn = what.add_parser("train", parents=[common])
    learn.add_argument("--train", required=True, help="zip of training images")
    learn.add_argument("--minutes", type=float, default=25)
    learn.add_argument("--batch", type=int, default=32)
    learn.add_argument("--rate", type=float, default=2e-3)
    learn.set_defaults(run=train)
    show = what.add_parser("paint", parents=[common])
    show.add_argument("--out", required=True, help="JPEG file, 16 pictures a row")
    show.add_argument("--pictures", type=int, default=480)
    show.add_argument("--quality", type=int, default=85)
    show.set_defaults(run=paint)
    args = args.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
