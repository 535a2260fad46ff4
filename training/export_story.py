"""Writes the story model as GGUF (an F16 master and the shipped Q8_0), measures it, and records expected results.

    python export_story.py --checkpoint work/story.ckpt.npz --out ../www/models/story.gguf
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


def write(path, cfg, params, tokenizer, kind, file_type):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("bitpane story")
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
    export.add_tensors(writer, params, lambda name: None if "norm" in name else kind)
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


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--checkpoint", required=True)
    args.add_argument("--out", required=True)
    args.add_argument("--work", default="work")
    args.add_argument("--context", type=int, default=256)
    args.add_argument("--layers", type=int, default=3)
    args.add_argument("--ffn", type=int, default=512)
    args.add_argument("--expected", default="../tests/data/default_models.json")
    args = args.parse_args()

    cfg = train_story.config(args)
    params, state = optim.load(args.checkpoint)
    tokenizer = spm.SentencePieceProcessor(model_file=f"{args.work}/story.spm")
    held = json.load(open(f"{args.work}/story_held_out.json"))
    write(f"{args.work}/story.F16.gguf", cfg, params, tokenizer, export.F16, gguf.LlamaFileType.MOSTLY_F16)
    write(args.out, cfg, params, tokenizer, export.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0)

    shipped = export.read_back(args.out)
    total, count = train_story.held_out_loss(cfg, shipped, held, tokenizer)
    exact, _ = train_story.held_out_loss(cfg, params, held, tokenizer)
    prompt = [BOS, *tokenizer.encode(PROMPT)]
    ids, logits, lead = greedy(cfg, shipped, prompt)
    quality = {
        "held_out_nats_per_token": round(total / count, 5),
        "held_out_nats_per_token_before_quantization": round(exact / count, 5),
        "held_out_bits_per_character": round(total / sum(map(len, held)) / np.log(2), 5),
    }
    export.record(args.expected, "story", {
        "file": os.path.basename(args.out), "sha256": export.sha256(args.out), "bytes": os.path.getsize(args.out),
        "training_steps": int(state["step"]), "parameters": int(sum(v.size for v in params.values())),
        "config": dataclasses.asdict(cfg), "quality": quality, "prompt": PROMPT, "prompt_ids": prompt,
        "greedy_ids": ids, "greedy_text": tokenizer.decode(ids), "smallest_lead": round(lead, 6),
        "prompt_logits_first_16": export.rounded(logits[:16]), "prompt_logits_largest": float(logits.max()),
    })
    print(json.dumps(quality), f"{os.path.getsize(args.out)} bytes")
    print(PROMPT + tokenizer.decode(ids))


if __name__ == "__main__":
    main()
