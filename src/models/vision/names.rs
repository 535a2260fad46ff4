//! The names that checkpoints give to the parts of vision transformers, brought to timm's, with the text
//! tower's behind `text.`.

/// Rewrites `name` by the first rule whose left side begins it. `#` stands for a number.
pub fn rewrite(name: &str, rules: &[(&str, &str)]) -> Option<String> {
    rules.iter().find_map(|(from, to)| {
        let (numbers, rest) = match_prefix(name, from)?;
        let mut numbers = numbers.into_iter();
        let mut out = String::with_capacity(name.len());
        for c in to.chars() {
            match c {
                '#' => out.push_str(numbers.next().unwrap_or("")),
                c => out.push(c),
            }
        }
        out.push_str(rest);
        Some(out)
    })
}

/// The numbers that `#` stood for, and what follows the pattern.
fn match_prefix<'a>(mut name: &'a str, pattern: &str) -> Option<(Vec<&'a str>, &'a str)> {
    let mut numbers = Vec::new();
    for (i, part) in pattern.split('#').enumerate() {
        if i > 0 {
            let digits = name.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return None;
            }
            numbers.push(&name[..digits]);
            name = &name[digits..];
        }
        name = name.strip_prefix(part)?;
    }
    Some((numbers, name))
}

/// The name of a tensor of a vision transformer; names that no rule knows stay as they are.
pub fn transformer(name: &str) -> String {
    let name = strip(name);
    if let Some(rest) = name.strip_prefix("text_model.") {
        return format!("text.{}", rewrite(rest, TEXT).unwrap_or_else(|| rest.into()));
    }
    let name = name.strip_prefix("vision_model.").unwrap_or(name);
    rewrite(name, RULES).unwrap_or_else(|| name.into())
}

/// Without what wrappers put before all names.
fn strip(name: &str) -> &str {
    const WRAPPERS: &[&str] =
        &["vit.", "deit.", "beit.", "dinov2.", "dinov2_with_registers.", "dinov3_vit.", "module.", "model."];
    WRAPPERS.iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name)
}

