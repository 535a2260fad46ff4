"""Trains the photo classifier (a small ViT on CIFAR-10); resumes from its checkpoint.

    python train_photo.py --train cifar10_train_jpeg.zip --test cifar10_test_jpeg.zip --teachers work/*.resnet.npz --steps 15000

`--teachers` are residual networks (train_teacher.py) whose mean prediction for each augmented picture is learned instead of
its label.
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
import train_teacher
import vit

SMOOTHING = 0.1


def parse():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--train", required=True, help="zip of training images")
    args.add_argument("--test", required=True, help="zip of test images")
    args.add_argument("--work", default="work", help="folder for caches and checkpoints")
    args.add_argument("--name", default="photo", help="name of the checkpoint")
    args.add_argument("--teachers", nargs="*", default=[], help="residual networks to learn from")
    args.add_argument("--steps", type=int, default=8000)
    args.add_argument("--minutes", type=float, help="length of the run instead of --steps")
    args.add_argument("--cooldown", type=float, default=0.4, help="share of the run in which the learning rate falls")
    args.add_argument("--batch", type=int, default=512)
    args.add_argument("--cutout", type=int, default=8, help="side of the square hidden in each training image")
    args.add_argument("--lr-muon", type=float, default=0.015)
    args.add_argument("--lr-adam", type=float, default=2e-3)
    args.add_argument("--decay", type=float, default=0.05)
    args.add_argument("--width", type=int, default=256)
    args.add_argument("--ffn", type=int, default=512)
    args.add_argument("--layers", type=int, default=6)
    args.add_argument("--heads", type=int, default=8)
    args.add_argument("--seed", type=int, default=7)
    args.add_argument("--minutes-per-save", type=float, default=3)
    return args.parse_args()


def make_step(cfg, args, teachers):
    def loss_of(params, images, target):
        logp = jax.nn.log_softmax(vit.forward(cfg, params, images, training=True))
        return -jnp.mean(jnp.sum(target * logp, axis=-1))

    @jax.jit
    def step(params, state, images, labels, key, factor, teachers):
        seen_key, blend_key = jax.random.split(key)
        seen = cifar.augment(images, seen_key, cutout=args.cutout)
        seen, target = cifar.blend(seen, labels, cfg.classes, blend_key)
        if teachers:
            target = sum(jax.nn.softmax(resnet.forward(*t, seen)[0]) for t in teachers) / len(teachers)
        else:
            target = target * (1 - SMOOTHING) + SMOOTHING / cfg.classes
        loss, grads = jax.value_and_grad(loss_of)(params, seen, target)
        lrs = (args.lr_muon * factor, args.lr_adam * factor)
        return *optim.update(params, state, grads, *lrs, args.decay, vit.is_matrix, vit.fused_parts), loss

    return lambda *batch: step(*batch, teachers)


def accuracy(cfg, params, images, labels, batch=500):
    predict = jax.jit(lambda p, x: jnp.argmax(vit.forward(cfg, p, x), axis=-1))
    right = 0
    for i in range(0, len(images), batch):
        right += int(np.sum(np.asarray(predict(params, cifar.normalise(images[i : i + batch]))) == labels[i : i + batch]))
    return right / len(images)


def batch_of(step, args, images, labels):
    """The batch of a step, which depends on the seed and the step alone, so that a resumed run sees the same."""
    per_epoch = len(images) // args.batch
    order = np.random.default_rng([args.seed, step // per_epoch]).permutation(len(images))
    pick = order[step % per_epoch * args.batch :][: args.batch]
    return images[pick], labels[pick], jax.random.key(args.seed * 1_000_003 + step)


def main():
    args = parse()
    os.makedirs(args.work, exist_ok=True)
    cfg = vit.Config(width=args.width, ffn=args.ffn, layers=args.layers, heads=args.heads)
    images, labels = cifar.load(args.train, f"{args.work}/cifar_train.npz")
    test = cifar.load(args.test, f"{args.work}/cifar_test.npz")
    path = f"{args.work}/{args.name}.ckpt.npz"
    if os.path.exists(path):
        params, state = optim.load(path)
    else:
        params = vit.init(cfg, args.seed, cifar.normalise(images[::25]))
        state = optim.start(params, vit.is_matrix)
    print(f"{sum(v.size for v in params.values())} parameters, from step {int(state['step'])}", flush=True)

    teachers = [jax.device_put(train_teacher.load(t)) for t in args.teachers]
    step_fn, start, saved, losses = make_step(cfg, args, teachers), time.time(), time.time(), []
    first = int(state["step"])
    schedule, step, over = optim.Schedule(args.steps, args.cooldown, args.minutes, warmup=200), first, False
    while not over:
        batch = batch_of(step, args, images, labels)
        params, state, loss = step_fn(params, state, *batch, schedule.factor(step))
        over = schedule.after(step, loss)
        losses.append(loss)
        step += 1
        if step % 1000 == 0 or over:
            mean = float(jnp.mean(jnp.stack(losses)))
            rate = (step - first) * args.batch / (time.time() - start)
            print(f"{args.name}: step {step} loss {mean:.4f} {rate:.0f} images/s", flush=True)
            losses = []
        if time.time() - saved > args.minutes_per_save * 60 or over:
            optim.save(path, params, state)
            saved = time.time()
    print(f"{args.name}: step {step} accuracy {accuracy(cfg, params, *test):.4f} of {len(test[1])} test images", flush=True)


if __name__ == "__main__":
    main()
