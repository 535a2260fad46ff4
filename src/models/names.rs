//! What tensor names tell: Hugging Face's become timm's, which the vision models use; and which
//! tensors of GGUF files are no matrices in spite of their rank.

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

/// The timm name of a tensor; names that are none of Hugging Face's ViT or DeiT stay as they are.
pub fn to_timm(name: &str) -> String {
    let name = ["vit.", "deit."].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    if let Some(rest) = name.strip_prefix("encoder.layer.") {
        if let Some((index, part)) = rest.split_once('.') {
            for (from, to) in LAYER {
                if let Some(suffix) = part.strip_prefix(from) {
                    return format!("blocks.{index}.{to}{suffix}");
                }
            }
        }
        return name.to_string();
    }
    for (from, to) in OUTER {
        if let Some(suffix) = name.strip_prefix(from) {
            return format!("{to}{suffix}");
        }
    }
    name.to_string()
}

/// Within a layer; longer prefixes first where one begins another.
const LAYER: &[(&str, &str)] = &[
    ("attention.attention.query.", "attn.q."),
    ("attention.attention.key.", "attn.k."),
    ("attention.attention.value.", "attn.v."),
    ("attention.output.dense.", "attn.proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
];

const OUTER: &[(&str, &str)] = &[
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layernorm.", "norm."),
    ("cls_classifier.", "head."),
    ("distillation_classifier.", "head_dist."),
    ("classifier.", "head."),
];

#[cfg(test)]
mod tests {
    use super::to_timm;

    #[test]
    fn hugging_face_names_become_timm_names() {
        for (from, to) in [
            ("vit.embeddings.cls_token", "cls_token"),
            ("deit.embeddings.distillation_token", "dist_token"),
            ("vit.embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias"),
            ("vit.encoder.layer.11.attention.attention.query.weight", "blocks.11.attn.q.weight"),
            ("vit.encoder.layer.0.attention.output.dense.bias", "blocks.0.attn.proj.bias"),
            ("deit.encoder.layer.3.output.dense.weight", "blocks.3.mlp.fc2.weight"),
            ("vit.layernorm.weight", "norm.weight"),
            ("classifier.weight", "head.weight"),
            ("blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.weight"),
            ("head.bias", "head.bias"),
        ] {
            assert_eq!(to_timm(from), to);
        }
    }
}
