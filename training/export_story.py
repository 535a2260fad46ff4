"""Writes a story model as GGUF, and measures and records what a file computes.

    python export_story.py write --checkpoint work/story.ckpt.npz --out masters/story.F16.gguf
    python export_story.py write --checkpoint work/ternary.ckpt.npz --ternary --name "bitpane ternary story" --out ../www/models/story-ternary.gguf
    python export_story.py measure --file ../www/models/story.gguf --master masters/story.F16.gguf --entry story

`write` keeps matrices in F16, or with `--ternary` in TQ2_0 with the embedding in Q8_0. The shipped file is made from the
master by `bitpane quantize`.
"""

import argparse
import dataclasses
import json
import os

import gguf
import jax
import numpy as np
import sentencepiece as spm

import export
import llama
import optim
import ternary
import train_story
from prepare_stories import BOS, EOS

DESCRIPTION = "Writes short children's stories. Trained from random weights on TinyStories by bitpane's training scripts."
TEXT_LICENCE = "CDLA-Sharing-1.0"
PROMPT = "Once upon a time, there was a little girl named Lily."
GREEDY = 32


def add_tokenizer(writer, tokenizer):
    size = tokenizer.get_piece_size()
    kinds = []
    for i in range(size):
        if tokenizer.is_unknown(i):
            kinds.append(gguf.TokenType.UNKNOWN)
        elif tokenizer.is_control(i):
            kinds.append(gguf.TokenType.CONTROL)
        else:
            kinds.append(gguf.TokenType.BYTE if tokenizer.is_byte(i) else gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.id_to_piece(i) for i in range(size)])
    writer.add_token_scores([float(tokenizer.get_score(i)) for i in range(size)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)


def write_gguf(path, name, cfg, params, tokenizer, kind_of, file_type):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_license(TEXT_LICENCE)
    writer.add_description(DESCRIPTION)
    writer.add_context_length(cfg.context)
    writer.add_embedding_length(cfg.width)
    writer.add_block_count(cfg.layers)
    writer.add_feed_forward_length(cfg.ffn)
    writer.add_head_count(cfg.heads)
    writer.add_head_count_kv(cfg.kv_heads)
    writer.add_layer_norm_rms_eps(cfg.eps)
    writer.add_rope_dimension_count(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_base)
    writer.add_vocab_size(cfg.vocab)
    writer.add_file_type(file_type)
    add_tokenizer(writer, tokenizer)
    export.add_tensors(writer, params, kind_of)
    export.finish(writer)


def greedy(cfg, params, ids):
    """The largest-logit continuation, the logits after the prompt, and the smallest lead of any choice."""
    ids, leads, first = list(ids), [], None
    forward = jax.jit(lambda tokens: llama.forward(cfg, params, tokens))
    padded = np.full((1, len(ids) + GREEDY), EOS, np.int32)
    for _ in range(GREEDY):
        padded[0, : len(ids)] = ids
        logits = np.asarray(forward(padded))[0, len(ids) - 1]
        first = logits if first is None else first
        second, best = np.sort(logits)[-2:]
        leads.append(float(best - second))
        ids.append(int(np.argmax(logits)))
    return ids[-GREEDY:], first, min(leads)


def write(args, tokenizer):
    cfg, params, _ = train_story.load_model(args.checkpoint)
    if not args.ternary:
        kind = lambda name: None if "norm" in name else export.F16
        return write_gguf(args.out, args.name, cfg, params, tokenizer, kind, gguf.LlamaFileType.MOSTLY_F16)
    # A checkpoint may have been kept in its rounded form; rounding that again would change the scales.
    if not all(len(np.unique(np.abs(w))) <= 2 for name, w in params.items() if train_story.is_matrix(name)):
        params = {k: np.asarray(v) for k, v in ternary.round_all(params, train_story.is_matrix).items()}
    matrix = lambda name: export.TQ2_0 if train_story.is_matrix(name) else export.Q8_0
    kind = lambda name: None if "norm" in name else matrix(name)
    write_gguf(args.out, args.name, cfg, params, tokenizer, kind, gguf.LlamaFileType.MOSTLY_TQ2_0)


def measure(args, tokenizer):
    """Held-out loss of a file and of its master, and what the tests compare with."""
    held = json.load(open(f"{args.work}/story_held_out.json"))
    cfg, shipped, _ = llama.load_gguf(args.file)
    total, count = train_story.held_out_loss(cfg, shipped, held, tokenizer)
    quality = {
        "held_out_nats_per_token": round(total / count, 5),
        "held_out_bits_per_character": round(total / sum(map(len, held)) / np.log(2), 5),
    }
    if args.master:
        exact, _ = train_story.held_out_loss(cfg, llama.load_gguf(args.master)[1], held, tokenizer)
        quality["held_out_nats_per_token_before_quantization"] = round(exact / count, 5)
    prompt = [BOS, *tokenizer.encode(PROMPT)]
    ids, logits, lead = greedy(cfg, shipped, prompt)
    export.record(args.expected, args.entry, {
        "file": os.path.basename(args.file), "sha256": export.sha256(args.file), "bytes": os.path.getsize(args.file),
        "parameters": int(sum(v.size for v in shipped.values())), "config": dataclasses.asdict(cfg), "quality": quality,
        "prompt": PROMPT, "prompt_ids": prompt, "greedy_ids": ids, "greedy_text": tokenizer.decode(ids),
        "smallest_lead": round(lead, 6), "prompt_logits_first_16": export.rounded(logits[:16]),
        "prompt_logits_largest": float(logits.max()),
    })
    print(json.dumps(quality), f"{os.path.getsize(args.file)} bytes")
    print(PROMPT + " " + tokenizer.decode(ids))


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--work", default="work")
    commands = args.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--checkpoint", required=True)
    writing.add_argument("--out", required=True)
    writing.add_argument("--name", default="bitpane story")
    writing.add_argument("--ternary", action="store_true")
    measuring = commands.add_parser("measure")
    measuring.add_argument("--file", required=True)
    measuring.add_argument("--master")
    measuring.add_argument("--entry", required=True, help="name in the file of expected results")
    measuring.add_argument("--expected", default="../tests/data/default_models.json")
    args = args.parse_args()
    tokenizer = spm.SentencePieceProcessor(model_file=f"{args.work}/story.spm")
    {"write": write, "measure": measure}[args.command](args, tokenizer)


if __name__ == "__main__":
    main()
