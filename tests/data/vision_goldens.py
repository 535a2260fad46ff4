"""Writes FOLDER/NAME.safetensors, tiny vision models with random weights, and FOLDER/NAME.json: the config.json that
comes with such a model and what its public Python implementation (transformers, timm) computes.

Needs: pip install torch transformers timm (made with torch 2.15.0, transformers 5.24.0, timm 1.0.31)
Usage: python vision_goldens.py FOLDER [NAME ...]

Weights are stored as F16 and computed with as stored, in F32 on the CPU. The input is made by a formula: value i of
[3, height, width] is ((i * 7919) % 1009) / 1009 * 4 - 2. A family that cannot be made is said aloud and left out.
"""

import json
import sys
import traceback
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

DIGITS = 7
RECIPES = {}


def recipe(f):
    RECIPES[f.__name__.replace("_", "-")] = f
    return f


def pixels(height, width):
    i = np.arange(3 * height * width, dtype=np.int64)
    x = ((i * 7919) % 1009).astype(np.float32) / np.float32(1009) * np.float32(4) - np.float32(2)
    return torch.from_numpy(x.reshape(1, 3, height, width))


def randomize(model, name):
    """Weights of a size that leaves every part of the model visible in its output; exact in F16."""
    g = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    randn = lambda t: torch.randn(t.shape, generator=g)
    with torch.no_grad():
        # Of the buffers only what training measures: frequencies and the like are what they are.
        buffers = [(key, t) for key, t in model.named_buffers() if "running_" in key]
        for key, t in list(model.named_parameters()) + buffers:
            if key.endswith("running_var"):
                value = torch.rand(t.shape, generator=g) + 0.5
            elif key.endswith(("logit_scale",)):
                value = torch.full(t.shape, 2.5)
            elif t.ndim == 1 and key.endswith("weight"):
                value = 1 + 0.3 * randn(t)
            elif "relative_position_bias_table" in key:
                value = randn(t)
            elif t.ndim <= 1 or t.ndim == 3:
                value = 0.4 * randn(t)
            elif "embedding" in key and t.ndim == 2:
                value = 0.6 * randn(t)
            else:
                value = randn(t) * (1.4 / (t[0].numel() ** 0.5))
            t.copy_(value.half().float())
    return model.eval()


def flat(t):
    return [round(float(x), DIGITS) for x in t.detach().float().flatten().tolist()]


def shaped(t):
    t = t.detach()
    return {"shape": list(t.shape), "values": flat(t)}


def rollout(maps):
    """Attention rollout: maps are [1, n_head, m, m] of each layer."""
    joined = None
    for a in maps:
        a = a[0].mean(0) * 0.5 + torch.eye(a.shape[-1]) * 0.5
        joined = a if joined is None else a @ joined
    return joined


def grid(tokens, height, width, patch):
    return tokens.reshape(height // patch, width // patch, *tokens.shape[1:])


SMALL = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8,
)


def hf(config, cls, name, seed=None, **kw):
    model = cls(config)
    randomize(model, seed or name)
    try:
        model.set_attn_implementation("eager")
    except Exception:
        model.config._attn_implementation = "eager"
    return model


def transformer(model, config, n_prefix, height=32, width=32, maps=True, patch=8, pooled=None, **kw):
    """What a classifier of Hugging Face gives: logits, patches, the attention of layer 1 and head 2, the rollout."""
    x = pixels(height, width)
    with torch.no_grad():
        out = model(x, output_hidden_states=False, output_attentions=maps, **kw)
        base = model if type(model).__name__.endswith("Model") else getattr(model, model.base_model_prefix)
        last = base(x, **kw).last_hidden_state[0]
    golden = {"height": height, "width": width}
    if getattr(out, "logits", None) is not None:
        golden["logits"] = flat(out.logits[0])
    golden["patches"] = shaped(grid(last[n_prefix:], height, width, patch))
    if pooled is not None:
        golden["pooled"] = flat(pooled(last))
    if maps:
        rows, cols = height // patch, width // patch
        seen = lambda a: flat(a[0][n_prefix:]) if n_prefix else flat(a.mean(0))
        golden["attention"] = {"layer": 1, "head": 2, "shape": [rows, cols], "values": seen(out.attentions[1][0][2])}
        golden["rollout"] = {"shape": [rows, cols], "values": seen(rollout(out.attentions))}
    return golden


