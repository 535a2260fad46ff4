"""CIFAR-10 from zip files of JPEG images, one folder per class."""

import io
import os
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
MEAN = [0.4914, 0.4822, 0.4465]
STD = [0.2470, 0.2435, 0.2616]


def load(zip_path, cache):
    """Images [n, 3, 32, 32] as bytes and class numbers [n], in the order of their names; decoded once into `cache`."""
    if os.path.exists(cache):
        stored = np.load(cache)
        return stored["images"], stored["labels"]
    images, labels = [], []
    with zipfile.ZipFile(zip_path) as archive:
        for name in sorted(n for n in archive.namelist() if n.lower().endswith((".jpg", ".jpeg", ".png"))):
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            images.append(pixels.transpose(2, 0, 1))
            labels.append(LABELS.index(name.split("/")[-2]))
    images, labels = np.stack(images), np.array(labels, np.int32)
    np.savez(cache, images=images, labels=labels)
    return images, labels


def normalise(images):
    """Bytes [B, 3, H, W] to what the model reads."""
    column = lambda v: np.array(v, np.float32)[None, :, None, None]
    return (images.astype(np.float32) / 255.0 - column(MEAN)) / column(STD)


def augment(images, key, pad=4, cutout=8):
    """Random shift by up to `pad` pixels (edges mirrored), random flip, and a grey square, of bytes [B, 3, H, W]; normalised."""
    size = images.shape[-1]
    shift_key, flip_key, corner_key = jax.random.split(key, 3)
    padded = jnp.pad(normalise(images), ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    shifts = jax.random.randint(shift_key, (len(images), 2), 0, 2 * pad + 1)
    view = jax.vmap(lambda x, s: jax.lax.dynamic_slice(x, (0, s[0], s[1]), (x.shape[0], size, size)))(padded, shifts)
    flips = jax.random.bernoulli(flip_key, 0.5, (len(images), 1, 1, 1))
    view = jnp.where(flips, view[..., ::-1], view)
    corners = jax.random.randint(corner_key, (len(images), 2, 1), 1 - cutout, size)
    inside = (jnp.arange(size) >= corners) & (jnp.arange(size) < corners + cutout)
    hidden = inside[:, 0, :, None] & inside[:, 1, None, :]
    return jnp.where(hidden[:, None], 0.0, view)


def blend(images, labels, classes, key):
    """Images with a random partner mixed in (Zhang et al. 2018), and the label distributions that go with them."""
    share_key, order_key = jax.random.split(key)
    share = jax.random.beta(share_key, 0.8, 0.8, (len(images),))
    order = jax.random.permutation(order_key, len(images))
    mix = lambda x, w: w * x + (1 - w) * x[order]
    return mix(images, share[:, None, None, None]), mix(jax.nn.one_hot(labels, classes), share[:, None])
