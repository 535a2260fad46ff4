//! Every tensor type: decoded values against gguf-py's and against the reference files, whole
//! models against the reference logits.

#[path = "common/blocks.rs"]
mod blocks;
mod common;

use bitpane::Code;
use bitpane::container::{gguf_write::GgufWriter, parse};
use bitpane::quant::superblock::SuperBlock;
use bitpane::quant::{DType, FORMATS, iq1, iq2, q2_k, q3_k, q4_k, q5_k, q6_k, tq1_0, tq2_0};
use bitpane::repack::{PackedWeights, Packer};
use bitpane::tasks::{LoadOptions, Loaded, Loader, TextModel};
use blocks::{decoded, rms, splitmix_bytes};
use common::{json, numbers, shared};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn bits_of(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn fnv1a(values: &[f32]) -> String {
    let step = |hash: u64, v: &f32| (hash ^ u64::from(v.to_bits())).wrapping_mul(0x100_0000_01B3);
    format!("{:016x}", values.iter().fold(0xCBF2_9CE4_8422_2325, step))
}

/// The blocks of a golden, as `format_goldens.py` makes them.
fn golden_blocks(golden: &Value, block_bytes: usize) -> Vec<u8> {
    let n_blocks = golden["n_blocks"].as_u64().unwrap() as usize;
    let mut blocks = splitmix_bytes(n_blocks * block_bytes, golden["seed"].as_u64().unwrap());
    for block in blocks.chunks_exact_mut(block_bytes) {
        for at in golden["clear_bit_6_at"].as_array().unwrap() {
            block[at.as_u64().unwrap() as usize] &= 0xBF;
        }
    }
    blocks
}

#[test]
fn random_blocks_decode_as_gguf_py_decodes_them() {
    let goldens = json(&data("format_goldens.json"));
    let goldens = goldens.as_object().unwrap();
    let mut faults = Vec::new();
    for (name, golden) in goldens {
        let Ok((format, _)) = DType::from_name(name).unwrap().codec() else {
            faults.push(format!("{name}: no codec"));
            continue;
        };
        let blocks = golden_blocks(golden, format.block_bytes);
        let got = decoded(format.dtype, &blocks);
        let want = bits_of(&unhex(&golden["values"]));
        if let Some(i) = (0..want.len()).find(|&i| got[i].to_bits() != want[i]) {
            faults.push(format!("{name}: value {i} is {}, not {}", got[i], f32::from_bits(want[i])));
        } else if fnv1a(&got) != golden["hash"].as_str().unwrap() {
            faults.push(format!("{name}: the hash of all values differs"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let tested = |name: &str| goldens.contains_key(name) || ["F32", "F16", "BF16"].contains(&name);
    for format in FORMATS.iter().filter(|f| f.codec.is_some()) {
        assert!(tested(format.name), "{} has no golden", format.name);
    }
}

type Decompose = fn(&[u8], &mut SuperBlock);

/// (type, splitter, offset, bits per code).
const SUPER_BLOCKS: &[(&str, Decompose, u8, u32)] = &[
    ("Q2_K", q2_k::decompose, q2_k::OFFSET, q2_k::BITS),
    ("Q3_K", q3_k::decompose, q3_k::OFFSET, q3_k::BITS),
    ("Q4_K", q4_k::decompose, q4_k::OFFSET, q4_k::BITS),
    ("Q5_K", q5_k::decompose, q5_k::OFFSET, q5_k::BITS),
    ("Q6_K", q6_k::decompose, q6_k::OFFSET, q6_k::BITS),
    ("TQ1_0", tq1_0::decompose, tq1_0::OFFSET, tq1_0::BITS),
    ("TQ2_0", tq2_0::decompose, tq2_0::OFFSET, tq2_0::BITS),
    ("IQ1_M", iq1::decompose_iq1_m, iq1::OFFSET, iq1::BITS),
    ("IQ2_XS", iq2::decompose_iq2_xs, iq2::OFFSET, iq2::BITS),
    ("IQ2_S", iq2::decompose_iq2_s, iq2::OFFSET, iq2::BITS),
];

#[test]
fn integer_parts_of_a_block_make_up_its_values() {
    let goldens = json(&data("format_goldens.json"));
    for &(name, decompose, offset, n_bits) in SUPER_BLOCKS {
        let (format, _) = DType::from_name(name).unwrap().codec().unwrap();
        let blocks = golden_blocks(&goldens[name], format.block_bytes);
        let want = decoded(format.dtype, &blocks);
        let mut p = SuperBlock::default();
        for (block, want) in blocks.chunks_exact(format.block_bytes).zip(want.chunks_exact(256)) {
            decompose(block, &mut p);
            for (i, want) in want.iter().enumerate() {
                assert!(u32::from(p.codes[i]) < 1 << n_bits, "{name}: code {}", p.codes[i]);
                let code = f32::from(p.codes[i]) - f32::from(offset);
                let [scale, min] = [p.scales, p.mins].map(|v| f32::from(v[i / 16]));
                let got = p.d * scale * code - p.dmin * min;
                assert_eq!(got.to_bits(), want.to_bits(), "{name} at {i}: {got} is not {want}");
            }
        }
    }
}

fn packed(dtype: DType, blocks: &[u8], n: usize, k: usize) -> PackedWeights {
    try_packed(dtype, blocks, n, k).unwrap()
}

fn try_packed(dtype: DType, blocks: &[u8], n: usize, k: usize) -> bitpane::Result<PackedWeights> {
    let mut packer = Packer::new(dtype, dtype, n, k)?;
    packer.push(blocks)?;
    packer.finish()
}

#[test]
fn packing_keeps_the_values_of_every_type() {
    let goldens = json(&data("format_goldens.json"));
    for (name, golden) in goldens.as_object().unwrap() {
        let (format, _) = DType::from_name(name).unwrap().codec().unwrap();
        let blocks = golden_blocks(golden, format.block_bytes);
        let (n, k) = (32, golden["n_blocks"].as_u64().unwrap() as usize * format.block_len / 32);
        let weights = packed(format.dtype, &blocks, n, k);
        let want = decoded(format.dtype, &blocks);
        let mut got = vec![f32::NAN; k];
        for (j, want) in want.chunks_exact(k).enumerate() {
            weights.row(j, &mut got);
            for (got, want) in got.chunks_exact(32).zip(want.chunks_exact(32)) {
                let amax = want.iter().fold(0f32, |m, v| m.max(v.abs()));
                let slack = if bitpane::quant::ROUNDED.iter().any(|d| d.name() == name.as_str()) {
                    amax / 127.0
                } else {
                    0.0
                };
                let near = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= slack;
                assert!(got.iter().zip(want).all(near), "{name} row {j}: {got:?} is not {want:?}");
            }
        }
    }
}

#[test]
fn any_bytes_decode_and_pack_without_panic() {
    let mut refused = 0;
    for format in FORMATS.iter().filter(|f| f.codec.is_some()) {
        let k = format.block_len.max(32);
        let row_bytes = k / format.block_len * format.block_bytes;
        let n_bytes = 1024 * row_bytes;
        for bytes in [splitmix_bytes(n_bytes, 99), vec![0xFF; n_bytes], vec![0x7C; n_bytes]] {
            let values = decoded(format.dtype, &bytes);
            let mut row = vec![0f32; k];
            // Row by row: one whose scale is not finite may be refused.
            for (blocks, want) in bytes.chunks_exact(row_bytes).zip(values.chunks_exact(k)) {
                match try_packed(format.dtype, blocks, 1, k) {
                    Ok(weights) => weights.row(0, &mut row),
                    Err(error) => {
                        assert_eq!(error.code, Code::NonFiniteWeight, "{}: {error}", format.name);
                        assert!(want.iter().any(|v| !v.is_finite()), "{}: refused a good row", format.name);
                        refused += 1;
                        continue;
                    }
                }
                let hides = |(got, want): (&f32, &f32)| got.is_finite() && !want.is_finite();
                assert!(!row.iter().zip(want).any(hides), "{}: a NaN or infinity is lost", format.name);
            }
        }
    }
    assert!(refused > 0, "no row had a scale that is not finite");
}

/// (type, golden) of every model in `golden/quant`.
fn models() -> Vec<(String, Value)> {
    let Some(folder) = shared("golden/quant") else { return Vec::new() };
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let golden = json(&path);
            (golden["type"].as_str().unwrap().to_string(), golden)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn model_bytes(dtype: &str) -> Vec<u8> {
    std::fs::read(shared(&format!("golden/quant/llama-{dtype}.gguf")).unwrap()).unwrap()
}

/// The stored bytes of one tensor.
fn tensor_bytes<'a>(file: &'a [u8], name: &str) -> &'a [u8] {
    let header = parse(file, Some(file.len() as u64)).unwrap().unwrap();
    let tensor = header.tensor(name).unwrap();
    &file[tensor.offset as usize..][..tensor.n_bytes as usize]
}

#[test]
fn samples_of_the_reference_files_decode_exactly() {
    for (name, golden) in models() {
        let sample = &golden["dequant_sample"];
        let file = model_bytes(&name);
        // The bytes come from the model: `raw_hex` of the Q4_1 sample belongs to another tensor.
        let got = decoded(
            DType::from_name(&name).unwrap(),
            tensor_bytes(&file, sample["tensor"].as_str().unwrap()),
        );
        let want = bits_of(&unhex(&sample["f32_le_hex"]));
        assert!(!want.is_empty() && bits(&got[..want.len()]) == want, "{name}");
    }
}

/// The same model with every tensor as F32.
fn expanded(bytes: &[u8]) -> Vec<u8> {
    let header = parse(bytes, Some(bytes.len() as u64)).unwrap().unwrap();
    let mut writer = GgufWriter::new();
    for (key, value) in header.metadata.iter() {
        writer.put(key, value.clone());
    }
    let mut tensors = Vec::new();
    for t in &header.tensors {
        let values = decoded(t.dtype, &bytes[t.offset as usize..][..t.n_bytes as usize]);
        writer.tensor(&t.name, DType::F32, &t.shape).unwrap();
        tensors.push(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    }
    let data: Vec<_> = tensors.iter().map(Vec::as_slice).collect();
    writer.to_bytes(&data).unwrap()
}

fn text_model(bytes: &[u8], reference: bool) -> TextModel {
    let mut loader = Loader::new(LoadOptions { reference, ..LoadOptions::default() }, None).unwrap();
    loader.push(bytes).unwrap();
    match loader.finish().unwrap() {
        Loaded::Text(model) => *model,
        _ => panic!("no language model"),
    }
}

fn logits(bytes: &[u8], golden: &Value, reference: bool) -> Vec<f32> {
    let tokens: Vec<u32> = numbers(&golden["token_ids"]).iter().map(|&v| v as u32).collect();
    let n_rows = golden["positions"].as_array().unwrap().len();
    text_model(bytes, reference).logits(&tokens, n_rows).unwrap().concat()
}

#[test]
fn whole_models_in_float_give_the_exact_logits() {
    let mut faults = Vec::new();
    for (name, golden) in models() {
        let got = logits(&expanded(&model_bytes(&name)), &golden, true);
        let exact = numbers(&golden["logits_f32"]);
        assert_eq!(got.len(), exact.len());
        let worst = got.iter().zip(&exact).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        println!("{name} float: max abs error {worst:.2e}");
        if worst.is_nan() || worst > 1e-3 {
            faults.push(format!("{name}: {worst}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The likeliest entry and its distance from the next.
fn top(row: &[f32]) -> (usize, f32) {
    let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let next = row.iter().enumerate().filter(|(i, _)| *i != best).fold(f32::MIN, |m, (_, &x)| m.max(x));
    (best, row[best] - next)
}

/// What is wrong with our logits of a model, if anything.
fn integer_faults(name: &str, bytes: &[u8], golden: &Value) -> Vec<String> {
    let got = logits(bytes, golden, false);
    let (exact, llama_cpp) = (numbers(&golden["logits_f32"]), numbers(&golden["logits_llamacpp"]));
    let (ours, theirs) = (rms(&got, &exact), rms(&llama_cpp, &exact));
    println!("{name}: rms error {ours:.3e}, llama.cpp {theirs:.3e}, ratio {:.3}", ours / theirs);
    // 2e-5 is the rounding of the stored logits.
    let bound = 1.25 * theirs + 2e-5;
    let mut faults = Vec::new();
    if ours.is_nan() || ours > bound {
        faults.push(format!("{name}: {ours:.3e} against {theirs:.3e}"));
    }
    let rows = got.chunks_exact(512).zip(exact.chunks_exact(512)).zip(llama_cpp.chunks_exact(512));
    for ((got, exact), llama_cpp) in rows {
        let ((best, _), (want, margin)) = (top(got), top(exact));
        // Where llama.cpp's rounding of activations, which is ours, prefers the same, nothing is wrong with ours.
        if best != want && f64::from(margin) > bound && top(llama_cpp).0 != best {
            faults.push(format!("{name}: prefers {best} to {want}, which leads by {margin}"));
        }
    }
    faults
}

#[test]
fn integer_logits_are_as_near_as_those_of_llama_cpp() {
    let faults = |(name, golden): &(String, Value)| integer_faults(name, &model_bytes(name), golden);
    let mut faults: Vec<String> = models().iter().flat_map(faults).collect();
    // Models of every type that llama.cpp reads, as tests/data/type_goldens.py writes them.
    if let Some(folder) = std::env::var_os("TYPE_GOLDENS") {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "gguf") {
                let name = path.file_stem().unwrap().to_string_lossy();
                let golden = json(&path.with_extension("json"));
                faults.extend(integer_faults(&name, &std::fs::read(&path).unwrap(), &golden));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// How a type is held is said before and after loading.
#[test]
fn the_form_that_a_type_is_held_in_is_stated() {
    for (name, _) in models() {
        let held = DType::from_name(&name).unwrap().held_as().unwrap();
        let info = text_model(&model_bytes(&name), false).info();
        assert_eq!(info.formats.get(name.as_str()), Some(&held));
    }
    let loader = LoadOptions { quantize: Some("Q4_0".into()), ..LoadOptions::default() };
    let Some(path) = shared("golden/quant/llama-F16.gguf") else { return };
    let mut loader = Loader::new(loader, None).unwrap();
    loader.push(&std::fs::read(path).unwrap()).unwrap();
    let Loaded::Text(model) = loader.finish().unwrap() else { panic!("no language model") };
    assert_eq!(model.info().formats["F16"], "Q4_0: 4-bit codes, a scale per 32");
}

/// Blocks of random codes under one scale that gives them the given RMS. For types with one
/// f16 scale per block, its upper byte at `at`.
fn random_blocks(dtype: DType, at: usize, seed: u64, n: usize, rms_wanted: f64) -> Vec<u8> {
    let (format, _) = dtype.codec().unwrap();
    let mut blocks = splitmix_bytes(n / format.block_len * format.block_bytes, seed);
    let set = |blocks: &mut [u8], d: half::f16| {
        for block in blocks.chunks_exact_mut(format.block_bytes) {
            if dtype == DType::IQ1_M {
                for i in 0..4 {
                    let nibble = (d.to_bits() >> (4 * i) & 15) as u8;
                    block[49 + 2 * i] = block[49 + 2 * i] & 15 | nibble << 4;
                }
            } else {
                block[at - 1..=at].copy_from_slice(&d.to_le_bytes());
            }
        }
    };
    set(&mut blocks, half::f16::ONE);
    let values = decoded(dtype, &blocks);
    set(&mut blocks, half::f16::from_f64(rms_wanted / rms(&values, &vec![0.0; n])));
    blocks
}

/// The F32 reference model with its matrices in another type: rounded where the type can be
/// written, else as random weights of the same size.
fn converted(dtype: DType, scale_at: usize) -> Vec<u8> {
    let bytes = model_bytes("F32");
    let header = parse(&bytes, Some(bytes.len() as u64)).unwrap().unwrap();
    let (format, codec) = dtype.codec().unwrap();
    let mut writer = GgufWriter::new();
    for (key, value) in header.metadata.iter() {
        writer.put(key, value.clone());
    }
    let mut tensors = Vec::new();
    for (i, t) in header.tensors.iter().enumerate() {
        let stored = &bytes[t.offset as usize..][..t.n_bytes as usize];
        if t.shape.len() < 2 {
            writer.tensor(&t.name, DType::F32, &t.shape).unwrap();
            tensors.push(stored.to_vec());
            continue;
        }
        let values = decoded(DType::F32, stored);
        writer.tensor(&t.name, dtype, &t.shape).unwrap();
        tensors.push(match codec.quantize {
            Some(quantize) => {
                let mut blocks = vec![0; values.len() / format.block_len * format.block_bytes];
                quantize(&values, &mut blocks);
                blocks
            }
            None => {
                let size = rms(&values, &vec![0.0; values.len()]);
                random_blocks(dtype, scale_at, i as u64, values.len(), size)
            }
        });
    }
    let data: Vec<_> = tensors.iter().map(Vec::as_slice).collect();
    writer.to_bytes(&data).unwrap()
}

/// Types without a reference model, and the relative RMS error that the README of the
/// reference data suggests for their activation blocks (32 wide, 256 wide).
const CONVERTED: [(&str, f64); 10] = [
    ("Q5_1", 0.03),
    ("Q1_0", 0.03),
    ("Q2_0", 0.03),
    ("IQ1_M", 0.06),
    ("IQ2_S", 0.06),
    ("IQ3_XXS", 0.06),
    ("IQ4_XS", 0.06),
    ("Q3_K", 0.06),
    ("TQ1_0", 0.06),
    ("TQ2_0", 0.06),
];

#[test]
fn types_without_a_reference_model_run_as_their_decoded_weights() {
    let Some(golden) = shared("golden/quant/llama-F32.json") else { return };
    let golden = json(&golden);
    let scales = json(&data("format_goldens.json"));
    let mut faults = Vec::new();
    for (name, bound) in CONVERTED {
        let scale_at = scales[name]["clear_bit_6_at"][0].as_u64().unwrap() as usize;
        let bytes = converted(DType::from_name(name).unwrap(), scale_at);
        let exact = logits(&expanded(&bytes), &golden, true);
        let got = logits(&bytes, &golden, false);
        let error = rms(&got, &exact) / rms(&exact, &vec![0.0; exact.len()]);
        println!("{name}: relative rms error {error:.4}");
        if error.is_nan() || error > bound {
            faults.push(format!("{name}: {error:.4}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Mean negative log-likelihood per token of the text that the golden perplexities were taken on.
fn mean_nll(model: &mut TextModel, tokens: &[u32]) -> f64 {
    let (mut sum, mut n) = (0f64, 0);
    for piece in tokens.chunks(255) {
        let tokens: Vec<u32> = std::iter::once(1).chain(piece.iter().copied()).collect();
        let (nll, count) = model.nll(&tokens).unwrap();
        sum += nll;
        n += count;
    }
    sum / n as f64
}

#[test]
fn perplexity_of_a_q5_1_model_is_that_of_its_decoded_weights() {
    let Some(path) = shared("data/lm/babyllama_tok105/babyllama105.Q5_1.gguf") else { return };
    let Some(golden) = shared("golden/perplexity/babyllama105.F16.json") else { return };
    let tokens: Vec<u32> = numbers(&json(&golden)["token_ids"]).iter().map(|&v| v as u32).collect();
    let tokens = &tokens[..1020];
    let bytes = std::fs::read(path).unwrap();
    let exact = mean_nll(&mut text_model(&expanded(&bytes), true), tokens);
    let got = mean_nll(&mut text_model(&bytes, false), tokens);
    println!("Q5_1: {got:.6} nats per token, in float {exact:.6}");
    assert!((got.exp() / exact.exp() - 1.0).abs() < 0.002, "{got} against {exact}");
}