@recipe
def vit(name):
    from transformers import ViTConfig, ViTForImageClassification

    model = hf(ViTConfig(**SMALL, num_labels=7, layer_norm_eps=1e-12), ViTForImageClassification, name)
    return model, [
        transformer(model, model.config, 1, pooled=lambda x: x[0]),
        transformer(model, model.config, 1, 48, 32, interpolate_pos_encoding=True),
    ]


@recipe
def deit_distilled(name):
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    model = hf(DeiTConfig(**SMALL, num_labels=7), DeiTForImageClassificationWithTeacher, name)
    return model, [transformer(model, model.config, 2)]


@recipe
def beit(name):
    from transformers import BeitConfig, BeitForImageClassification

    config = BeitConfig(
        **SMALL, num_labels=7, use_relative_position_bias=True, layer_scale_init_value=0.1, use_mean_pooling=True,
    )
    model = hf(config, BeitForImageClassification, name)
    return model, [transformer(model, model.config, 1)]


@recipe
def beit_shared(name):
    from transformers import BeitConfig, BeitForImageClassification

    config = BeitConfig(
        **SMALL, num_labels=7, use_shared_relative_position_bias=True, use_absolute_position_embeddings=True,
        layer_scale_init_value=0.1, use_mean_pooling=False,
    )
    model = hf(config, BeitForImageClassification, name)
    return model, [transformer(model, model.config, 1)]


@recipe
def dinov2(name):
    from transformers import Dinov2Config, Dinov2ForImageClassification

    config = Dinov2Config(**{k: v for k, v in SMALL.items() if k != "intermediate_size"}, num_labels=7, mlp_ratio=2,
                          use_swiglu_ffn=True)
    model = hf(config, Dinov2ForImageClassification, name)
    return model, [
        transformer(model, model.config, 1),
        transformer(model, model.config, 1, 24, 48),
    ]


@recipe
def dinov2_registers(name):
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        **{k: v for k, v in SMALL.items() if k != "intermediate_size"}, mlp_ratio=2, num_register_tokens=3,
    )
    model = hf(config, Dinov2WithRegistersModel, name)
    return model, [transformer(model, model.config, 4, pooled=lambda x: x[0])]


def dinov3_golden(name, gated):
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(**SMALL, num_register_tokens=3, use_gated_mlp=gated,
                             hidden_act="silu" if gated else "gelu")
    model = hf(config, DINOv3ViTModel, name)
    return model, [
        transformer(model, model.config, 4, pooled=lambda x: x[0]),
        transformer(model, model.config, 4, 24, 48),
    ]


@recipe
def dinov3(name):
    return dinov3_golden(name, False)


@recipe
def dinov3_gated(name):
    return dinov3_golden(name, True)


@recipe
def swin(name):
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(image_size=52, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4,
                        num_labels=7)
    model = hf(config, SwinForImageClassification, name)
    x = pixels(52, 52)
    with torch.no_grad():
        out = model(x)
        last = model.swin(x).last_hidden_state[0]
    return model, [{
        "height": 52, "width": 52, "logits": flat(out.logits[0]), "patches": shaped(last.reshape(7, 7, 32)),
        "pooled": flat(last.mean(0)),
    }]


STRINGS = [
    "a photo of a cat", "This is a photo of two dogs!", "  It's a   [red]-house, 1995 \n", "", "Über allen Gipfeln ist Ruh 😀",
    "don't we'll they've", "a-b_c 3.14 x", "<|endoftext|> is text </s> too",
]
CORPUS = """This is a photo of a cat. This is a photo of a dog. A red house and two photos of dogs in a house. It's a bird,
a plane, the cats and the dogs they've seen. We'll see a photo of the red bird in 1995. Over all the hilltops is peace."""


