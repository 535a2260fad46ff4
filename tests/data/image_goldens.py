"""Writes image_goldens.json: what Pillow makes of small formula images and of the sample photos.

Run from the repository root: python3 tests/data/image_goldens.py [PHOTO_FOLDER]
Needs NumPy and Pillow before 13 (from then on some stretched pictures are resized along columns first,
which rounds differently). Of the photos only numbers are written: a hash of the decoded pixels, a hash
of the resized crop, and channel means.
"""

import json
import pathlib
import sys

import numpy as np
import PIL
from PIL import Image

FILTERS = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
CASES = [
    # width, height, resize, crop, fit
    (37, 23, 8, 8, "short"),
    (23, 37, 12, 9, "short"),
    (40, 30, 30, 10, "short"),
    (5, 3, 16, 11, "short"),
    (1, 1, 6, 5, "short"),
    (300, 2, 7, 7, "short"),
    (64, 33, 13, 10, "stretch"),
    (129, 257, 16, 16, "stretch"),
]


def formula(width, height):
    """Busy enough that a wrong tap, phase or rounding shows."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    value = (x * x * 31 + y * 57 + x * y * 13 + c * 91 + ((x + y) % 3 == 0) * 128) % 256
    return Image.fromarray(value.astype(np.uint8))


def resize_crop(image, resize, crop, fit, resample):
    width, height = image.size
    if fit == "stretch":
        size = (resize, resize)
    elif width <= height:
        size = (resize, int(resize * height / width))
    else:
        size = (int(resize * width / height), resize)
    image = image.resize(size, resample)
    left, top = (int(round((side - crop) / 2.0)) for side in size)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))


def fnv1a64(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/images")
    small = []
    for width, height, resize, crop, fit in CASES:
        for name, resample in FILTERS.items():
            rgb = resize_crop(formula(width, height), resize, crop, fit, resample)
            small.append(dict(width=width, height=height, resize=resize, crop=crop, fit=fit, filter=name, rgb=rgb.tobytes().hex()))
    photos = []
    for path in sorted([*folder.glob("*.bmp"), *folder.glob("*.jpg")]):
        image = Image.open(path).convert("RGB")
        for name, resample in FILTERS.items():
            rgb = resize_crop(image, 256, 224, "short", resample)
            means = [round(float(m), 4) for m in rgb.reshape(-1, 3).mean(axis=0)]
            photos.append(
                dict(file=path.name, decoded=fnv1a64(image.tobytes()), filter=name, crop=fnv1a64(rgb.tobytes()), means=means)
            )
    out = pathlib.Path(__file__).with_name("image_goldens.json")
    rows = lambda items: "[\n  " + ",\n  ".join(json.dumps(item) for item in items) + "\n ]"
    out.write_text(f'{{\n "pillow": "{PIL.__version__}",\n "small": {rows(small)},\n "photos": {rows(photos)}\n}}\n')


if __name__ == "__main__":
    main()
