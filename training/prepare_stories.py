"""Collects TinyStories texts, trains the tokenizer, and writes the token streams for training and validation.

    python prepare_stories.py --held-out tinystories_1000.json --bin val.bin test.bin --gpt2 ggml-vocab-gpt-2.gguf

`--held-out` is a JSON list of stories of which the last 50 are kept for the final measurement, the 100 before them for choices
on the way, and the others trained on. `--bin`
files are GPT-2 tokens (uint16, 50256 between stories), the form in which many training repositories keep TinyStories;
`--gpt2` is any GGUF with the GPT-2 vocabulary to read them with. `--text` files have `<|endoftext|>` between stories.
"""

import argparse
import io
import json
import os
import re

import gguf
import numpy as np
import sentencepiece as spm

BOS, EOS = 1, 2
GPT2_END = 50256
HELD_OUT = 50
CHOICES = 100


def tidy(text):
    """One line per paragraph and plain quotes; None where something other than ASCII or too little is left."""
    text = re.sub(r"\s*\n\s*", "\n", text.strip())
    text = re.sub(r" +", " ", text)
    for fancy, plain in (("\u201c", '"'), ("\u201d", '"'), ("\u2019", "'"), ("\u2018", "'"), ("\u2013", "-"), ("\u2014", "-")):
        text = text.replace(fancy, plain)
    return text if text.isascii() and len(text) >= 100 else None


def gpt2_bytes(vocab_path):
    """Token id -> bytes for GPT-2, whose vocabulary writes each byte as one printable character."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    byte_of = {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
    tokens = gguf.GGUFReader(vocab_path).fields["tokenizer.ggml.tokens"].contents()
    return [bytes(byte_of[c] for c in t) if all(c in byte_of for c in t) else b"" for t in tokens]


def stories_of_bin(path, pieces):
    ids = np.fromfile(path, np.uint16)
    for part in np.split(ids, np.flatnonzero(ids == GPT2_END)):
        yield b"".join(pieces[i] for i in part if i != GPT2_END).decode("utf-8", "replace")


def collect(args):
    """Stories to train on, to choose by, and held out, all tidied and without repetition."""
    listed = json.load(open(args.held_out))
    held = [t for t in map(tidy, listed[-HELD_OUT:]) if t]
    choices = [t for t in map(tidy, listed[-HELD_OUT - CHOICES : -HELD_OUT]) if t]
    found = list(listed[: -HELD_OUT - CHOICES])
    pieces = gpt2_bytes(args.gpt2) if args.bin else None
    for path in args.bin:
        found += stories_of_bin(path, pieces)
    for path in args.text:
        found += open(path, encoding="utf-8", errors="replace").read().split("<|endoftext|>")
    tidied = dict.fromkeys(t for t in map(tidy, found) if t)
    kept_apart = {*held, *choices}
    return [t for t in tidied if t not in kept_apart], choices, held


def train_tokenizer(stories, path, size):
    model = io.BytesIO()
    lines = (line for story in stories for line in story.split("\n"))
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=size, model_type="bpe", byte_fallback=True,
        character_coverage=1.0, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, unk_id=0, bos_id=BOS, eos_id=EOS, pad_id=-1, num_threads=1, minloglevel=1,
    )
    open(path, "wb").write(model.getvalue())
    return spm.SentencePieceProcessor(model_file=path)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--held-out", required=True)
    args.add_argument("--bin", nargs="*", default=[])
    args.add_argument("--text", nargs="*", default=[])
    args.add_argument("--gpt2")
    args.add_argument("--work", default="work")
    args.add_argument("--vocab", type=int, default=1024)
    args = args.parse_args()

    os.makedirs(args.work, exist_ok=True)
    stories, choices, held = collect(args)
    tokenizer = train_tokenizer(stories, f"{args.work}/story.spm", args.vocab)
    encode = lambda texts: [i for t in texts for i in [BOS, *tokenizer.encode(t), EOS]]
    stream = np.array(encode(stories), np.uint16)
    np.save(f"{args.work}/story_train.npy", stream)
    json.dump(choices, open(f"{args.work}/story_choices.json", "w"))
    json.dump(held, open(f"{args.work}/story_held_out.json", "w"))
    characters = sum(map(len, stories))
    print(f"{len(stories)} stories, {characters} characters, {len(stream)} tokens, {characters / len(stream):.2f} characters a token")
    print(f"{len(held)} held-out stories, {sum(map(len, held))} characters, {len(encode(held))} tokens")


if __name__ == "__main__":
    main()