def clip_tokenizer():
    """As CLIP's tokenizer.json, with fewer merges."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    t = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    t.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=590, initial_alphabet=alphabet, end_of_word_suffix="</w>",
                                  show_progress=False)
    t.train_from_iterator([CORPUS] * 3, trainer)
    # CLIP's vocabulary has every byte with and without the end of a word, and two special tokens at its end.
    document = json.loads(t.to_str())
    merges = document["model"]["merges"]
    vocab = sorted(alphabet) + [c + "</w>" for c in sorted(alphabet)]
    vocab += [token for token in ("".join(m) for m in merges)]
    vocab = list(dict.fromkeys(vocab)) + ["<|startoftext|>", "<|endoftext|>"]
    document["model"]["vocab"] = {token: i for i, token in enumerate(vocab)}
    document["added_tokens"] = [
        {"id": vocab.index(c), "content": c, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": True, "special": True} for c in vocab[-2:]
    ]
    first, last = vocab.index("<|startoftext|>"), vocab.index("<|endoftext|>")
    document["post_processor"] = {"type": "RobertaProcessing", "sep": ["<|endoftext|>", last],
                                  "cls": ["<|startoftext|>", first], "trim_offsets": False, "add_prefix_space": False}
    return Tokenizer.from_str(json.dumps(document))


def siglip_tokenizer():
    """As SigLIP's tokenizer.json, with fewer tokens and without SentencePiece's table of NFKC."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    t = Tokenizer(models.Unigram())
    marks = r"""[!"\#\$%\&'\(\)\*\+,\-\.:;=\?@\[\\\]\^_`\{\|\}\~]"""
    t.normalizer = normalizers.Sequence([
        normalizers.Lowercase(), normalizers.Replace(Regex(marks), ""), normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ])
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=95, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
                                      show_progress=False)
    t.train_from_iterator([line.lower() for line in CORPUS.split(". ")] * 3, trainer)
    t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return t


def strings(folder, name):
    """Writes NAME.tokenizer.json and gives what it makes of some texts."""
    t = {"clip": clip_tokenizer, "siglip": siglip_tokenizer}[name]()
    (folder / f"{name}.tokenizer.json").write_text(t.to_str() + "\n")
    # Texts of special tokens stay text in texts that come from users, unlike here.
    plain = [s for s in STRINGS if "<" not in s]
    return [{"text": s, "ids": t.encode(s).ids} for s in plain]


@recipe
def clip(name):
    from transformers import CLIPConfig, CLIPModel

    text = dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, vocab_size=600,
                max_position_embeddings=12, eos_token_id=98, bos_token_id=97, hidden_act="quick_gelu")
    config = CLIPConfig(text_config=text, vision_config={**SMALL, "hidden_act": "quick_gelu"}, projection_dim=20)
    model = hf(config, CLIPModel, name)
    x = pixels(32, 32)
    texts = [[97, 5, 9, 4, 30, 98], [97, 98], [97, 3, 7, 7, 11, 8, 50, 51, 52, 53, 54, 98]]
    with torch.no_grad():
        vision = model.vision_model(x, output_attentions=True)
        pooled = model.visual_projection(vision.pooler_output)
        patches = model.vision_model.post_layernorm(vision.last_hidden_state)[0][1:]
        embeds = []
        for ids in texts:
            out = model.text_model(torch.tensor([ids]))
            embeds.append(model.text_projection(out.pooler_output)[0])
        scores = [model(input_ids=torch.tensor([ids]), pixel_values=x).logits_per_image[0, 0] for ids in texts]
    return model, [{
        "height": 32, "width": 32, "pooled": flat(pooled[0]), "patches": shaped(grid(patches, 32, 32, 8)),
        "attention": {"layer": 1, "head": 2, "shape": [4, 4], "values": flat(vision.attentions[1][0][2][0][1:])},
        "texts": texts, "text_embeds": [flat(e) for e in embeds], "text_scores": [float(s) for s in scores],
    }]


