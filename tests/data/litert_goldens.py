"""Writes litert_goldens.json: what LiteRT computes for the quantized CNNs on the sample photos.

Run from the repository root: python3 tests/data/litert_goldens.py [SHARED_DATA_FOLDER]
Needs ai-edge-litert, NumPy and Pillow before 13. Photos are brought to size as `tests/image.rs` checks it: the
short side to crop / 0.875, bilinear, then the centre. Of the photos only numbers are written: a hash of the
input, and the five largest of the 8-bit outputs (after the softmax).
"""

import json
import pathlib
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from image_goldens import fnv1a64, resize_crop
from PIL import Image

MODELS = ["mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq", "mobilenet_v1_0.25_128_quant"]


def main():
    data = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    rows = []
    for model in MODELS:
        interpreter = Interpreter(str(data / "cnn" / f"{model}.tflite"), num_threads=1)
        interpreter.allocate_tensors()
        source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        crop = int(source["shape"][1])
        for path in sorted([*(data / "images").glob("*.bmp"), *(data / "images").glob("*.jpg")]):
            image = Image.open(path).convert("RGB")
            rgb = resize_crop(image, int(crop / 0.875), crop, "short", Image.BILINEAR)
            interpreter.set_tensor(source["index"], rgb[None])
            interpreter.invoke()
            out = interpreter.get_tensor(result["index"])[0].astype(int)
            top = np.argsort(-out, kind="stable")[:5]
            rows.append(
                dict(model=model, file=path.name, input=fnv1a64(rgb.tobytes()), top=[[int(i), int(out[i])] for i in top])
            )
    text = "[\n " + ",\n ".join(json.dumps(row) for row in rows) + "\n]\n"
    pathlib.Path(__file__).with_name("litert_goldens.json").write_text(text)


main()
