"""What both exporters share: writing tensors to GGUF, reading them back as float32, and the file of expected results."""

import hashlib
import json
import os

import gguf
import numpy as np

Q8_0 = gguf.GGMLQuantizationType.Q8_0
F16 = gguf.GGMLQuantizationType.F16
TQ2_0 = gguf.GGMLQuantizationType.TQ2_0
BLOCK = 32


def add_tensors(writer, params, wanted):
    """Adds every tensor in the type `wanted(name)` names, or in F32 where it names none.

    Q8_0 needs rows of whole blocks, so a matrix with other rows is written in F16.
    """
    for name, value in params.items():
        value = np.ascontiguousarray(value, np.float32)
        kind = wanted(name)
        if kind == Q8_0 and value.shape[-1] % BLOCK:
            kind = F16
        if kind is None:
            writer.add_tensor(name, value)
        elif kind == F16:
            writer.add_tensor(name, value.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_back(path):
    """The tensors of a file as float32, as a reader of the file sees them."""
    reader = gguf.GGUFReader(path)
    values = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    shapes = {t.name: tuple(int(n) for n in t.shape[::-1]) for t in reader.tensors}
    # Tensors that are stored with longer rows, so that blocks fit.
    for entry in reader.fields["bitpane.shapes"].contents() if "bitpane.shapes" in reader.fields else []:
        name, shape = entry.split("=")
        shapes[name] = tuple(int(n) for n in shape.split(","))
    return {k: np.array(v, np.float32).reshape(shapes[k]) for k, v in values.items()}


def record(path, model, entry):
    """Replaces the entry of one model in the file of expected results."""
    known = json.load(open(path)) if os.path.exists(path) else {}
    known[model] = entry
    with open(path, "w") as out:
        json.dump(known, out, indent=1)
        out.write("\n")


def sha256(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def rounded(values, digits=6):
    """Floats with this many significant digits, for JSON."""
    return [float(f"{v:.{digits}g}") for v in np.asarray(values, np.float64).ravel()]