@recipe
def siglip(name):
    from transformers import SiglipConfig, SiglipModel

    text = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=99,
                max_position_embeddings=10, pad_token_id=1)
    config = SiglipConfig(text_config=text, vision_config=dict(SMALL))
    model = hf(config, SiglipModel, name)
    x = pixels(32, 32)
    texts = [[5, 9, 4, 30, 1], [1], [3, 7, 7, 11, 8, 50, 51, 52, 53, 1]]
    padded = [ids + [1] * (10 - len(ids)) for ids in texts]
    with torch.no_grad():
        vision = model.vision_model(x, output_attentions=True)
        embeds = [model.text_model(torch.tensor([ids])).pooler_output[0] for ids in padded]
        scores = [model(input_ids=torch.tensor([ids]), pixel_values=x).logits_per_image[0, 0] for ids in padded]
    attention = vision.attentions[1][0][2].mean(0)
    return model, [{
        "height": 32, "width": 32, "pooled": flat(vision.pooler_output[0]),
        "patches": shaped(grid(vision.last_hidden_state[0], 32, 32, 8)),
        "attention": {"layer": 1, "head": 2, "shape": [4, 4], "values": flat(attention)},
        "texts": texts, "text_embeds": [flat(e) for e in embeds], "text_scores": [float(s) for s in scores],
    }]


def timm_golden(model, height, width, maps=False):
    x = pixels(height, width)
    with torch.no_grad():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        golden = {"height": height, "width": width, "logits": flat(model(x)[0]), "pooled": flat(pooled[0])}
        if features.ndim == 3:
            n_prefix = getattr(model, "num_prefix_tokens", 0)
            golden["patches_flat"] = flat(features[0][n_prefix:])
        else:
            golden["patches_flat"] = flat(features[0] if features.shape[-1] == pooled.shape[-1] and
                                          features.shape[1] != pooled.shape[-1] else features[0].permute(1, 2, 0))
    return golden


def timm_config(architecture, height, n_class, **args):
    return {
        "architecture": architecture, "num_classes": n_class, "model_args": args,
        "pretrained_cfg": {"input_size": [3, height, height], "num_classes": n_class, "crop_pct": 0.9,
                           "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"},
    }


@recipe
def timm_vit_siglip(name):
    """A ViT of timm that pools by attention, with norms of queries and keys."""
    import timm

    args = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=7, class_token=False,
                global_pool="map", qk_norm=True)
    model = randomize(timm.models.vision_transformer.VisionTransformer(**args), name)
    config = timm_config("vit_base_patch16_siglip_224", 32, 7, num_heads=4)
    return model, [timm_golden(model, 32, 32)], config


@recipe
def timm_vit_registers(name):
    """Registers, positions for patches only, mean of the patches, LayerScale."""
    import timm

    args = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=7, reg_tokens=4,
                no_embed_class=True, init_values=0.1, global_pool="avg", class_token=False)
    model = randomize(timm.models.vision_transformer.VisionTransformer(**args), name)
    config = timm_config("vit_medium_patch16_reg4_gap_256", 32, 7, num_heads=4)
    return model, [timm_golden(model, 32, 32)], config


@recipe
def timm_eva02(name):
    from timm.models.eva import Eva

    args = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=7, mlp_ratio=4 * 2 / 3,
                qkv_fused=False, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(16, 16))
    model = randomize(Eva(**args), name)
    config = timm_config("eva02_base_patch14_448", 32, 7, num_heads=2, ref_feat_shape=[16, 16])
    return model, [timm_golden(model, 32, 32)], config


@recipe
def timm_eva02_tiny(name):
    from timm.models.eva import Eva

    args = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=7, mlp_ratio=4 * 2 / 3,
                swiglu_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(16, 16))
    model = randomize(Eva(**args), name)
    config = timm_config("eva02_tiny_patch14_224", 32, 7, num_heads=2)
    return model, [timm_golden(model, 32, 32)], config


@recipe
def timm_dinov3(name):
    from timm.models.eva import Eva

    args = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=7, qkv_bias=False,
                init_values=0.1, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True,
                use_rot_pos_emb=True, use_abs_pos_emb=False, num_reg_tokens=4, use_fc_norm=False, global_pool="token",
                dynamic_img_size=True)
    model = randomize(Eva(**args), name)
    config = timm_config("vit_small_patch16_dinov3", 32, 7, num_heads=2)
    return model, [timm_golden(model, 32, 32)], config


