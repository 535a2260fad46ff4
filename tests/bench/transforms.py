"""What changes of a model's weights that leave what it computes as it is are worth before rounding: scales that move between
neighbouring layers (AWQ), and rotations by Hadamard matrices (QuaRot, SpinQuant's R1 and R2).

    pip install numpy gguf
    cargo build --release --features cli --bin bitpane
    python tests/bench/transforms.py MODEL.gguf TEXT TYPE[+im],... [--chars 4000]

MODEL is a Llama of floats whose output matrix is its table of tokens. Each type is written without data, or with "+im" under an
importance matrix of the changed model. A row gives the divergence (KL in nats per token) of each, then the mean of its ratios
to those of the plain model. "exact" is the divergence of the changed model before rounding: that the change changes nothing.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np


def run(*args):
    threads = ["--threads", "1"] if args[0] in ("perplexity", "quantize") else []
    done = subprocess.run([OPTIONS.bitpane, *map(str, args), *threads, "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bitpane {' '.join(map(str, args))}: {done.stderr}")
    return json.loads(done.stdout)


class Model:
    """Metadata of a file, and its tensors in f64."""

    def __init__(self, path):
        self.fields = gguf.GGUFReader(path).fields
        self.tensors = {}
        for t in gguf.GGUFReader(path).tensors:
            values = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64)
            self.tensors[t.name] = values.reshape([int(d) for d in t.shape][::-1])
        key = lambda name: int(self.fields["llama." + name].contents())
        self.n_layer, self.n_head = key("block_count"), key("attention.head_count")
        self.n_head_kv = key("attention.head_count_kv")

    def write(self, path, tensors):
        writer = gguf.GGUFWriter(path, "llama")
        for key, field in self.fields.items():
            if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
                continue
            if field.types[0] == gguf.GGUFValueType.ARRAY:
                writer.add_array(key, field.contents())
            else:
                writer.add_key_value(key, field.contents(), field.types[0])
        for name, values in tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(values.astype(np.float32)))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def mean_squares(path):
    """Of each matrix's inputs, from an importance matrix."""
    found = {t.name: t.data.reshape(-1).astype(np.float64) for t in gguf.GGUFReader(path).tensors}
    names = [name.removesuffix(".in_sum2") for name in found if name.endswith(".in_sum2")]
    return {name: found[name + ".in_sum2"] / max(found[name + ".counts"][0], 1) for name in names}


def scaled(model, seen, alpha, norms, pairs):
    """Columns grow with their inputs to the power of alpha; what makes these inputs shrinks likewise."""
    t = dict(model.tensors)

    def scale_of(x):
        scale = np.sqrt(np.maximum(x, 1e-8 * x.mean())) ** alpha
        return scale / np.exp(np.log(scale).mean())

    for layer in range(model.n_layer):
        name = lambda part: f"blk.{layer}.{part}.weight"
        for norm, matrices in [("attn_norm", ["attn_q", "attn_k", "attn_v"]), ("ffn_norm", ["ffn_gate", "ffn_up"])] if norms else []:
            scale = scale_of(seen[name(matrices[0])])
            t[name(norm)] = t[name(norm)] / scale
            for part in matrices:
                t[name(part)] = t[name(part)] * scale
        if pairs:
            # Several heads of queries share a head of values: they share its scales.
            rep = model.n_head // model.n_head_kv
            x = seen[name("attn_output")].reshape(model.n_head_kv, rep, -1).mean(1)
            scale = scale_of(x.reshape(-1))
            t[name("attn_v")] = t[name("attn_v")] / scale[:, None]
            repeated = np.repeat(scale.reshape(model.n_head_kv, 1, -1), rep, 1).reshape(-1)
            t[name("attn_output")] = t[name("attn_output")] * repeated
            scale = scale_of(seen[name("ffn_down")])
            t[name("ffn_up")] = t[name("ffn_up")] / scale[:, None]
            t[name("ffn_down")] = t[name("ffn_down")] * scale
    return t


