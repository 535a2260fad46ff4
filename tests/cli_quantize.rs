//! `bitpane quantize`, `imatrix` and `inspect`: files in and out, calibration, and what goes wrong. Ids are those of the
//! fault catalogue, group Q.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::container::{Header, gguf_write::GgufWriter, parse};
use bitpane::quant::DType;
use common::shared;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(args: &[&OsStr]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_bitpane")).args(args).output().unwrap();
    let ran = Ran {
        code: output.status.code().expect("ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(ran.code <= 2 && !ran.stderr.contains("panicked"), "code {}: {}", ran.code, ran.stderr);
    ran
}

macro_rules! bitpane {
    ($($arg:expr),* $(,)?) => { run(&[$(OsStr::new(&$arg)),*]) };
}

impl Ran {
    fn document(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    fn fails(&self, code: i32, name: &str) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert!(self.stderr.contains(&format!("error[{name}]: ")), "{}", self.stderr);
        assert_eq!(self.stdout, "");
    }
}

/// A folder of its own for each test.
fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("bitpane-quantize-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn babyllama() -> Option<PathBuf> {
    shared("data/lm/babyllama_tok105/babyllama105.F16.gguf")
}

fn header_of(path: &Path) -> Header {
    let bytes = std::fs::read(path).unwrap();
    parse(&bytes, Some(bytes.len() as u64)).unwrap().unwrap()
}

#[test]
fn a_budget_a_plan_and_the_same_plan_again() {
    let Some(model) = babyllama() else { return };
    let folder = folder("plan");
    let (a, b, plan) = (folder.join("a.gguf"), folder.join("b.gguf"), folder.join("plan.json"));
    let made =
        bitpane!("quantize", model, a, "--target-bytes", "600000", "--plan", plan, "--json").document();
    let bytes = std::fs::metadata(&a).unwrap().len();
    assert!(bytes <= 600_000 && bytes > 590_000, "{bytes}");
    assert_eq!(made["bytesAfter"], bytes);
    assert!(made["bytesBefore"].as_u64().unwrap() > 1_800_000);
    let tensor = &made["perTensor"][0];
    assert_eq!(tensor["name"], "token_embd.weight");
    assert!(tensor["type"].is_string() && tensor["sqnrDb"].as_f64().unwrap() > 15.0, "{tensor}");
    bitpane!("quantize", model, b, "--plan-in", plan, "--threads", "1").document_or_text();
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap(), "another file from the same plan");
    let generated =
        bitpane!("generate", a, "--prompt", "Once upon", "--max-tokens", "8", "--json").document();
    assert_eq!(generated["tokens"].as_array().unwrap().len(), 8);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3, "something else was left behind");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Where rows of 192 become blocks of 256 the header tells the shapes, which takes more of it for some types.
#[test]
fn a_budget_counts_what_the_header_tells_of_shapes() {
    let Some(model) = shared("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors") else { return };
    let folder = folder("shapes");
    for budget in [2_600_001u64, 3_500_000, 4_700_000] {
        let to = folder.join("deit.gguf");
        bitpane!("quantize", model, to, "--target-bytes", budget.to_string(), "--json").document();
        let bytes = std::fs::metadata(&to).unwrap().len();
        assert!(bytes <= budget && bytes > budget / 100 * 99, "{bytes} of {budget}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

impl Ran {
    fn document_or_text(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
    }
}

/// Q08: nothing is replaced or left behind unless all went well.
#[test]
fn q08_outputs_appear_whole_or_not_at_all() {
    let Some(model) = babyllama() else { return };
    let folder = folder("output");
    let copy = folder.join("model.gguf");
    std::fs::copy(&model, &copy).unwrap();
    let before = std::fs::read(&copy).unwrap();
    bitpane!("quantize", copy, copy, "--type", "Q8_0").fails(1, "BadArgument");
    bitpane!("quantize", copy, folder, "--type", "Q8_0").fails(1, "Io");
    bitpane!("quantize", copy, folder.join("no/such/place.gguf"), "--type", "Q8_0").fails(1, "Io");
    let kept = folder.join("kept.gguf");
    std::fs::write(&kept, b"what was there").unwrap();
    std::fs::write(folder.join("short.gguf"), &before[..before.len() - 100]).unwrap();
    bitpane!("quantize", folder.join("short.gguf"), kept, "--type", "Q8_0").fails(1, "Truncated");
    assert_eq!(std::fs::read(&kept).unwrap(), b"what was there");
    assert!(std::fs::read(&copy).unwrap() == before, "the source was touched");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3, "something was left behind");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Q08: a disk that is full in the middle of the file. A limit on the size of files fails a write as a full disk does.
#[cfg(unix)]
#[test]
fn q08_a_full_disk_leaves_things_as_they_were() {
    let Some(model) = babyllama() else { return };
    let folder = folder("full");
    let (copy, kept) = (folder.join("model.gguf"), folder.join("kept.gguf"));
    std::fs::copy(&model, &copy).unwrap();
    std::fs::write(&kept, b"what was there").unwrap();
    let program = env!("CARGO_BIN_EXE_bitpane");
    // Blocks of 512 or of 1,024 bytes, as the shell counts: more than the header, less than the file.
    let limited = "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", limited, program, "quantize"])
        .args([&copy, &kept])
        .args(["--type", "Q8_0"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error[Io]: ") && stderr.contains("kept.gguf"), "{stderr}");
    assert_eq!(std::fs::read(&kept).unwrap(), b"what was there");
    assert!(std::fs::read(&copy).unwrap() == std::fs::read(&model).unwrap(), "the source was touched");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2, "something was left behind");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Hugging Face's layout in two shards: half of a model is not taken for one.
#[test]
fn shards_in_a_folder_are_taken_together_or_not_at_all() {
    let folder = folder("shards");
    let model = |dir: &str| {
        let dir = folder.join(dir);
        std::fs::create_dir(&dir).unwrap();
        let config = r#"{"model_type":"llama","hidden_size":32,"intermediate_size":32,"num_hidden_layers":1,
            "num_attention_heads":2,"max_position_embeddings":64,"rms_norm_eps":1e-5}"#;
        let tokenizer =
            r#"{"model":{"type":"BPE","vocab":{"<unk>":0,"a":1},"merges":[],"byte_fallback":true}}"#;
        std::fs::write(dir.join("config.json"), config).unwrap();
        std::fs::write(dir.join("tokenizer.json"), tokenizer).unwrap();
        dir
    };
    let stored = |names: &[&str]| {
        let at = |i: usize| i * 32 * 32 * 4;
        let entry = |(i, name): (usize, &&str)| {
            format!(r#""{name}":{{"dtype":"F32","shape":[32,32],"data_offsets":[{},{}]}}"#, at(i), at(i + 1))
        };
        let header = format!("{{{}}}", names.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
        let values = |i: usize| (0..1024).flat_map(move |j| ((i * 7 + j % 31) as f32 - 15.0).to_le_bytes());
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend((0..names.len()).flat_map(values));
        file
    };
    let q = "model.layers.0.self_attn.q_proj.weight";
    let o = "model.layers.0.self_attn.o_proj.weight";
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let two = model("model");
    std::fs::write(two.join(first), stored(&[q])).unwrap();
    std::fs::write(two.join(second), stored(&[o])).unwrap();
    let out = folder.join("out.gguf");
    let made = bitpane!("quantize", two, out, "--type", "Q8_0", "--json").document();
    assert_eq!(made["perTensor"].as_array().unwrap().len(), 2, "{made}");
    let index = format!(r#"{{"weight_map":{{"{q}":"{first}","{o}":"{second}"}}}}"#);
    std::fs::write(two.join("model.safetensors.index.json"), index).unwrap();
    let before = std::fs::read(&out).unwrap();
    bitpane!("quantize", two, out, "--type", "Q8_0").document_or_text();
    assert!(std::fs::read(&out).unwrap() == before, "other bytes with the index");
    // The index says that the second holds what it does not.
    std::fs::write(two.join(second), stored(&["model.layers.0.self_attn.v_proj.weight"])).unwrap();
    bitpane!("quantize", two, out, "--type", "Q8_0").fails(1, "MissingTensor");
    std::fs::remove_file(two.join(second)).unwrap();
    bitpane!("quantize", two, out, "--type", "Q8_0").fails(1, "Io");
    std::fs::remove_file(two.join("model.safetensors.index.json")).unwrap();
    bitpane!("quantize", two, out, "--type", "Q8_0").fails(1, "Io");
    assert!(std::fs::read(&out).unwrap() == before, "the output of before was touched");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn wrong_options_are_judged_before_the_file() {
    for args in [
        &["quantize", "absent.gguf", "out.gguf"][..],
        &["quantize", "absent.gguf", "out.gguf", "--type", "Q9"],
        &["quantize", "absent.gguf", "out.gguf", "--type", "Q4_0", "--target-bytes", "5"],
        &["quantize", "absent.gguf", "out.gguf", "--bits-per-weight", "4", "--types", "Q4_0,what"],
        &["quantize", "absent.gguf", "out.gguf", "--type", "Q4_0", "--gptq"],
        &["quantize", "absent.gguf", "out.gguf", "--type", "Q4_0", "--allow-nonfinite", "maybe"],
    ] {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        assert_eq!(run(&args).code, 2, "{args:?}");
    }
    let Some(model) = babyllama() else { return };
    let folder = folder("options");
    for (option, value) in [("--target-bytes", "0"), ("--bits-per-weight", "-3"), ("--max-loss", "0")] {
        let ran = bitpane!("quantize", model, folder.join("out.gguf"), option, value);
        if option != "--max-loss" {
            ran.fails(1, "BudgetInfeasible");
            assert!(ran.stderr.contains("smallest possible is"), "{}", ran.stderr);
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// An importance matrix from our own data steers the search; GPTQ does better still on what the matrices see.
#[test]
fn calibration_lowers_the_divergence() {
    let Some(model) = babyllama() else { return };
    let Some(stories) = shared("data/text/tinystories_1000.json") else { return };
    let folder = folder("calibrate");
    let stories: Vec<String> = serde_json::from_slice(&std::fs::read(stories).unwrap()).unwrap();
    let text = stories.join(" ").replace('\n', " ");
    let (data, test) = (folder.join("data.txt"), folder.join("test.txt"));
    std::fs::write(&data, &text[200_000..206_000]).unwrap();
    std::fs::write(&test, &text[..2000]).unwrap();
    let (imatrix, record) = (folder.join("imatrix.gguf"), folder.join("record"));
    bitpane!("imatrix", model, imatrix, data, "--threads", "1").document_or_text();
    let of_one_thread = std::fs::read(&imatrix).unwrap();
    bitpane!("imatrix", model, imatrix, data, "--threads", "2").document_or_text();
    assert!(std::fs::read(&imatrix).unwrap() == of_one_thread, "the file depends on the number of threads");
    bitpane!("perplexity", model, test, "--context", "256", "--record", record).document_or_text();
    let (out, plan) = (folder.join("out.gguf"), folder.join("plan.json"));
    let kinds = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let layers = (0..5).flat_map(|i| {
        kinds.map(|k| serde_json::json!({ "name": format!("blk.{i}.{k}.weight"), "type": "Q4_0" }))
    });
    std::fs::write(&plan, serde_json::json!({ "tensors": layers.collect::<Vec<_>>() }).to_string()).unwrap();
    let divergence = |more: &[&OsStr]| {
        let mut args = vec![
            OsStr::new("quantize"),
            model.as_os_str(),
            out.as_os_str(),
            OsStr::new("--plan-in"),
            plan.as_os_str(),
        ];
        args.extend(more);
        run(&args).document_or_text();
        let found =
            bitpane!("perplexity", out, test, "--context", "256", "--against", record, "--json").document();
        found["divergence"]["mean"].as_f64().unwrap()
    };
    let rounded = divergence(&["--nearest".as_ref()]);
    let searched = divergence(&[]);
    let weighted = divergence(&["--imatrix".as_ref(), imatrix.as_os_str()]);
    let gptq = divergence(&["--calibrate".as_ref(), data.as_os_str(), "--gptq".as_ref()]);
    println!("rounded {rounded:.4}, searched {searched:.4}, weighted {weighted:.4}, GPTQ {gptq:.4}");
    assert!(searched < 0.9 * rounded, "{searched} against {rounded}");
    assert!(weighted < 1.03 * searched, "{weighted} against {searched}");
    assert!(gptq < 0.6 * searched, "{gptq} against {searched}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// JPEG files of an archive that stores them as they are, spread over it.
fn stored_photos(archive: &[u8], folder: &Path, n: usize) -> Vec<PathBuf> {
    let number =
        |at: usize, len: usize| archive[at..at + len].iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
    let (mut at, mut found) = (0, Vec::new());
    while archive[at..].starts_with(b"PK\x03\x04") {
        let begin = at + 30 + number(at + 26, 2) + number(at + 28, 2);
        at = begin + number(at + 18, 4);
        found.extend(archive[begin..at].starts_with(&[0xFF, 0xD8]).then_some(begin..at));
    }
    let write = |i: usize| {
        let path = folder.join(format!("{i}.jpg"));
        std::fs::write(&path, &archive[found[i * found.len() / n].clone()]).unwrap();
        path
    };
    (0..n).map(write).collect()
}

/// Of each photo.
fn photo_logits(model: &Path, photos: &[PathBuf]) -> Vec<Vec<f64>> {
    let mut args = vec![OsStr::new("classify"), model.as_os_str()];
    args.extend(photos.iter().map(|p| p.as_os_str()));
    args.extend(["--top-k", "1000", "--json"].map(OsStr::new));
    let of = |result: &Value| {
        let mut row = vec![0f64; 1000];
        for entry in result["top"].as_array().unwrap() {
            row[entry["index"].as_u64().unwrap() as usize] = entry["logit"].as_f64().unwrap();
        }
        row
    };
    run(&args).document()["results"].as_array().unwrap().iter().map(of).collect()
}

/// Mean, in nats.
fn mean_divergence(exact: &[Vec<f64>], other: &[Vec<f64>]) -> f64 {
    let ln_softmax = |row: &Vec<f64>| -> Vec<f64> {
        let sum: f64 = row.iter().map(|v| v.exp()).sum();
        row.iter().map(|v| v - sum.ln()).collect()
    };
    let of = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        let (p, q) = (ln_softmax(a), ln_softmax(b));
        p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
    };
    exact.iter().zip(other).map(of).sum::<f64>() / exact.len() as f64
}

/// Pictures of ours stand for photos well enough: GPTQ on them, which sees no photo, takes most of the divergence off on
/// small ones. The eight sharp ones tell less than 0.007 nats apart, a third of what they have, so that the bound for them
/// is wide.
#[test]
fn pictures_of_ours_calibrate_for_photos() {
    let Some(model) = shared("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors") else { return };
    let Some(archive) = shared("data/images/cifar10_test_jpeg.zip") else { return };
    let Some(sharp) = shared("data/images") else { return };
    let folder = folder("pictures");
    let small = stored_photos(&std::fs::read(archive).unwrap(), &folder, 40);
    let entries = std::fs::read_dir(sharp).unwrap().map(|e| e.unwrap().path());
    let mut sharp: Vec<PathBuf> =
        entries.filter(|p| p.extension().is_some_and(|e| e == "bmp" || e == "jpg")).collect();
    sharp.sort();
    let (searched, gptq) = (folder.join("searched.gguf"), folder.join("gptq.gguf"));
    bitpane!("quantize", model, searched, "--type", "Q4_K").document_or_text();
    bitpane!("quantize", model, gptq, "--type", "Q4_K", "--calibrate", "--gptq").document_or_text();
    for (what, photos, most) in [("small", small, 0.4), ("sharp", sharp, 1.5)] {
        assert!(photos.len() >= 8, "{} {what} photos", photos.len());
        let exact = photo_logits(&model, &photos);
        let [searched, gptq] =
            [&searched, &gptq].map(|file| mean_divergence(&exact, &photo_logits(file, &photos)));
        println!("{what} photos: searched {searched:.4}, GPTQ on pictures of ours {gptq:.4}");
        assert!(gptq < most * searched, "{what}: {gptq} against {searched}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// The bytes of a tensor of a GGUF file.
fn tensor<'a>(file: &'a [u8], name: &str) -> &'a [u8] {
    let header = bitpane::container::parse(file, Some(file.len() as u64)).unwrap().unwrap();
    let found = header.tensor(name).unwrap();
    &file[found.offset as usize..][..found.n_bytes as usize]
}

/// What is rounded layer after layer is the same for any number of threads.
#[test]
fn threads_change_nothing_about_gptq() {
    let Some(model) = shared("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors") else { return };
    let Some(photo) = shared("data/images/cat.bmp") else { return };
    let folder = folder("gptq-threads");
    let file = |threads: &str| {
        let out = folder.join(threads);
        bitpane!(
            "quantize",
            model,
            out,
            "--type",
            "Q4_0",
            "--calibrate",
            photo,
            "--gptq",
            "--threads",
            threads
        )
        .document_or_text();
        std::fs::read(out).unwrap()
    };
    let rounded = file("1");
    assert!(rounded == file("3"));
    // What stands before and behind the layers is rounded for its inputs as well.
    let searched = folder.join("searched");
    bitpane!("quantize", model, searched, "--type", "Q4_0").document_or_text();
    let searched = std::fs::read(searched).unwrap();
    for name in ["patch_embed.proj.weight", "blocks.11.mlp.fc2.weight", "head.weight"] {
        assert!(
            tensor(&rounded, name) != tensor(&searched, name),
            "{name} has not been rounded for its inputs"
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
}

fn imatrix(tensors: &[(&str, Vec<f32>, f32)]) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.str("general.type", "imatrix");
    let mut data = Vec::new();
    for (name, sums, count) in tensors {
        writer.tensor(&format!("{name}.in_sum2"), DType::F32, &[1, sums.len()]).unwrap();
        writer.tensor(&format!("{name}.counts"), DType::F32, &[1, 1]).unwrap();
        data.push(sums.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        data.push(count.to_le_bytes().to_vec());
    }
    writer.to_bytes(&data.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

/// llama.cpp's format before GGUF.
fn legacy(name: &str, values: &[f32], calls: i32) -> Vec<u8> {
    let mut out = 1i32.to_le_bytes().to_vec();
    out.extend((name.len() as i32).to_le_bytes());
    out.extend(name.bytes());
    out.extend(calls.to_le_bytes());
    out.extend((values.len() as i32).to_le_bytes());
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

/// Q04: importance matrices that are of no use say so.
#[test]
fn q04_importance_matrices_are_checked() {
    let Some(model) = babyllama() else { return };
    let folder = folder("imatrix");
    let (path, out) = (folder.join("given"), folder.join("out.gguf"));
    let q = "blk.0.attn_q.weight";
    let with = |at: usize, bad: f32| {
        let mut values = vec![1.0; 128];
        values[at] = bad;
        values
    };
    for (what, bytes, code) in [
        ("wrong length", imatrix(&[(q, vec![1.0; 64], 1.0)]), "ImatrixMismatch"),
        ("NaN", imatrix(&[(q, with(5, f32::NAN), 1.0)]), "ImatrixMismatch"),
        ("negative", imatrix(&[(q, with(5, -1.0), 1.0)]), "ImatrixMismatch"),
        ("another model", imatrix(&[("blk.0.other.weight", vec![1.0; 128], 1.0)]), "ImatrixMismatch"),
        ("nothing", imatrix(&[]), "ImatrixMismatch"),
        ("noise", vec![7; 400], "ImatrixMismatch"),
        ("cut off", legacy(q, &[1.0; 128], 3)[..100].to_vec(), "Truncated"),
        ("another model, legacy", legacy("x", &[1.0; 128], 3), "ImatrixMismatch"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let ran = bitpane!("quantize", model, out, "--type", "Q4_0", "--imatrix", path);
        assert_eq!(ran.code, 1, "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains(code), "{what}: {}", ran.stderr);
    }
    for (what, bytes, note) in [
        (
            "missing tensors",
            imatrix(&[(q, with(3, 50.0), 1.0)]),
            "nothing is known of the input of \"blk.0.attn_k.weight\"",
        ),
        ("all zeros", imatrix(&[(q, vec![0.0; 128], 1.0)]), "all zeros"),
        ("legacy", legacy(q, &with(3, 50.0), 3), "nothing is known"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let ran = bitpane!("quantize", model, out, "--type", "Q4_0", "--imatrix", path);
        assert_eq!(ran.code, 0, "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains(note), "{what}: {}", ran.stderr);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn few_bits_without_calibration_come_with_a_warning() {
    let Some(model) = shared("golden/quant/llama-F32.gguf") else { return };
    let folder = folder("warning");
    let ran = bitpane!("quantize", model, folder.join("out.gguf"), "--type", "Q2_K");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("bits per weight without calibration") && ran.stderr.contains("dB"),
        "{}",
        ran.stderr
    );
    let quiet = bitpane!("quantize", model, folder.join("out.gguf"), "--type", "Q4_K");
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn inspect_compares_two_precisions() {
    let Some(model) = babyllama() else { return };
    let folder = folder("inspect");
    let (out, text) = (folder.join("out.gguf"), folder.join("text.txt"));
    std::fs::write(&text, "Once upon a time there was a dog.").unwrap();
    bitpane!("quantize", model, out, "--type", "Q4_0").document_or_text();
    let found = bitpane!("inspect", model, "--against", out, "--input", text, "--json").document();
    let tensors = found["tensors"].as_array().unwrap();
    let q = tensors.iter().find(|t| t["name"] == "blk.1.attn_q.weight").unwrap();
    assert!(q["choices"].as_array().unwrap().len() > 5 && q["sensitivity"].as_f64().unwrap() > 0.0, "{q}");
    let against =
        found["against"].as_array().unwrap().iter().find(|t| t["name"] == "blk.1.attn_q.weight").unwrap();
    assert_eq!((&against["type"], &against["againstType"]), (&"F16".into(), &"Q4_0".into()));
    assert!((18.0..26.0).contains(&against["sqnrDb"].as_f64().unwrap()), "{against}");
    let drift = &found["drift"];
    let layers = drift["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 5 * 7 + 1, "{layers:?}");
    let of = |name: &str| layers.iter().find(|l| l[0] == name).unwrap()[1].as_f64().unwrap();
    assert!(of("blk.0.attn_q.weight") > 0.0 && of("blk.0.attn_q.weight") < of("blk.4.ffn_down.weight"));
    assert!(drift["meanDivergence"].as_f64().unwrap() > 1e-4);
    assert!(!drift["divergence"].as_array().unwrap().is_empty());
    assert!(found["curve"].as_array().unwrap().len() > 20);
    let csv = bitpane!("inspect", model, "--csv");
    assert!(csv.code == 0 && csv.stdout.lines().count() > 100, "{}", csv.stderr);
    std::fs::remove_dir_all(folder).unwrap();
}

/// A vision model of few bits: rows of 192 are no whole blocks of 256, and the file says how they are to be read.
#[test]
fn deit_at_three_bits_still_sees() {
    let Some(model) = shared("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors") else { return };
    let Some(photo) = shared("data/images/parrot.jpg") else { return };
    let folder = folder("deit");
    let out = folder.join("out.gguf");
    let made = bitpane!("quantize", model, out, "--bits-per-weight", "3.9", "--json").document();
    assert!(made["bitsPerWeight"].as_f64().unwrap() <= 3.9);
    assert!(header_of(&out).metadata.array("bitpane.shapes").unwrap().is_some());
    let top = |model: &Path| {
        let found = bitpane!("classify", model, photo, "--top-k", "1", "--json").document();
        found["results"][0]["top"][0]["index"].as_u64().unwrap()
    };
    assert_eq!(top(&out), top(&model));
    std::fs::remove_dir_all(folder).unwrap();
}
