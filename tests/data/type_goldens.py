"""Writes FOLDER/llama-TYPE.gguf and .json for every tensor type: the model of ../shared/golden/quant in that type,
llama.cpp's logits for it, and its logits for the same values in F32. `TYPE_GOLDENS=FOLDER cargo test --test formats
integer_logits` then holds ours to them. The files are large, so they are made anew, not kept.

Needs: pip install llama-cpp-python numpy, and a gguf-py as new as its llama.cpp (for Q2_0 newer than 0.19)
Usage: python type_goldens.py ../shared/golden/quant/llama-F32.gguf FOLDER [TYPE ...]
"""

import ctypes
import json
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

TYPES = (
    "BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S "
    "IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0"
).split()


class Traits(ctypes.Structure):
    """ggml_type_traits."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("block_len", ctypes.c_int64),
        ("interleave", ctypes.c_int64),
        ("block_bytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    ]


def ggml():
    folder = Path(llama_cpp.__file__).parent / "lib"
    lib = ctypes.CDLL(str(folder / "libggml-base.so"))
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    lib.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    lib.ggml_row_size.restype = ctypes.c_size_t
    lib.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    return lib


def quantized(lib, dtype, w):
    """Blocks of a matrix, and the values that they hold. Types that want an importance matrix get an even one."""
    w = np.ascontiguousarray(w, np.float32)
    n, k = w.shape
    blocks = np.zeros((n, lib.ggml_row_size(dtype, k)), np.uint8)
    lib.ggml_quantize_init(dtype)
    even = np.ones(k, np.float32)
    assert lib.ggml_quantize_chunk(dtype, w.ctypes.data, blocks.ctypes.data, 0, n, k, even.ctypes.data) == blocks.nbytes
    values = np.zeros((n, k), np.float32)
    lib.ggml_get_type_traits(dtype).contents.to_float(blocks.ctypes.data, values.ctypes.data, n * k)
    return blocks, values


def logits_of(path, ids):
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = 0
    params.flash_attn_type = 0
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert llama_cpp.llama_decode(context, batch) == 0
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(ids), n_vocab)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return rows


def write(path, source, tensors):
    writer = gguf.GGUFWriter(path, "llama")
    for field in source.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=field.types[-1] if is_array else None)
    for name, (data, dtype) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def golden(lib, source, ids, name, folder):
    dtype = gguf.GGMLQuantizationType[name]
    coded, exact = {}, {}
    for tensor in source.tensors:
        data = np.array(tensor.data)
        coded[tensor.name] = exact[tensor.name] = (data, None)
        if data.ndim == 2:
            if name.startswith("TQ"):
                step = np.abs(data).mean()
                data = np.clip(np.rint(data / step), -1, 1) * step
            blocks, values = quantized(lib, dtype, data)
            coded[tensor.name], exact[tensor.name] = (blocks, dtype), (values, None)
    path, scratch = folder / f"llama-{name}.gguf", folder / "exact.tmp"
    write(path, source, coded)
    write(scratch, source, exact)
    theirs, want = logits_of(path, ids), logits_of(scratch, ids)
    scratch.unlink()
    document = {"token_ids": ids, "positions": list(range(len(ids))), "logits_f32": want.tolist(), "logits_llamacpp": theirs.tolist()}
    path.with_suffix(".json").write_text(json.dumps(document))
    print(f"{name}: {path.stat().st_size} bytes, RMS error {np.sqrt(((theirs - want) ** 2).mean()):.3e}")


if __name__ == "__main__":
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    token_ids = json.loads(model.with_suffix(".json").read_text())["token_ids"]
    for type_name in sys.argv[3:] or TYPES:
        golden(ggml(), gguf.GGUFReader(model), token_ids, type_name, folder)
