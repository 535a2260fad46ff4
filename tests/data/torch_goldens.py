"""Writes torch/*.pth: small checkpoints as PyTorch saves them, and one that would run a command.

Run from the repository root: python3 tests/data/torch_goldens.py
Needs torch. `tests/convert.rs` knows the values: element i of a tensor is i - 3, laid out as the shape says.
"""

import collections
import os
import pathlib

import torch


def numbers(*shape, dtype=torch.float32):
    n = 1
    for dim in shape:
        n *= dim
    return (torch.arange(n) - 3).to(dtype).reshape(shape)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/bitpane_was_here",)


def main():
    out = pathlib.Path(__file__).with_name("torch")
    out.mkdir(exist_ok=True)
    both = numbers(2, 6)
    state = collections.OrderedDict(
        [
            ("f32", numbers(2, 3)),
            ("f16", numbers(5, dtype=torch.float16)),
            ("bf16", numbers(4, dtype=torch.bfloat16)),
            ("i8", numbers(7, dtype=torch.int8)),
            ("transposed", numbers(3, 4).t()),
            ("slice", numbers(4, 5)[1:3, ::2]),
            ("shared.a", both),
            ("shared.b", both[1]),
            ("scalar", torch.tensor(-3.0)),
            ("bn.num_batches_tracked", torch.tensor(7)),
        ]
    )
    state._metadata = collections.OrderedDict(version=1)
    torch.save({"model": state, "epoch": 3, "best": 0.5, "name": "x"}, out / "zip.pth")
    torch.save({"state_dict": state}, out / "legacy.pth", _use_new_zipfile_serialization=False)
    parameter = torch.nn.Linear(3, 2)
    with torch.no_grad():
        parameter.weight.copy_(numbers(2, 3))
        parameter.bias.copy_(numbers(2))
    torch.save(dict(parameter.named_parameters()), out / "parameters.pth")
    torch.save({"model": state, "args": Hostile()}, out / "hostile.pth")


main()
