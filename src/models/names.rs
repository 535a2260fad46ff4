//! What tensor names of language models tell: which tensors of GGUF files are no matrices in spite of their rank.

/// Whether a tensor of a GGUF file is looked up, added or taken element by element, and never
/// multiplied as a matrix: such tensors are held as f32.
pub fn is_table(name: &str) -> bool {
    const PARTS: &[&str] = &[
        "token_types.",
        "position_embd.",
        ".attn_q_norm.",
        ".attn_k_norm.",
        ".ssm_norm.",
        ".ssm_conv1d.",
        ".shortconv.conv.",
        "_mix_lerp_",
    ];
    PARTS.iter().any(|p| name.contains(p)) || [".ssm_a", ".ssm_d"].iter().any(|s| name.ends_with(s))
}

/// Whether this is one of the large matrices of an RWKV layer, beside its low-rank ones.
pub fn is_rwkv_projection(name: &str) -> bool {
    [".time_mix_key.", ".time_mix_value.", ".time_mix_receptance.", ".time_mix_output."]
        .iter()
        .any(|p| name.contains(p))
}
