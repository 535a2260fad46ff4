"""What our quantizer keeps of a model, beside llama.cpp's and plain rounding, at equal bytes.

    pip install numpy llama-cpp-python gguf
    cargo build --release --features cli --bin bitpane
    python tests/bench/quality.py text MODEL.F16.gguf TEXT [--calibration TEXT] [--chars 12000] [--also MODEL.F16.gguf]
    python tests/bench/quality.py encoders
    python tests/bench/quality.py photos deit_tiny.safetensors FOLDER [--images 200] [--calibration FOLDER]

Everything runs in bitpane, so that only weights differ, with one thread. "llama.cpp" are the blocks that its library writes: whole files by
llama_model_quantize for texts, and for photos ggml_quantize_chunk in the places of ours.
"""
import argparse
import ctypes
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile

import numpy as np

FILE_TYPES = [
    ("Q6_K", 18), ("Q5_K_M", 17), ("Q4_K_M", 15), ("IQ4_XS", 30), ("Q3_K_M", 12), ("Q3_K_S", 11), ("Q2_K", 10),
]
TYPES = {"Q8_0": 8, "Q6_K": 14, "Q5_K": 13, "Q4_K": 12, "Q3_K": 11, "Q2_K": 10}


def run(*args):
    threads = ["--threads", "1"] if args[0] in ("perplexity", "quantize", "classify") else []
    done = subprocess.run([OPTIONS.bitpane, *map(str, args), *threads, "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bitpane {' '.join(map(str, args))}: {done.stderr}")
    return json.loads(done.stdout)


def llama():
    import llama_cpp

    return llama_cpp


# ---- texts ----

def legacy_imatrix(path, gguf):
    """llama.cpp's library takes an importance matrix as a map of C++; its quantizer program reads files. We need neither:
    this gives name -> values for ggml_quantize_chunk."""
    info = run("info", gguf)
    with open(gguf, "rb") as f:
        data = f.read()
    at = len(data) - sum(-(-t["bytes"] // 32) * 32 for t in info["tensors"])
    values, counts = {}, {}
    for t in info["tensors"]:
        v = np.frombuffer(data[at : at + t["bytes"]], dtype=np.float32)
        at += -(-t["bytes"] // 32) * 32
        name, kind = t["name"].rsplit(".", 1)
        (values if kind == "in_sum2" else counts)[name] = v
    return {name: v / max(counts[name][0], 1) for name, v in values.items()}


def score(model, text, record=None, against=None):
    args = ["perplexity", model, text, "--context", OPTIONS.context]
    if record:
        args += ["--record", record]
    if against:
        args += ["--against", against]
    return run(*args)


def text_tables(folder):
    name = lambda n: os.path.join(folder, n)
    with open(OPTIONS.data, encoding="utf-8") as f:
        text = f.read()
    if OPTIONS.data.endswith(".json"):
        stories = json.loads(text)
        if OPTIONS.lines:
            text = "\n".join(re.sub(r"\s*\n\s*", "\n", story.strip()) for story in stories)
        else:
            text = " ".join(stories).replace("\n", " ")
    open(name("test.txt"), "w").write(text[: OPTIONS.chars])
    # Calibration never sees what is measured.
    given = OPTIONS.calibration
    open(name("calibration.txt"), "w").write(open(given).read() if given else text[-20000:])
    score(OPTIONS.model, name("test.txt"), record=name("ref"))
    exact = token_losses(name("ref"))
    base = exact.mean()
    print(f"\n{os.path.basename(OPTIONS.model)}: {os.path.getsize(OPTIONS.model)} bytes, perplexity {math.exp(base):.4f}\n")
    print("| llama.cpp's type | bytes | quantizer | KL | perplexity / F16 | / llama.cpp's |\n|---|--:|---|--:|--:|--:|")
    run("imatrix", OPTIONS.model, name("imatrix.gguf"), name("calibration.txt"))
    imatrix = legacy_imatrix(name("imatrix.gguf"), name("imatrix.gguf"))
    wanted = OPTIONS.types.split(",") if OPTIONS.types else [label for label, _ in FILE_TYPES]
    for label, number in [row for row in FILE_TYPES if row[0] in wanted]:
        theirs, ours = name("theirs.gguf"), name("ours.gguf")
        lib = llama()
        params = lib.llama_model_quantize_default_params()
        params.ftype = number
        params.nthread = 1
        if lib.llama_model_quantize(OPTIONS.model.encode(), theirs.encode(), ctypes.byref(params)):
            sys.exit(f"llama.cpp cannot write {label}")
        size = os.path.getsize(theirs)
        beside = row(label, "llama.cpp", theirs, exact, None, name)
        replace_blocks(OPTIONS.model, theirs, ours, imatrix)
        row(label, "llama.cpp, imatrix", ours, exact, beside, name)
        calibrate = ["--calibrate", name("calibration.txt")]
        for how, extra in [
            ("ours, no data", ["--target-bytes", size]),
            ("ours, calibrated", ["--target-bytes", size, *calibrate, "--plan", name("plan.json")]),
            # The same types: GPTQ says how they are reached.
            ("ours, calibrated, GPTQ", ["--plan-in", name("plan.json"), *calibrate, "--gptq"]),
        ][: 1 if OPTIONS.data_free else 3]:
            run("quantize", OPTIONS.model, ours, *extra)
            if os.path.getsize(ours) > size:
                sys.exit(f"{label}, {how}: {os.path.getsize(ours)} bytes, above {size}")
            row(label, how, ours, exact, beside, name)


def token_losses(record):
    """-ln p of each token of the text, from a record (src/tasks/score.rs)."""
    with open(record, "rb") as f:
        data = f.read()
    vocab, context, n = struct.unpack("<3I", data[8:20])
    tokens = np.frombuffer(data, np.uint32, n, 20)
    rows = np.frombuffer(data[20 + 4 * n :], np.dtype([("top", "<f4"), ("below", "<u2", vocab)]))
    if len(rows) < n:  # Without a start token the first of each piece is not scored.
        tokens = tokens[np.arange(n) % (context - 1) > 0]
    below = rows["below"][np.arange(len(rows)), tokens]
    return below * (24 / 65535) - rows["top"].astype(np.float64)


def ratio(losses, beside):
    """Of perplexities, and its standard error from the differences token by token."""
    d = losses - beside
    found = math.exp(d.mean())
    return f"{found:.4f} +- {found * d.std(ddof=1) / math.sqrt(len(d)):.4f}"


def row(label, how, path, exact, beside, name):
    found = score(path, name("test.txt"), record=name("row"), against=name("ref"))["divergence"]["mean"]
    losses = token_losses(name("row"))
    to_theirs = "" if beside is None else ratio(losses, beside)
    print(f"| {label} | {os.path.getsize(path)} | {how} | {found:.5f} | {ratio(losses, exact)} | {to_theirs} |", flush=True)
    return losses


# ---- ggml's blocks in the place of ours ----

def ggml():
    folder = os.path.join(os.path.dirname(llama().__file__), "lib")
    base = ctypes.CDLL(os.path.join(folder, "libggml-base.so"))
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    base.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    return base


def source_values(path):
    """name -> float32 values of a safetensors file, or of a GGUF file of floats."""
    with open(path, "rb") as f:
        data = f.read()
    out = {}
    if data[:4] == b"GGUF":
        info = run("info", path)
        at = len(data) - sum(-(-t["bytes"] // 32) * 32 for t in info["tensors"])
        for t in info["tensors"]:
            raw = data[at : at + t["bytes"]]
            at += -(-t["bytes"] // 32) * 32
            if t["type"] in ("F16", "F32"):
                out[t["name"]] = np.frombuffer(raw, np.float16 if t["type"] == "F16" else np.float32).astype(np.float32)
        return out
    (n,) = struct.unpack("<Q", data[:8])
    for name, t in json.loads(data[8 : 8 + n]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            out[name] = np.frombuffer(data[8 + n + begin : 8 + n + end], np.float32)
    return out


ALL = dict(TYPES, Q4_0=2, Q4_1=3, Q5_0=6, Q5_1=7, IQ4_NL=20, IQ4_XS=23)


def replace_blocks(source, written, out, imatrix=None):
    """The file with every block type's data as ggml_quantize_chunk writes it."""
    base, values = ggml(), source_values(source)
    info = run("info", written)
    data = bytearray(open(written, "rb").read())
    at = len(data) - sum(-(-t["bytes"] // 32) * 32 for t in info["tensors"])
    for t in info["tensors"]:
        kind = ALL.get(t["type"])
        if kind is not None:
            k = t["shape"][-1]
            x = np.ascontiguousarray(values[t["name"]]).reshape(-1, k)
            blocks = np.zeros(t["bytes"], np.uint8)
            weights = imatrix.get(t["name"]) if imatrix else None
            if weights is not None and len(weights) == k:
                weights = np.ascontiguousarray(weights, np.float32).ctypes.data
            else:
                weights = None
            done = base.ggml_quantize_chunk(kind, x.ctypes.data, blocks.ctypes.data, 0, len(x), k, weights)
            assert done == t["bytes"], (t, done)
            data[at : at + t["bytes"]] = blocks.tobytes()
        at += -(-t["bytes"] // 32) * 32
    open(out, "wb").write(data)


# ---- encoders alone ----

def encoder_table(folder):
    """Signal to noise ratio of 2^19 weights in each type, in dB: normal ones, and with heavy tails (the same times their size)."""
    import gguf

    normal = np.random.default_rng(7).standard_normal(1 << 19).astype(np.float32)
    source, out = os.path.join(folder, "noise.gguf"), os.path.join(folder, "out.gguf")
    columns = []
    for x in (normal, normal * np.abs(normal)):
        writer = gguf.GGUFWriter(source, "llama")
        writer.add_tensor("blk.0.ffn_up.weight", x.reshape(-1, 256))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        sqnr = lambda kind, *more: run("quantize", source, out, "--type", kind, *more)["perTensor"][0]["sqnrDb"]
        columns.append({kind: (sqnr(kind, "--nearest"), theirs(x, kind), sqnr(kind)) for kind in ENCODERS})
    print("| type | bits | rounding | llama.cpp | ours | rounding, tails | llama.cpp, tails | ours, tails |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for kind in ENCODERS:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        found = " | ".join(f"{db:.2f}" for column in columns for db in column[kind])
        print(f"| {kind} | {size * 8 / block:.4g} | {found} |")


ENCODERS = ["Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4", "Q3_K", "Q2_K", "TQ2_0"]


def theirs(x, kind):
    """Of llama.cpp's blocks, decoded by gguf-py."""
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    blocks = np.zeros((len(x) // 256, 256 // block * size), np.uint8)
    ggml().ggml_quantize_chunk(int(number), x.ctypes.data, blocks.ctypes.data, 0, len(x) // 256, 256, None)
    off = x - gguf.quants.dequantize(blocks, number).reshape(-1)
    return 10 * math.log10(float((x.astype(np.float64) ** 2).sum() / (off.astype(np.float64) ** 2).sum()))


# ---- photos ----

def logits(model, files):
    out = []
    for i in range(0, len(files), 100):
        for result in run("classify", model, *files[i : i + 100], "--top-k", 1000)["results"]:
            row = np.zeros(len(result["top"]))
            for entry in result["top"]:
                row[entry["index"]] = entry["logit"]
            out.append(row)
    return np.array(out)


def photo_tables(folder):
    name = lambda n: os.path.join(folder, n)
    files = sorted(os.path.join(OPTIONS.data, f) for f in os.listdir(OPTIONS.data))[: OPTIONS.images]
    reference = logits(OPTIONS.model, files)
    ln = lambda x: x - x.max(1, keepdims=True) - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True))
    p = ln(reference)
    print(f"{len(files)} photos\n\n| type | bytes | quantizer | KL | same top-1 |\n|---|--:|---|--:|--:|")

    def row(label, how, path):
        got = logits(path, files)
        each = (np.exp(p) * (p - ln(got))).sum(1)
        kl = each.mean()
        same = (got.argmax(1) == reference.argmax(1)).mean()
        error = each.std(ddof=1) / math.sqrt(len(each))
        print(f"| {label} | {os.path.getsize(path)} | {how} | {kl:.5f} +- {error:.5f} | {same * 100:.1f} % |", flush=True)

    # Without files: on the pictures that the quantizer draws.
    calibrate = ["--calibrate"] + ([OPTIONS.calibration] if OPTIONS.calibration else []) + ["--gptq"]
    for label in OPTIONS.types.split(",") if OPTIONS.types else TYPES:
        ours, theirs = name("ours.gguf"), name("theirs.gguf")
        run("quantize", OPTIONS.model, ours, "--type", label, "--nearest")
        size = os.path.getsize(ours)
        row(label, "rounding", ours)
        run("quantize", OPTIONS.model, ours, "--type", label)
        replace_blocks(OPTIONS.model, ours, theirs)
        row(label, "llama.cpp", theirs)
        row(label, "ours, one type", ours)
        for how, extra in [("ours, mixed", []), ("ours, mixed, calibrated, GPTQ", calibrate)]:
            run("quantize", OPTIONS.model, ours, "--target-bytes", size, *extra)
            row(label, how, ours)


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["text", "photos", "encoders"])
    parser.add_argument("model", nargs="?")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--also", action="append", default=[], help="another model, in the same run")
    parser.add_argument("--calibration")
    parser.add_argument("--data-free", action="store_true", help="of ours only what needs no data: quick")
    parser.add_argument("--lines", action="store_true", help="of a list of texts keep the line breaks, one at a time, as training/ has them")
    parser.add_argument("--chars", type=int, default=12000)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--types", help="of the rows, separated by commas")
    parser.add_argument("--bitpane", default="target/release/bitpane")
    OPTIONS = parser.parse_args()
    if OPTIONS.what != "encoders" and OPTIONS.data is None:
        parser.error("a model and data are needed")
    with tempfile.TemporaryDirectory() as folder:
        table = {"text": text_tables, "photos": photo_tables, "encoders": encoder_table}[OPTIONS.what]
        for model in [OPTIONS.model, *OPTIONS.also]:
            OPTIONS.model = model
            table(folder)


main()
