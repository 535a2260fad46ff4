"""Trains the residual networks that the photo model learns from.

    python train_teacher.py --train cifar10_train_jpeg.zip --test cifar10_test_jpeg.zip --name teacher_a

Made for an accelerator: a run of 40 passes takes hours on a processor.
"""

import argparse
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import cifar
import optim
import resnet

CLASSES = len(cifar.LABELS)
SMOOTHING = 0.1


def step_of(args):
    def loss_of(params, stats, images, labels):
        logits, stats = resnet.forward(params, stats, images, training=True)
        target = jax.nn.one_hot(labels, CLASSES) * (1 - SMOOTHING) + SMOOTHING / CLASSES
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)), stats

    @jax.jit
    def step(params, stats, velocity, images, labels, key, rate):
        """SGD with Nesterov momentum; `rate` is per batch."""
        seen = cifar.augment(images, key)
        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(params, stats, seen, labels)
        grads = {k: g + args.decay * params[k] for k, g in grads.items()}
        velocity = {k: 0.9 * velocity[k] + g for k, g in grads.items()}
        params = {k: p - rate * (grads[k] + 0.9 * velocity[k]) for k, p in params.items()}
        return params, stats, velocity, loss

    return step


def save(path, params, stats):
    np.savez(path, **{f"p/{k}": v for k, v in params.items()}, **{f"s/{k}": v for k, v in stats.items()})


def load(path):
    """Parameters and running statistics."""
    arrays = np.load(path)
    pick = lambda part: {k[2:]: arrays[k] for k in arrays.files if k.startswith(part)}
    return pick("p/"), pick("s/")


def accuracy(params, stats, images, labels):
    predict = jax.jit(lambda x: jnp.argmax(resnet.forward(params, stats, x)[0], axis=-1))
    batches = range(0, len(images), 500)
    return np.mean(np.concatenate([predict(cifar.normalise(images[i : i + 500])) for i in batches]) == labels)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--train", required=True, help="zip of training images")
    args.add_argument("--test", required=True, help="zip of test images")
    args.add_argument("--work", default="work")
    args.add_argument("--name", default="teacher")
    args.add_argument("--passes", type=int, default=40)
    args.add_argument("--batch", type=int, default=512)
    args.add_argument("--rate", type=float, default=0.2)
    args.add_argument("--decay", type=float, default=5e-4)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()

    os.makedirs(args.work, exist_ok=True)
    images, labels = cifar.load(args.train, f"{args.work}/cifar_train.npz")
    test = cifar.load(args.test, f"{args.work}/cifar_test.npz")
    params, stats = resnet.init(CLASSES, args.seed)
    velocity = {k: np.zeros_like(v) for k, v in params.items()}
    step, start = step_of(args), time.time()
    per_pass = len(images) // args.batch
    steps = args.passes * per_pass
    schedule = optim.Schedule(steps, cooldown=0.8, warmup=steps // 5 + 1)
    for n in range(steps):
        if n % per_pass == 0:
            order = np.random.default_rng([args.seed, n]).permutation(len(images))
        pick = order[n % per_pass * args.batch :][: args.batch]
        rate = args.rate * schedule.factor(n)
        key = jax.random.key(args.seed * 1_000_003 + n)
        params, stats, velocity, loss = step(params, stats, velocity, images[pick], labels[pick], key, rate)
        if n % (per_pass * 10) == 0 or n + 1 == steps:
            print(f"step {n + 1} loss {float(loss):.4f} {time.time() - start:.0f} s", flush=True)
    save(f"{args.work}/{args.name}.resnet.npz", params, stats)
    print(f"{args.name}: accuracy {accuracy(params, stats, *test):.4f} of {len(test[1])} test images", flush=True)


if __name__ == "__main__":
    main()
