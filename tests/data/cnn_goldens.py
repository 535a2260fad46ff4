"""Writes cnn/NAME.json: what timm, torchvision and transformers compute for small CNNs.

Run from the repository root: python3 tests/data/cnn_goldens.py [OUT_FOLDER]
Needs torch, and takes from timm, torchvision and transformers what is installed.

No weights are stored. Every value follows from its tensor's name (`values` below), so that a golden holds
names and shapes only, and `tests/cnn.rs` makes the same checkpoint. The reference computes in float64.
"""

import json
import pathlib
import sys
import traceback

import numpy as np

N_CLASS = 10


def fnv1a64(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def uniform(name, n):
    """n numbers in 0..1 of the splitmix64 stream that the name seeds: 24 bits each, exact in float32."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def values(name, shape, gain):
    """A tensor's float32 values: matrices keep the variance of what passes through, the rest is near 0 or 1."""
    u = uniform(name, int(np.prod(shape, dtype=np.int64)))
    if name.endswith("running_var"):
        v = 0.5 + u
    elif len(shape) >= 2 and np.prod(shape[1:]) > 1:
        v = (2 * u - 1) * np.sqrt(gain / np.prod(shape[1:]))
    elif name.endswith(("bias", "running_mean")):
        v = 0.2 * (2 * u - 1)
    else:
        v = 0.8 + 0.4 * u
    return v.astype(np.float32).reshape(shape)


def golden(model, config, size, gain):
    import torch

    names = []
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = tensor
            continue
        shape = list(tensor.shape)
        names.append([name, shape])
        state[name] = torch.from_numpy(values(name, shape, gain))
    model.load_state_dict(state)
    pixels = 2 * (2 * uniform("input", 3 * size * size) - 1)
    model = model.double().eval()
    with torch.no_grad():
        out = model(torch.from_numpy(pixels.astype(np.float32).astype(np.float64)).reshape(1, 3, size, size))
    logits = getattr(out, "logits", out)
    return dict(
        config=config,
        size=size,
        gain=gain,
        tensors=names,
        logits=[float(f"{v:.7g}") for v in logits.reshape(-1).tolist()],
    )


def timm_models():
    from timm.models import convnext, efficientnet, mobilenetv3, resnet

    small = dict(num_classes=N_CLASS)
    tf = dict(bn_eps=1e-3, pad_type="same", **small)
    return {
        "timm_mobilenetv1_100": lambda: efficientnet._gen_mobilenet_v1("mobilenetv1_100", channel_multiplier=0.25, **small),
        "timm_mobilenetv2_100": lambda: efficientnet._gen_mobilenet_v2("mobilenetv2_100", channel_multiplier=0.25, **small),
        "timm_mobilenetv3_large_100": lambda: mobilenetv3._gen_mobilenet_v3("mobilenetv3_large_100", 0.25, **small),
        "timm_mobilenetv3_small_100": lambda: mobilenetv3._gen_mobilenet_v3("mobilenetv3_small_100", 0.5, **small),
        "timm_tf_mobilenetv3_large_100": lambda: mobilenetv3._gen_mobilenet_v3("tf_mobilenetv3_large_100", 0.25, **tf),
        "timm_efficientnet_lite0": lambda: efficientnet._gen_efficientnet_lite("efficientnet_lite0", 0.25, 1.0, **small),
        "timm_tf_efficientnet_lite0": lambda: efficientnet._gen_efficientnet_lite("tf_efficientnet_lite0", 0.25, 1.0, **tf),
        "timm_efficientnet_b0": lambda: efficientnet._gen_efficientnet("efficientnet_b0", 0.25, 1.0, **small),
        "timm_resnet18": lambda: resnet.ResNet(resnet.BasicBlock, (1, 2, 1, 1), channels=(16, 24, 32, 48), **small),
        "timm_resnet50": lambda: resnet.ResNet(resnet.Bottleneck, (1, 2, 1, 1), channels=(8, 12, 16, 24), **small),
        "timm_convnext_tiny": lambda: convnext.ConvNeXt(depths=(1, 2, 2, 1), dims=(16, 24, 32, 48), **small),
    }


def torchvision_models():
    from torchvision.models import convnext, efficientnet, mobilenetv2, mobilenetv3, resnet

    def mobilenet_v3(arch, width):
        setting, last = mobilenetv3._mobilenet_v3_conf(arch, width_mult=width)
        return mobilenetv3.MobileNetV3(setting, last, num_classes=N_CLASS)

    def convnext_small():
        block = convnext.CNBlockConfig
        setting = [block(16, 24, 1), block(24, 32, 2), block(32, 48, 1), block(48, None, 1)]
        return convnext.ConvNeXt(setting, num_classes=N_CLASS)

    def efficientnet_b0():
        setting, last = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.25, depth_mult=1.0)
        return efficientnet.EfficientNet(setting, dropout=0.2, last_channel=last, num_classes=N_CLASS)

    return {
        "torchvision_mobilenet_v2": lambda: mobilenetv2.MobileNetV2(num_classes=N_CLASS, width_mult=0.25),
        "torchvision_mobilenet_v3_small": lambda: mobilenet_v3("mobilenet_v3_small", 0.5),
        "torchvision_mobilenet_v3_large": lambda: mobilenet_v3("mobilenet_v3_large", 0.25),
        "torchvision_resnet18": lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=N_CLASS, width_per_group=64),
        "torchvision_convnext_tiny": convnext_small,
        "torchvision_efficientnet_b0": efficientnet_b0,
    }


