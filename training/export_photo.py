"""Writes the photo model as GGUF with timm names, and measures and records what a file computes.

    python export_photo.py write --checkpoint work/photo.ckpt.npz --out masters/photo.F16.gguf
    python export_photo.py measure --file ../www/models/photo.gguf --master masters/photo.F16.gguf --test cifar10_test_jpeg.zip

The shipped file is made from the F16 master by `bitpane quantize`; `measure` takes all test images.
"""

import argparse
import dataclasses
import json
import os

import gguf
import numpy as np

import cifar
import export
import optim
import train_photo
import vit

DESCRIPTION = "Classifies photos into ten classes. Trained from random weights on CIFAR-10 by bitpane's training scripts."
LICENCE = "MIT OR Apache-2.0"


def write(path, cfg, params):
    writer = gguf.GGUFWriter(path, "vit")
    writer.add_name("bitpane photo")
    writer.add_license(LICENCE)
    writer.add_description(DESCRIPTION)
    writer.add_uint32("vit.image_size", cfg.image)
    writer.add_uint32("vit.patch_size", cfg.patch)
    writer.add_uint32("vit.embedding_length", cfg.width)
    writer.add_uint32("vit.block_count", cfg.layers)
    writer.add_uint32("vit.attention.head_count", cfg.heads)
    writer.add_float32("vit.attention.layer_norm_epsilon", cfg.eps)
    writer.add_uint32("vit.feed_forward_length", cfg.ffn)
    writer.add_uint32("vit.class_count", cfg.classes)
    writer.add_array("vit.image_mean", cifar.MEAN)
    writer.add_array("vit.image_std", cifar.STD)
    writer.add_string("vit.resample", "bicubic")
    writer.add_float32("vit.crop_pct", 1.0)
    writer.add_array("vit.labels", cifar.LABELS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    linear = lambda name: params[name].ndim == 2 and name.endswith(".weight")
    export.add_tensors(writer, params, lambda name: export.F16 if linear(name) else None)
    export.finish(writer)


def synthetic_input(cfg):
    """x[i] = ((7919 i) mod 1009) / 1009 * 4 - 2 over [3, H, W], a picture that any reader can make."""
    i = np.arange(vit.CHANNELS * cfg.image**2, dtype=np.int64)
    x = (i * 7919 % 1009).astype(np.float64) / 1009 * 4 - 2
    return x.astype(np.float32).reshape(1, vit.CHANNELS, cfg.image, cfg.image)


def config_of(params, heads):
    layers = len({name.split(".")[1] for name in params if name.startswith("blocks.")})
    ffn, width = params["blocks.0.mlp.fc1.weight"].shape
    return vit.Config(width=width, ffn=ffn, layers=layers, heads=heads)


def measure(args):
    """Accuracy of a file and of its master, and what the tests compare with."""
    shipped = export.read_back(args.file)
    cfg = config_of(shipped, args.heads)
    images, labels = cifar.load(args.test, f"{args.work}/cifar_test_all.npz")
    quality = {"test_accuracy": train_photo.accuracy(cfg, shipped, images, labels), "test_images": len(labels)}
    if args.master:
        exact = export.read_back(args.master)
        quality["test_accuracy_before_quantization"] = train_photo.accuracy(cfg, exact, images, labels)
    logits = np.asarray(vit.forward(cfg, shipped, synthetic_input(cfg)))[0]
    export.record(args.expected, "photo", {
        "file": os.path.basename(args.file), "sha256": export.sha256(args.file), "bytes": os.path.getsize(args.file),
        "parameters": int(sum(v.size for v in shipped.values())), "config": dataclasses.asdict(cfg), "quality": quality,
        "labels": cifar.LABELS, "input": "x[i] = ((7919 i) mod 1009) / 1009 * 4 - 2 over [3, 32, 32], already normalised",
        "logits": export.rounded(logits),
    })
    print(json.dumps(quality), f"{os.path.getsize(args.file)} bytes")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--work", default="work")
    args.add_argument("--heads", type=int, default=8)
    commands = args.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--checkpoint", required=True)
    writing.add_argument("--out", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--file", required=True)
    measuring.add_argument("--master")
    measuring.add_argument("--test", required=True, help="zip of test images")
    measuring.add_argument("--expected", default="../tests/data/default_models.json")
    args = args.parse_args()
    if args.command == "measure":
        return measure(args)
    params, _ = optim.load(args.checkpoint)
    write(args.out, config_of(params, args.heads), params)


if __name__ == "__main__":
    main()
