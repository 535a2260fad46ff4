"""CIFAR-10 from zip files of JPEG images, one folder per class."""

import io
import os
import zipfile

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


def augment(images, rng, pad=4, cutout=0):
    """Random shift by up to `pad` pixels (edges mirrored), random flip, and, where asked for, a grey square."""
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="reflect")
    out = np.empty(images.shape, np.float32)
    size = images.shape[-1]
    shifts, flips = rng.integers(0, 2 * pad + 1, (len(images), 2)), rng.random(len(images)) < 0.5
    corners = rng.integers(0, size - cutout + 1, (len(images), 2))
    for i, ((dy, dx), flip, (cy, cx)) in enumerate(zip(shifts, flips, corners)):
        view = padded[i, :, dy : dy + size, dx : dx + size]
        out[i] = normalise((view[:, :, ::-1] if flip else view)[None])[0]
        if cutout:
            out[i, :, cy : cy + cutout, cx : cx + cutout] = 0.0
    return out