def transformers_models():
    import transformers as t

    return {
        "hf_mobilenet_v1": lambda: (
            c := t.MobileNetV1Config(depth_multiplier=0.25, image_size=80, num_labels=N_CLASS),
            t.MobileNetV1ForImageClassification(c),
        ),
        "hf_mobilenet_v2": lambda: (
            c := t.MobileNetV2Config(depth_multiplier=0.25, min_depth=8, image_size=80, num_labels=N_CLASS),
            t.MobileNetV2ForImageClassification(c),
        ),
        "hf_resnet_basic": lambda: (
            c := t.ResNetConfig(embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 2, 1, 1], layer_type="basic", num_labels=N_CLASS),
            t.ResNetForImageClassification(c),
        ),
        "hf_resnet_bottleneck": lambda: (
            c := t.ResNetConfig(embedding_size=16, hidden_sizes=[32, 48, 64, 96], depths=[1, 2, 1, 1], num_labels=N_CLASS),
            t.ResNetForImageClassification(c),
        ),
        "hf_convnext": lambda: (
            c := t.ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 2, 2, 1], num_labels=N_CLASS),
            t.ConvNextForImageClassification(c),
        ),
        "hf_efficientnet": lambda: (
            c := t.EfficientNetConfig(width_coefficient=0.25, depth_coefficient=1.0, hidden_dim=320, num_labels=N_CLASS),
            t.EfficientNetForImageClassification(c),
        ),
    }


def write(out_dir, name, made, size=80):
    model, config = (made[1], made[0].to_dict()) if isinstance(made, tuple) else (made, None)
    if config is None:
        config = dict(architecture=name.split("_", 1)[1], num_classes=N_CLASS, pretrained_cfg=dict(input_size=[3, size, size]))
    else:
        drop = ("id2label", "label2id", "dtype", "transformers_version", "return_dict", "output_hidden_states", "chunk_size_feed_forward")
        config = {k: v for k, v in config.items() if k not in drop and v is not None}
        config["image_size"] = size
    path = pathlib.Path(out_dir) / f"{name}.json"
    for gain in (6.0, 4.5, 3.0, 2.0):
        result = golden(model.float(), config, size, gain)
        if max(map(abs, result["logits"])) < 20:
            break
    text = json.dumps(result, separators=(",", ":"), default=str)
    path.write_text(text.replace("],[\"", "],\n[\"") + "\n")
    print("written", path, flush=True)


def make(out_dir):
    """Every golden whose library is there; one that fails is reported and does not stop the others."""
    pathlib.Path(out_dir).mkdir(parents=True, exist_ok=True)
    for library in (timm_models, torchvision_models, transformers_models):
        try:
            models = library()
        except ImportError as error:
            print("skipped", library.__name__, error, flush=True)
            continue
        for name, build in models.items():
            try:
                write(out_dir, name, build())
            except Exception:
                print("failed", name, flush=True)
                traceback.print_exc()


if __name__ == "__main__":
    make(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("cnn"))