/// Hugging Face's and GGUF's; longer ones first where one begins another.
const RULES: &[(&str, &str)] = &[
    // Layers of ViT, DeiT, BEiT, DINOv2.
    ("encoder.layer.#.attention.attention.query.", "blocks.#.attn.q."),
    ("encoder.layer.#.attention.attention.key.", "blocks.#.attn.k."),
    ("encoder.layer.#.attention.attention.value.", "blocks.#.attn.v."),
    (
        "encoder.layer.#.attention.attention.relative_position_bias.relative_position_bias_table",
        "blocks.#.attn.relative_position_bias_table",
    ),
    (
        "encoder.layer.#.attention.attention.relative_position_bias.relative_position_index",
        "blocks.#.attn.relative_position_index",
    ),
    ("encoder.layer.#.attention.output.dense.", "blocks.#.attn.proj."),
    ("encoder.layer.#.intermediate.dense.", "blocks.#.mlp.fc1."),
    ("encoder.layer.#.output.dense.", "blocks.#.mlp.fc2."),
    ("encoder.layer.#.layernorm_before.", "blocks.#.norm1."),
    ("encoder.layer.#.layernorm_after.", "blocks.#.norm2."),
    ("encoder.layer.#.norm1.", "blocks.#.norm1."),
    ("encoder.layer.#.norm2.", "blocks.#.norm2."),
    ("encoder.layer.#.lambda_1", "blocks.#.ls1.gamma"),
    ("encoder.layer.#.lambda_2", "blocks.#.ls2.gamma"),
    ("encoder.layer.#.layer_scale1.lambda1", "blocks.#.ls1.gamma"),
    ("encoder.layer.#.layer_scale2.lambda1", "blocks.#.ls2.gamma"),
    ("encoder.layer.#.mlp.weights_in.", "blocks.#.mlp.fc1."),
    ("encoder.layer.#.mlp.weights_out.", "blocks.#.mlp.fc2."),
    ("encoder.layer.#.mlp.", "blocks.#.mlp."),
    (
        "encoder.relative_position_bias.relative_position_bias_table",
        "rel_pos_bias.relative_position_bias_table",
    ),
    ("encoder.relative_position_bias.relative_position_index", "rel_pos_bias.relative_position_index"),
    // Layers of CLIP and SigLIP.
    ("encoder.layers.#.self_attn.q_proj.", "blocks.#.attn.q."),
    ("encoder.layers.#.self_attn.k_proj.", "blocks.#.attn.k."),
    ("encoder.layers.#.self_attn.v_proj.", "blocks.#.attn.v."),
    ("encoder.layers.#.self_attn.out_proj.", "blocks.#.attn.proj."),
    ("encoder.layers.#.layer_norm1.", "blocks.#.norm1."),
    ("encoder.layers.#.layer_norm2.", "blocks.#.norm2."),
    ("encoder.layers.#.mlp.", "blocks.#.mlp."),
    // Layers of DINOv3.
    ("layer.#.attention.q_proj.", "blocks.#.attn.q."),
    ("layer.#.attention.k_proj.", "blocks.#.attn.k."),
    ("layer.#.attention.v_proj.", "blocks.#.attn.v."),
    ("layer.#.attention.o_proj.", "blocks.#.attn.proj."),
    ("layer.#.layer_scale1.lambda1", "blocks.#.ls1.gamma"),
    ("layer.#.layer_scale2.lambda1", "blocks.#.ls2.gamma"),
    ("layer.#.mlp.gate_proj.", "blocks.#.mlp.gate."),
    ("layer.#.mlp.up_proj.", "blocks.#.mlp.fc1."),
    ("layer.#.mlp.down_proj.", "blocks.#.mlp.fc2."),
    ("layer.#.norm1.", "blocks.#.norm1."),
    ("layer.#.norm2.", "blocks.#.norm2."),
    // timm's other names.
    ("blocks.#.gamma_1", "blocks.#.ls1.gamma"),
    ("blocks.#.gamma_2", "blocks.#.ls2.gamma"),
    ("blocks.#.attn.q_proj.", "blocks.#.attn.q."),
    ("blocks.#.attn.k_proj.", "blocks.#.attn.k."),
    ("blocks.#.attn.v_proj.", "blocks.#.attn.v."),
    ("blocks.#.attn.inner_attn_ln.", "blocks.#.attn.norm."),
    ("blocks.#.mlp.fc1_g.", "blocks.#.mlp.gate."),
    ("blocks.#.mlp.fc1_x.", "blocks.#.mlp.fc1."),
    ("blocks.#.mlp.w12.", "blocks.#.mlp.fc1."),
    ("blocks.#.mlp.w1.", "blocks.#.mlp.gate."),
    ("blocks.#.mlp.w2.", "blocks.#.mlp.fc1."),
    ("blocks.#.mlp.w3.", "blocks.#.mlp.fc2."),
    ("blocks.#.mlp.ffn_ln.", "blocks.#.mlp.norm."),
    ("register_tokens", "reg_token"),
    // GGUF, as llama.cpp's converters write the encoders of CLIP and its kin.
    ("v.blk.#.attn_qkv.", "blocks.#.attn.qkv."),
    ("v.blk.#.attn_q.", "blocks.#.attn.q."),
    ("v.blk.#.attn_k.", "blocks.#.attn.k."),
    ("v.blk.#.attn_v.", "blocks.#.attn.v."),
    ("v.blk.#.attn_q_norm.", "blocks.#.attn.q_norm."),
    ("v.blk.#.attn_k_norm.", "blocks.#.attn.k_norm."),
    ("v.blk.#.attn_out.", "blocks.#.attn.proj."),
    ("v.blk.#.ffn_gate.", "blocks.#.mlp.gate."),
    ("v.blk.#.ffn_up.", "blocks.#.mlp.fc1."),
    ("v.blk.#.ffn_down.", "blocks.#.mlp.fc2."),
    ("v.blk.#.ln1.", "blocks.#.norm1."),
    ("v.blk.#.ln2.", "blocks.#.norm2."),
    ("v.blk.#.ls1.weight", "blocks.#.ls1.gamma"),
    ("v.blk.#.ls2.weight", "blocks.#.ls2.gamma"),
    ("v.patch_embd.", "patch_embed.proj."),
    ("v.class_embd", "cls_token"),
    ("v.position_embd.weight", "pos_embed"),
    ("v.pre_ln.", "norm_pre."),
    ("v.post_ln.", "norm."),
    ("t.blk.#.attn_q.", "text.blocks.#.attn.q."),
    ("t.blk.#.attn_k.", "text.blocks.#.attn.k."),
    ("t.blk.#.attn_v.", "text.blocks.#.attn.v."),
    ("t.blk.#.attn_out.", "text.blocks.#.attn.proj."),
    ("t.blk.#.ffn_up.", "text.blocks.#.mlp.fc1."),
    ("t.blk.#.ffn_down.", "text.blocks.#.mlp.fc2."),
    ("t.blk.#.ln1.", "text.blocks.#.norm1."),
    ("t.blk.#.ln2.", "text.blocks.#.norm2."),
    ("t.token_embd.weight", "text.token_embedding.weight"),
    ("t.position_embd.weight", "text.pos_embed"),
    ("t.post_ln.", "text.norm."),
    // Outside of the layers.
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.position_embedding.weight", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.patch_embeddings.", "patch_embed.proj."),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("pre_layrnorm.", "norm_pre."),
    ("post_layernorm.", "norm."),
    ("pooler.layernorm.", "fc_norm."),
    ("layernorm.", "norm."),
    ("cls_classifier.", "head."),
    ("distillation_classifier.", "head_dist."),
    ("classifier.", "head."),
    // The pooling of SigLIP, whose fused matrix has a name of its own kind.
    ("head.attention.in_proj_weight", "attn_pool.in_proj.weight"),
    ("head.attention.in_proj_bias", "attn_pool.in_proj.bias"),
    ("head.attention.out_proj.", "attn_pool.proj."),
    ("head.probe", "attn_pool.latent"),
    ("head.layernorm.", "attn_pool.norm."),
    ("head.mlp.", "attn_pool.mlp."),
];

