//! Names of tensors, by architecture.

use super::super::Transform;
use super::hparams::Hparams;
use crate::error::{Code, Error, Result};

/// An architecture under both names.
pub struct Arch {
    /// Hugging Face's `model_type`s.
    pub model_types: &'static [&'static str],
    /// GGUF's `general.architecture`.
    pub gguf: &'static str,
    /// What stands before all names, if anything does.
    prefixes: &'static [&'static str],
    /// How names of layers begin.
    layers: &'static str,
    /// Names outside of the layers.
    outer: &'static [(&'static str, &'static str)],
    /// Names within a layer.
    inner: &'static [(&'static str, &'static str)],
    /// Names that are no weights.
    ignored: &'static [&'static str],
    /// Whether the rows of q and k are put in GGUF's order.
    pub interleaves: bool,
    /// Whether norms are stored as their distance from 1.
    adds_one: bool,
    /// Whether matrices are stored as `[in, out]`.
    transposes: bool,
    /// Whether q, k and v stand together head by head.
    splits_heads: bool,
}

const PLAIN: Arch = Arch {
    model_types: &[],
    gguf: "",
    prefixes: &["model.", "language_model.model.", "model.language_model.", "language_model."],
    layers: "layers.",
    outer: OUTER,
    inner: LLAMA,
    ignored: &["rotary_emb.inv_freq"],
    interleaves: false,
    adds_one: false,
    transposes: false,
    splits_heads: false,
};

const OUTER: &[(&str, &str)] =
    &[("embed_tokens", "token_embd"), ("norm", "output_norm"), ("lm_head", "output")];

const LLAMA: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];

/// Norms after attention and feed-forward layers: Gemma 2 and 3 (with one before each too), OLMo 2.
const SANDWICH: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

const GPT2: &[(&str, &str)] = &[
    ("ln_1", "attn_norm"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("ln_2", "ffn_norm"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];

const GPTNEOX: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("attention.query_key_value", "attn_qkv"),
    ("attention.dense", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.dense_4h_to_h", "ffn_down"),
];

const BERT: &[(&str, &str)] = &[
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

#[rustfmt::skip] // one row each
pub const ARCHS: &[Arch] = &[
    Arch { model_types: &["llama", "mistral"], gguf: "llama", interleaves: true, ..PLAIN },
    Arch { model_types: &["smollm3"], gguf: "smollm3", interleaves: true, ..PLAIN },
    Arch { model_types: &["granite"], gguf: "granite", interleaves: true, ..PLAIN },
    Arch { model_types: &["qwen2"], gguf: "qwen2", ..PLAIN },
    Arch { model_types: &["qwen3"], gguf: "qwen3", ..PLAIN },
    Arch { model_types: &["phi3"], gguf: "phi3", ..PLAIN },
    Arch { model_types: &["stablelm"], gguf: "stablelm", ..PLAIN },
    Arch { model_types: &["starcoder2"], gguf: "starcoder2", ..PLAIN },
    Arch { model_types: &["olmo2"], gguf: "olmo2", inner: SANDWICH, ..PLAIN },
    Arch { model_types: &["gemma"], gguf: "gemma", adds_one: true, ..PLAIN },
    Arch { model_types: &["gemma2"], gguf: "gemma2", inner: SANDWICH, adds_one: true, ..PLAIN },
    Arch { model_types: &["gemma3_text", "gemma3"], gguf: "gemma3", inner: SANDWICH, adds_one: true, ..PLAIN },
    Arch {
        model_types: &["gpt2"], gguf: "gpt2", prefixes: &["transformer."], layers: "h.", inner: GPT2, transposes: true,
        outer: &[("wte", "token_embd"), ("wpe", "position_embd"), ("ln_f", "output_norm"), ("lm_head", "output")],
        ignored: &["attn.bias", "attn.masked_bias"], ..PLAIN
    },
    Arch {
        model_types: &["gpt_neox"], gguf: "gptneox", prefixes: &["gpt_neox."], inner: GPTNEOX, splits_heads: true,
        outer: &[("embed_in", "token_embd"), ("final_layer_norm", "output_norm"), ("embed_out", "output")],
        ignored: &["attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"], ..PLAIN
    },
    Arch {
        model_types: &["bert"], gguf: "bert", prefixes: &["bert."], layers: "encoder.layer.", inner: BERT,
        outer: &[
            ("embeddings.word_embeddings", "token_embd"), ("embeddings.position_embeddings", "position_embd"),
            ("embeddings.token_type_embeddings", "token_types"), ("embeddings.LayerNorm", "token_embd_norm"),
            ("classifier", "cls.output"),
        ],
        ignored: &["embeddings.position_ids", "pooler.dense.", "cls.predictions.", "cls.seq_relationship."], ..PLAIN
    },
];

impl Arch {
    /// The architecture that a configuration names.
    pub fn of(hparams: &Hparams) -> Option<&'static Arch> {
        let named = hparams.str("model_type")?;
        ARCHS.iter().find(|a| a.model_types.contains(&named))
    }

    /// GGUF's name of a tensor.
    pub fn rename(&self, name: &str) -> Option<String> {
        let bare = self.prefixes.iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
        let within = |table: &[(&str, &str)], name: &str| {
            table.iter().find_map(|(from, to)| match name.strip_prefix(from)? {
                suffix @ (".weight" | ".bias") => Some(format!("{to}{suffix}")),
                _ => None,
            })
        };
        match bare.strip_prefix(self.layers).and_then(|rest| rest.split_once('.')) {
            Some((index, rest)) if index.bytes().all(|b| b.is_ascii_digit()) => {
                within(self.inner, rest).map(|name| format!("blk.{index}.{name}"))
            }
            _ => within(self.outer, bare),
        }
    }

    /// GGUF's name of a tensor and what is done to its values; `None` for what is no weight.
    pub fn place(&self, name: &str, hparams: &Hparams) -> Result<Option<(String, Transform)>> {
        let Some(new) = self.rename(name) else {
            if self.ignored.iter().any(|part| name.contains(part)) || name.contains("vision_tower.") {
                return Ok(None);
            }
            let rule = format!("a tensor without a place in {}", self.gguf);
            return Err(Error::new(Code::UnsupportedArch, rule).tensor(name));
        };
        // Tied to the table of tokens, and written beside it by some.
        if new == "output.weight" && hparams.flag("tie_word_embeddings", self.gguf.starts_with("gemma")) {
            return Ok(None);
        }
        let (n_head, n_head_kv) = hparams.heads()?;
        let is_matrix = new.ends_with(".weight");
        let transform = match () {
            () if self.adds_one && new.ends_with("norm.weight") => Transform::AddOne,
            () if self.interleaves && new.contains(".attn_q.") => Transform::Interleave { n_head },
            () if self.interleaves && new.contains(".attn_k.") => Transform::Interleave { n_head: n_head_kv },
            () if self.splits_heads && new.contains(".attn_qkv.") => Transform::SplitHeads { n_head },
            () if self.transposes && is_matrix && new.starts_with("blk.") && !new.contains("norm") => {
                Transform::Transpose
            }
            () => Transform::None,
        };
        Ok(Some((new, transform)))
    }
}