@recipe
def timm_beit(name):
    from timm.models.beit import Beit

    args = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=7, use_abs_pos_emb=False,
                use_rel_pos_bias=True, init_values=0.1)
    model = randomize(Beit(**args), name)
    config = timm_config("beit_base_patch16_224", 32, 7, num_heads=4)
    return model, [timm_golden(model, 32, 32)], config


@recipe
def timm_swin(name):
    from timm.models.swin_transformer import SwinTransformer

    args = dict(img_size=64, patch_size=4, embed_dim=16, depths=(2, 2, 2), num_heads=(2, 4, 4), window_size=4,
                num_classes=7)
    model = randomize(SwinTransformer(**args), name)
    return model, [timm_golden(model, 64, 64)], timm_config("swin_tiny_patch4_window7_224", 64, 7)


def convnet(model, size, stages=None):
    x = pixels(size, size)
    with torch.no_grad():
        out = model(x)
        base = getattr(model, model.base_model_prefix)(x)
    golden = {"height": size, "width": size, "logits": flat(out.logits[0])}
    pooled = getattr(base, "pooler_output", None)
    if pooled is not None:
        golden["pooled"] = flat(pooled[0])
    if base.last_hidden_state.ndim == 4:
        golden["patches"] = shaped(base.last_hidden_state[0].permute(1, 2, 0))
    return golden


@recipe
def mobilevit(name):
    from transformers import MobileViTConfig, MobileViTForImageClassification

    config = MobileViTConfig(image_size=64, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 12, 16, 16, 20, 40],
                             num_attention_heads=4, num_labels=7, expand_ratio=2.0, conv_kernel_size=3, patch_size=2)
    model = hf(config, MobileViTForImageClassification, name)
    return model, [convnet(model, 64)]


@recipe
def timm_mobilevit(name):
    """Two stages with transformers, narrow."""
    from timm.models.byobnet import ByoBlockCfg, ByoModelCfg, ByobNet
    from timm.models.mobilevit import _inverted_residual_block, _mobilevit_block

    cfg = ByoModelCfg(
        blocks=(
            _inverted_residual_block(d=1, c=12, s=1, br=2.0),
            _inverted_residual_block(d=2, c=16, s=2, br=2.0),
            _mobilevit_block(d=1, c=20, s=2, transformer_dim=24, transformer_depth=2, patch_size=2, br=2.0),
            _mobilevit_block(d=1, c=24, s=2, transformer_dim=32, transformer_depth=1, patch_size=2, br=2.0),
        ),
        stem_chs=8, stem_type="3x3", stem_pool="", downsample="", act_layer="silu", num_features=48,
    )
    model = randomize(ByobNet(cfg, num_classes=7), name)
    return model, [timm_golden(model, 64, 64)], timm_config("mobilevit_xxs", 64, 7)


def write(folder, name):
    torch.manual_seed(0)
    model, cases, *config = RECIPES[name](name)
    if config:
        config = config[0]
        tensors = model.state_dict()
    else:
        # As published files have it: config.json and the names of files, which are not always those in memory.
        import tempfile
        from safetensors.torch import load_file

        with tempfile.TemporaryDirectory() as there:
            model.save_pretrained(there)
            tensors = load_file(f"{there}/model.safetensors")
            config = json.loads(Path(f"{there}/config.json").read_text())
            for noise in ["transformers_version", "dtype", "architectures"]:
                config.pop(noise, None)
    if name in ["clip", "siglip"]:
        cases[0]["strings"] = strings(folder, name)
    shrunk = {k: v.half().contiguous().clone() if v.is_floating_point() else v.clone() for k, v in tensors.items()}
    save_file(shrunk, folder / f"{name}.safetensors", metadata={"format": "pt"})
    document = {"config": config, "cases": cases}
    (folder / f"{name}.json").write_text(json.dumps(document) + "\n")
    size = (folder / f"{name}.safetensors").stat().st_size
    spread = np.std(cases[0].get("logits") or cases[0]["pooled"])
    print(f"{name}: {size} bytes, spread {spread:.3g}")


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in sys.argv[2:] or RECIPES:
        try:
            write(folder, name)
        except Exception as e:
            failed.append(name)
            traceback.print_exc()
            print(f"{name}: left out: {e}")
    print("left out:", ", ".join(failed) or "nothing")


main()