def hadamard(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / math.sqrt(n)


def heads_rotated(model, tensors):
    """Each head of values, taken back by the output matrix."""
    t = dict(tensors)
    for layer in range(model.n_layer):
        v, out = (f"blk.{layer}.{part}.weight" for part in ("attn_v", "attn_output"))
        d = len(t[v]) // model.n_head_kv
        h = hadamard(d)
        t[v] = np.einsum("ij,hjk->hik", h, t[v].reshape(model.n_head_kv, d, -1)).reshape(t[v].shape)
        t[out] = np.einsum("nhj,ij->nhi", t[out].reshape(len(t[out]), model.n_head, d), h).reshape(t[out].shape)
    return t


def untied(model):
    return dict(model.tensors) | {"output.weight": model.tensors["token_embd.weight"]}


def stream_rotated(model):
    """All of the residual stream, by signs drawn at random and a Hadamard matrix. The gains of norms move into the matrices after
    them, so that the output matrix is no longer the table of tokens."""
    t = untied(model)
    n = t["token_embd.weight"].shape[1]
    rotation = np.random.default_rng(0).choice([-1, 1], n)[:, None] * hadamard(n)
    t["output.weight"] = (t["output.weight"] * t["output_norm.weight"]) @ rotation
    t["output_norm.weight"] = np.ones(n)
    t["token_embd.weight"] = t["token_embd.weight"] @ rotation
    for layer in range(model.n_layer):
        name = lambda part: f"blk.{layer}.{part}.weight"
        for norm, matrices in [("attn_norm", ["attn_q", "attn_k", "attn_v"]), ("ffn_norm", ["ffn_gate", "ffn_up"])]:
            for part in matrices:
                t[name(part)] = (t[name(part)] * t[name(norm)]) @ rotation
            t[name(norm)] = np.ones(n)
        for part in ("attn_output", "ffn_down"):
            t[name(part)] = rotation.T @ t[name(part)]
    return t


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("types")
    parser.add_argument("--chars", type=int, default=4000)
    parser.add_argument("--bitpane", default="target/release/bitpane")
    OPTIONS = parser.parse_args()
    with open(OPTIONS.text, encoding="utf-8") as f:
        text = f.read()
    if OPTIONS.text.endswith(".json"):
        text = " ".join(json.loads(text)).replace("\n", " ")
    model, types = Model(OPTIONS.model), OPTIONS.types.split(",")
    with tempfile.TemporaryDirectory() as folder:
        name = lambda n: os.path.join(folder, n)
        open(name("test.txt"), "w").write(text[: OPTIONS.chars])
        open(name("calibration.txt"), "w").write(text[-8000:])
        run("perplexity", OPTIONS.model, name("test.txt"), "--context", 256, "--record", name("ref"))
        divergence = lambda f: run("perplexity", f, name("test.txt"), "--context", 256, "--against", name("ref"))["divergence"]["mean"]
        run("imatrix", OPTIONS.model, name("imatrix.gguf"), name("calibration.txt"))
        seen = mean_squares(name("imatrix.gguf"))
        changed = {"plain": model.tensors}
        for alpha in (0.2, 0.5):
            changed[f"scales behind norms, {alpha}"] = scaled(model, seen, alpha, True, False)
            changed[f"scales of v and up, {alpha}"] = scaled(model, seen, alpha, False, True)
            changed[f"all scales, {alpha}"] = scaled(model, seen, alpha, True, True)
        changed["heads rotated"] = heads_rotated(model, model.tensors)
        changed["stream and heads rotated"] = heads_rotated(model, stream_rotated(model))
        changed["untied, for comparison"] = untied(model)
        print(f"| change | exact | {' | '.join(types)} | mean ratio |\n|---|--:|{'--:|' * len(types)}--:|")
        plain = None
        for label, tensors in changed.items():
            model.write(name("model.gguf"), tensors)
            exact = divergence(name("model.gguf"))
            run("imatrix", name("model.gguf"), name("own.gguf"), name("calibration.txt"))
            found = []
            for kind in types:
                more = ["--imatrix", name("own.gguf")] if kind.endswith("+im") else []
                run("quantize", name("model.gguf"), name("out.gguf"), "--type", kind.removesuffix("+im"), *more)
                found.append(divergence(name("out.gguf")))
            plain = plain or found
            ratio = math.exp(sum(math.log(a / b) for a, b in zip(found, plain)) / len(types))
            print(f"| {label} | {exact:.0e} | {' | '.join(f'{d:.5f}' for d in found)} | {ratio:.3f} |", flush=True)


main()
