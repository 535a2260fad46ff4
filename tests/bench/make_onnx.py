"""Writes a ViT with seeded random weights as ONNX for onnxruntime-web: fp32, int8 (dynamic), 4-bit.

Usage: python make_onnx.py SHAPE OUT_DIR      (needs requirements.txt; run.mjs calls this)
Writes SHAPE-fp32.onnx, SHAPE-int8.onnx and SHAPE-q4.onnx. The shapes are those of
examples/random_model.rs; the speed of a dense network does not depend on its weights.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

# name: (n_embd, n_layer, n_head); 16x16 patches of 224x224 pixels, 1000 classes
SHAPES = {"deit-tiny": (192, 12, 3), "vit-base-16": (768, 12, 12)}
IMAGE_SIZE, PATCH_SIZE, N_CLASS, EPSILON = 224, 16, 1000, 1e-6
N_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2 + 1


class Graph:
    """Nodes and initializers under construction; every method returns an output's name."""

    def __init__(self):
        self.nodes, self.initializers = [], []
        self.rng = np.random.default_rng(1)

    def constant(self, values):
        name = f"const_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def random(self, *shape):
        return self.constant(self.rng.normal(0, 0.02, shape).astype(np.float32))

    def op(self, kind, *inputs, n_out=1, **attributes):
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(n_out)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if n_out == 1 else names

    def linear(self, x, n_in, n_out):
        return self.op("Add", self.op("MatMul", x, self.random(n_in, n_out)), self.random(n_out))

    def norm(self, x, n):
        ones, zeros = np.ones(n, np.float32), np.zeros(n, np.float32)
        return self.op("LayerNormalization", x, self.constant(ones), self.constant(zeros), epsilon=EPSILON)


def attention(g, x, n_embd, n_head):
    head_dim = n_embd // n_head
    qkv = g.op("Reshape", g.linear(x, n_embd, 3 * n_embd), g.constant(np.int64([1, N_TOKENS, 3, n_head, head_dim])))
    qkv = g.op("Split", g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4]), n_out=3, axis=0, num_outputs=3)
    q, k, v = (g.op("Squeeze", t, g.constant(np.int64([0]))) for t in qkv)
    q = g.op("Mul", q, g.constant(np.float32(head_dim**-0.5)))
    weights = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    heads = g.op("Transpose", g.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    return g.linear(g.op("Reshape", heads, g.constant(np.int64([1, N_TOKENS, n_embd]))), n_embd, n_embd)


def vit(n_embd, n_layer, n_head):
    g = Graph()
    x = g.op("Conv", "pixels", g.random(n_embd, 3, PATCH_SIZE, PATCH_SIZE), g.random(n_embd), strides=[PATCH_SIZE] * 2)
    x = g.op("Reshape", x, g.constant(np.int64([1, n_embd, N_TOKENS - 1])))
    x = g.op("Concat", g.random(1, 1, n_embd), g.op("Transpose", x, perm=[0, 2, 1]), axis=1)
    x = g.op("Add", x, g.random(1, N_TOKENS, n_embd))
    for _ in range(n_layer):
        x = g.op("Add", x, attention(g, g.norm(x, n_embd), n_embd, n_head))
        hidden = g.op("Gelu", g.linear(g.norm(x, n_embd), n_embd, 4 * n_embd))
        x = g.op("Add", x, g.linear(hidden, 4 * n_embd, n_embd))
    cls = g.op("Gather", g.norm(x, n_embd), g.constant(np.int64(0)), axis=1)
    g.nodes.append(helper.make_node("Identity", [g.linear(cls, n_embd, N_CLASS)], ["logits"]))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, IMAGE_SIZE, IMAGE_SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, N_CLASS])
    graph = helper.make_graph(g.nodes, "vit", [pixels], [logits], g.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def main():
    shape, out_dir = sys.argv[1], pathlib.Path(sys.argv[2])
    fp32 = out_dir / f"{shape}-fp32.onnx"
    onnx.save(vit(*SHAPES[shape]), fp32)
    # Only the matrix products: an integer convolution has no fast path in the wasm build.
    quantize_dynamic(fp32, out_dir / f"{shape}-int8.onnx", op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    quantizer = MatMulNBitsQuantizer(onnx.load(fp32), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out_dir / f"{shape}-q4.onnx"))


main()
