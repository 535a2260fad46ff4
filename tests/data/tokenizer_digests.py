"""Digests of what Hugging Face's tokenizers give for the strings of ../shared/golden/tokenizer.

    pip install tokenizers==0.23.3
    python tests/data/tokenizer_digests.py

prints the rows of DIGESTS in tests/tokenizer/json.rs: number of ids and FNV-1a over them, as
little-endian 32-bit integers, special tokens not added but recognized in the text.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
FILES = [
    "smollm2/SmolLM2-135M-Instruct-Tokenizer.json",
    "minimind/tokenizer.json",
    "gpt2_rten/reftests/models/gpt2/tokenizer.json",
]

strings = json.loads((SHARED / "golden/tokenizer/strings.json").read_text())["strings"]
for name in FILES:
    tokenizer = Tokenizer.from_file(str(SHARED / "data/tokenizers" / name))
    count, digest = 0, 0xCBF29CE484222325
    for string in strings:
        for token in tokenizer.encode(string, add_special_tokens=False).ids:
            count += 1
            for byte in token.to_bytes(4, "little"):
                digest = (digest ^ byte) * 0x100000001B3 % 2**64
    print(f'("{name}", {count}, {digest:#x}),')
