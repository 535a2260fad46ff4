//! Language models: GGUF with llama.cpp's metadata keys and tensor names.

use crate::shapes::TextShape;
use crate::vocabulary::{self, BOS, EOS, Token, UNK};
use crate::weights::{Fill, Random, write_tensor};
use bitpane::Result;
use bitpane::container::gguf_write::GgufWriter;
use bitpane::quant::DType;
use std::io::Write;

struct Tensor {
    name: String,
    /// Outermost first.
    shape: Vec<usize>,
    dtype: DType,
    fill: Fill,
}

/// Writes the whole file: matrices (the embedding included) in `dtype`, vectors in F32.
///
/// # Errors
/// A type that cannot be written, a width that is not whole blocks of it, a failed write.
pub fn write(shape: &TextShape, dtype: DType, out: &mut impl Write) -> Result<()> {
    let tensors = tensors(shape, dtype);
    let mut writer = GgufWriter::new();
    put_config(&mut writer, shape);
    put_tokenizer(&mut writer, &vocabulary::generate(shape.n_vocab));
    for t in &tensors {
        writer.tensor(&t.name, t.dtype, &t.shape)?;
    }
    let mut data = writer.begin(out)?;
    let mut random = Random::new(1);
    for t in &tensors {
        write_tensor(&mut random, t.shape.iter().product(), t.dtype, t.fill, |bytes| data.write(bytes))?;
    }
    data.finish()?;
    Ok(())
}

fn put_config(writer: &mut GgufWriter, shape: &TextShape) {
    let a = shape.architecture;
    writer.str("general.architecture", a);
    writer.str("general.name", &format!("random weights, shape of {}", shape.name));
    for (key, value) in [
        ("block_count", shape.n_layer),
        ("context_length", shape.n_ctx),
        ("embedding_length", shape.n_embd),
        ("feed_forward_length", shape.n_ff),
        ("attention.head_count", shape.n_head),
        ("attention.head_count_kv", shape.n_head_kv),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
        ("rope.dimension_count", shape.head_dim),
        ("vocab_size", shape.n_vocab),
    ] {
        writer.uint(&format!("{a}.{key}"), value as u64);
    }
    writer.f32(&format!("{a}.rope.freq_base"), shape.rope_base);
    writer.f32(&format!("{a}.attention.layer_norm_rms_epsilon"), shape.rms_epsilon);
}

fn put_tokenizer(writer: &mut GgufWriter, tokens: &[Token]) {
    writer.str("tokenizer.ggml.model", "llama");
    writer.strs("tokenizer.ggml.tokens", tokens.iter().map(|t| &t.text));
    writer.f32s("tokenizer.ggml.scores", tokens.iter().map(|t| t.score));
    writer.ints("tokenizer.ggml.token_type", tokens.iter().map(|t| t.kind.into()));
    for (key, id) in [("unknown", UNK), ("bos", BOS), ("eos", EOS)] {
        writer.uint(&format!("tokenizer.ggml.{key}_token_id"), id.into());
    }
    writer.bool("tokenizer.ggml.add_bos_token", true);
    writer.bool("tokenizer.ggml.add_space_prefix", true);
}

fn tensors(shape: &TextShape, dtype: DType) -> Vec<Tensor> {
    let n = shape.n_embd;
    let (n_q, n_kv) = (shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim);
    let matrix = |name: &str, n_out: usize, n_in: usize| Tensor {
        name: format!("{name}.weight"),
        shape: vec![n_out, n_in],
        dtype,
        fill: Fill::Random,
    };
    let norm = |name: &str, n: usize| Tensor {
        name: format!("{name}.weight"),
        shape: vec![n],
        dtype: DType::F32,
        fill: Fill::Ones,
    };
    // Rows of zeros have a logit of zero, which is never the largest: the model writes words
    // only, no lone bytes (a peer fails on text that is not UTF-8) and no end of text.
    let vocabulary = |name: &str| Tensor {
        fill: Fill::RandomAfter(vocabulary::FIRST_WORD * n),
        ..matrix(name, shape.n_vocab, n)
    };
    let mut list = vec![vocabulary("token_embd")];
    for i in 0..shape.n_layer {
        let name = |part: &str| format!("blk.{i}.{part}");
        list.push(norm(&name("attn_norm"), n));
        list.push(matrix(&name("attn_q"), n_q, n));
        list.push(matrix(&name("attn_k"), n_kv, n));
        list.push(matrix(&name("attn_v"), n_kv, n));
        if shape.has_qk_norm {
            list.push(norm(&name("attn_q_norm"), shape.head_dim));
            list.push(norm(&name("attn_k_norm"), shape.head_dim));
        }
        list.push(matrix(&name("attn_output"), n, n_q));
        list.push(norm(&name("ffn_norm"), n));
        list.push(matrix(&name("ffn_gate"), shape.n_ff, n));
        list.push(matrix(&name("ffn_up"), shape.n_ff, n));
        list.push(matrix(&name("ffn_down"), n, shape.n_ff));
    }
    list.push(norm("output_norm", n));
    if !shape.is_tied {
        list.push(vocabulary("output"));
    }
    list
}