/// Within `text_model.` of CLIP and SigLIP.
const TEXT: &[(&str, &str)] = &[
    ("encoder.layers.#.self_attn.q_proj.", "blocks.#.attn.q."),
    ("encoder.layers.#.self_attn.k_proj.", "blocks.#.attn.k."),
    ("encoder.layers.#.self_attn.v_proj.", "blocks.#.attn.v."),
    ("encoder.layers.#.self_attn.out_proj.", "blocks.#.attn.proj."),
    ("encoder.layers.#.layer_norm1.", "blocks.#.norm1."),
    ("encoder.layers.#.layer_norm2.", "blocks.#.norm2."),
    ("encoder.layers.#.mlp.", "blocks.#.mlp."),
    ("embeddings.token_embedding.", "token_embedding."),
    ("embeddings.position_embedding.weight", "pos_embed"),
    ("final_layer_norm.", "norm."),
];

/// Whether a tensor of a vision transformer is added or looked up element by element, whatever its rank.
pub fn is_table(canonical: &str) -> bool {
    matches!(canonical, "pos_embed" | "text.pos_embed") || canonical.ends_with("relative_position_bias_table")
}

/// The first and last layers, which lose most by few bits and weigh little.
pub fn is_outer(canonical: &str) -> bool {
    const OUTER: &[&str] = &["patch_embed.", "head.", "head_dist.", "visual_projection.", "text_projection."];
    OUTER.iter().any(|stem| canonical.starts_with(stem)) && canonical.ends_with(".weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_kinds_become_timm_names() {
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
            ("vision_model.encoder.layers.2.self_attn.out_proj.bias", "blocks.2.attn.proj.bias"),
            ("text_model.encoder.layers.2.mlp.fc1.weight", "text.blocks.2.mlp.fc1.weight"),
            ("text_model.embeddings.position_embedding.weight", "text.pos_embed"),
            ("v.blk.10.attn_out.weight", "blocks.10.attn.proj.weight"),
            ("t.blk.3.ln2.bias", "text.blocks.3.norm2.bias"),
            ("encoder.layer.x.norm1.weight", "encoder.layer.x.norm1.weight"),
        ] {
            assert_eq!(transformer(from), to);
        }
    }
}
