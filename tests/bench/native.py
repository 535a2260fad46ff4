"""Native yardsticks on one line protocol: llama.cpp (llama-cpp-python) and onnxruntime.

Usage: python native.py llama|onnx MODEL THREADS
Each line on stdin is a JSON task, each line on stdout its JSON result, the first line of
stdout says {"version": ...} once the model is loaded.
"""

import json
import sys
import time


def say(result):
    print(json.dumps(result), flush=True)


def load_llama(path, threads):
    import llama_cpp
    import numpy as np

    model = llama_cpp.Llama(path, n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False)
    n_vocab = model.n_vocab()

    def forward(tokens):
        # The library's lowest level: its own sampler would add work that the peers do not do.
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)  # the batch borrows it
        if llama_cpp.llama_decode(model.ctx, llama_cpp.llama_batch_get_one(ids, len(tokens))) != 0:
            raise RuntimeError("llama_decode failed")
        logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        return int(np.argmax(np.ctypeslib.as_array(logits, shape=(n_vocab,))))

    def measure(task):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(model.ctx), True)
        start = time.perf_counter()
        token = forward(task["prompt"]["ids"])
        prompt_s = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(task["decodeLen"]):
            token = forward([token])
        decode_s = time.perf_counter() - start
        return {"promptTps": task["promptLen"] / prompt_s, "decodeTps": task["decodeLen"] / decode_s}

    return llama_cpp.__version__, measure


def load_onnx(path, threads):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options)

    def measure(_task):
        pixels = np.random.rand(1, 3, 224, 224).astype(np.float32)
        start = time.perf_counter()
        session.run(None, {"pixels": pixels})
        return {"imageMs": (time.perf_counter() - start) * 1000}

    return onnxruntime.__version__, measure


def main():
    kind, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    version, measure = {"llama": load_llama, "onnx": load_onnx}[kind](path, threads)
    say({"version": version, "threads": threads})
    for line in sys.stdin:
        say(measure(json.loads(line)))


main()
