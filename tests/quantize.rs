//! The quantizer: what it writes is the same however the source arrives, can be read again bit for bit, and is refused
//! where it should be. Ids are those of the fault catalogue, group Q.

#[path = "common/blocks.rs"]
mod blocks;
mod common;

use bitpane::container::gguf_write::GgufWriter;
use bitpane::container::joining::Joined;
use bitpane::container::{Header, TensorInfo, parse};
use bitpane::kernels::pool;
use bitpane::quant::DType;
use bitpane::quantizer::{
    Arriving, Budget, Calibration, Files, Outline, Plan, Planned, Report, RewriteOptions, Rewriter,
    Statistics, Survey, SurveyOptions, Surveyor,
};
use bitpane::tasks::{LoadOptions, Loaded, Loader, TextModel};
use bitpane::{Code, Error};
use blocks::{decoded, rms, splitmix_bytes};
use common::{json, numbers, shared};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let value = |bytes: &[u8]| bytes.iter().map(|&v| (f32::from(v) + 0.5) / 256.0).sum::<f32>() * 0.02 - 0.12;
    splitmix_bytes(n * 12, seed).chunks_exact(12).map(value).collect()
}

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A file that names itself a Llama and has the given F32 tensors.
fn file(tensors: &[(&str, &[usize], Vec<f32>)]) -> Vec<u8> {
    with_keys(tensors, &[])
}

/// The same with more metadata.
fn with_keys(tensors: &[(&str, &[usize], Vec<f32>)], keys: &[(&str, u64)]) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.str("general.architecture", "llama").str("general.name", "noise").uint("llama.block_count", 1);
    for (key, value) in keys {
        writer.uint(key, *value);
    }
    for (name, shape, _) in tensors {
        writer.tensor(name, DType::F32, shape).unwrap();
    }
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, _, values)| le(values)).collect();
    writer.to_bytes(&data.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

fn small() -> Vec<u8> {
    file(&[
        ("token_embd.weight", &[40, 256], noise(40 * 256, 1)),
        ("blk.0.attn_norm.weight", &[256], noise(256, 2)),
        ("blk.0.attn_v.weight", &[64, 256], noise(64 * 256, 3)),
        ("blk.0.ffn_gate_inp.weight", &[4, 256], noise(4 * 256, 4)),
        ("blk.0.ffn_down.weight", &[256, 96], noise(256 * 96, 5)),
        ("blk.0.ffn_up.weight", &[7, 33], noise(7 * 33, 6)),
        ("output.weight", &[40, 256], noise(40 * 256, 7)),
    ])
}

#[derive(Default)]
struct How {
    requantize: bool,
    zero: bool,
    chunk: Option<usize>,
}

type Written = (Vec<u8>, Report);

fn rewrite(
    bytes: &[u8],
    plan: impl FnOnce(&Outline, &Header) -> Plan + 'static,
    how: &How,
) -> Result<Written, Error> {
    let (requantize, zero_nonfinite) = (how.requantize, how.zero);
    let make = move |header: &Header| {
        let outline = Outline::of(header, &Files::default())?;
        let plan = plan(&outline, header);
        let options = RewriteOptions { requantize, zero_nonfinite, ..RewriteOptions::default() };
        Rewriter::new(header, outline, &plan, options, Vec::new())
    };
    let mut pass = Arriving::new(Some(bytes.len() as u64), Box::new(make));
    for chunk in bytes.chunks(how.chunk.unwrap_or(bytes.len())) {
        pass.push(chunk)?;
    }
    pass.finish()?.finish()
}

fn uniform(bytes: &[u8], dtype: DType) -> Result<Written, Error> {
    rewrite(bytes, move |outline, header| Plan::uniform(outline, header, dtype), &How::default())
}

fn survey(bytes: &[u8]) -> Survey {
    let make = |header: &Header| {
        Surveyor::new(header, Outline::of(header, &Files::default())?, SurveyOptions::default())
    };
    let mut pass = Arriving::new(None, Box::new(make));
    pass.push(bytes).unwrap();
    pass.finish().unwrap().finish()
}

fn header_of(bytes: &[u8]) -> Header {
    parse(bytes, Some(bytes.len() as u64)).unwrap().unwrap()
}

fn values_of(bytes: &[u8], name: &str) -> Vec<f32> {
    let header = header_of(bytes);
    let tensor = header.tensor(name).unwrap();
    decoded(tensor.dtype, &bytes[tensor.offset as usize..][..tensor.n_bytes as usize])
}

fn failure<T>(result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("no failure"),
        Err(error) => error,
    }
}

#[test]
fn q03_odd_widths_fall_back_with_a_word_about_it() {
    let (bytes, report) = uniform(&small(), DType::Q4_K).unwrap();
    let types: Vec<_> = report.per_tensor.iter().map(|t| (t.name.as_str(), t.dtype)).collect();
    assert_eq!(
        types,
        [
            ("token_embd.weight", "Q4_K"),
            ("blk.0.attn_norm.weight", "F32"),
            ("blk.0.attn_v.weight", "Q4_K"),
            ("blk.0.ffn_gate_inp.weight", "F32"),
            ("blk.0.ffn_down.weight", "IQ4_NL"),
            ("blk.0.ffn_up.weight", "F16"),
            ("output.weight", "Q4_K"),
        ]
    );
    let note = |i: usize| report.per_tensor[i].note.clone().unwrap_or_default();
    assert!(note(4).contains("rows of 96"), "{}", note(4));
    assert!(note(5).contains("rows of 33"), "{}", note(5));
    assert_eq!(note(2), "");
    let header = header_of(&bytes);
    assert_eq!(header.metadata.str("general.name").unwrap(), Some("noise"));
    assert_eq!(header.metadata.u64("general.file_type").unwrap(), Some(15));
    assert_eq!(report.bytes_after, bytes.len() as u64);
}

/// Q11: what is written decodes to what the encoder meant, and what is kept is kept bit for bit.
#[test]
fn q11_the_file_holds_the_rounded_weights() {
    let source = small();
    let (bytes, report) = uniform(&source, DType::Q5_0).unwrap();
    for tensor in &report.per_tensor {
        let (before, after) = (values_of(&source, &tensor.name), values_of(&bytes, &tensor.name));
        let error = rms(&before, &after);
        match tensor.sqnr_db {
            None => assert_eq!(before, after, "{}", tensor.name),
            Some(db) => {
                let found = 20.0 * (rms(&before, &vec![0.0; before.len()]) / error).log10();
                assert!((found - db).abs() < 0.01, "{}: {found} dB, reported {db}", tensor.name);
            }
        }
    }
}

/// Q10: chunks and threads change nothing.
#[test]
fn q10_the_bytes_depend_on_nothing_but_the_input() {
    let source = small();
    let plan = |outline: &Outline, header: &Header| Plan::uniform(outline, header, DType::Q3_K);
    let whole = rewrite(&source, plan, &How::default()).unwrap().0;
    for chunk in [1, 7, 4096] {
        let parts = rewrite(&source, plan, &How { chunk: Some(chunk), ..How::default() }).unwrap().0;
        assert!(parts == whole, "chunks of {chunk}");
    }
    let alone = pool::on_one_thread(|| rewrite(&source, plan, &How::default()).unwrap().0);
    assert!(alone == whole, "one thread");
    #[cfg(not(target_arch = "wasm32"))]
    {
        pool::set_threads(3);
        let shared = rewrite(&source, plan, &How::default()).unwrap().0;
        assert!(shared == whole, "three threads");
    }
    let hash =
        whole.iter().fold(0xCBF2_9CE4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    assert_eq!(format!("{hash:016x}"), "84a1032c44efd601", "another platform writes other bytes");
}

#[test]
fn q02_nan_and_infinity_are_refused_or_zeros() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = noise(64 * 256, 3);
        values[300] = bad;
        let source = file(&[("blk.0.attn_v.weight", &[64, 256], values)]);
        let error = failure(uniform(&source, DType::Q4_0));
        assert_eq!(error.code, Code::NonFiniteWeight);
        assert_eq!(error.tensor.as_deref(), Some("blk.0.attn_v.weight"));
        assert!(error.message.contains("300"), "{error}");
        let plan = |outline: &Outline, header: &Header| Plan::uniform(outline, header, DType::Q4_0);
        let (bytes, report) = rewrite(&source, plan, &How { zero: true, ..How::default() }).unwrap();
        assert!(values_of(&bytes, "blk.0.attn_v.weight").iter().all(|v| v.is_finite()));
        assert!(report.per_tensor[0].note.as_deref().unwrap_or("").contains("1 weights"), "{report:?}");
    }
}

#[test]
fn q06_a_budget_that_cannot_be_met_names_the_smallest() {
    let survey = survey(&small());
    for target_bytes in [0, 1000] {
        let error = failure(survey.plan(&Budget { target_bytes: Some(target_bytes), ..Budget::default() }));
        assert_eq!(error.code, Code::BudgetInfeasible);
        let least: u64 = error.message.rsplit(' ').next().unwrap().parse().unwrap();
        let budget = Budget { target_bytes: Some(least), ..Budget::default() };
        assert_eq!(survey.plan(&budget).unwrap().bytes, least);
        let below = Budget { target_bytes: Some(least - 1), ..Budget::default() };
        assert_eq!(failure(survey.plan(&below)).code, Code::BudgetInfeasible);
    }
    for bits in [0.0, -1.0, 1.0] {
        let budget = Budget { bits_per_weight: Some(bits), ..Budget::default() };
        assert_eq!(failure(survey.plan(&budget)).code, Code::BudgetInfeasible);
    }
    for budget in [
        Budget::default(),
        Budget { bits_per_weight: Some(f64::NAN), ..Budget::default() },
        Budget { max_loss: Some(-1.0), ..Budget::default() },
        Budget { max_loss: Some(1.0), target_bytes: Some(1 << 20), ..Budget::default() },
    ] {
        assert_eq!(failure(survey.plan(&budget)).code, Code::BadArgument, "{budget:?}");
    }
    // More than everything is everything at its best.
    let plan = survey.plan(&Budget { target_bytes: Some(u64::MAX), ..Budget::default() }).unwrap();
    assert!(plan.tensors.iter().all(|t| t.dtype == "F16" || t.dtype == "F32"), "{plan:?}");
}

/// Every plan keeps to its budget, by the byte, and a larger budget is never expected to lose more.
#[test]
fn plans_keep_to_their_budget_and_use_it() {
    let source = small();
    let survey = survey(&source);
    let curve = survey.curve();
    assert!(curve.windows(2).all(|p| p[0].bytes <= p[1].bytes && p[0].loss >= p[1].loss), "{curve:?}");
    let (least, most) = (curve[0].bytes, curve[curve.len() - 1].bytes);
    let mut last = f64::INFINITY;
    for i in 0..=8 {
        let target_bytes = least + (most - least) * i / 8;
        let plan = survey.plan(&Budget { target_bytes: Some(target_bytes), ..Budget::default() }).unwrap();
        let planned = plan.clone();
        let (bytes, report) = rewrite(&source, move |_, _| planned, &How::default()).unwrap();
        assert!(bytes.len() as u64 <= target_bytes, "{} of {target_bytes}", bytes.len());
        assert_eq!(bytes.len() as u64, plan.bytes);
        assert!((report.bits_per_weight - plan.bits_per_weight).abs() < 1e-9);
        let loss = plan.expected_loss.unwrap();
        assert!(loss <= last, "{loss} after {last}");
        last = loss;
    }
    let at = survey.plan(&Budget { max_loss: Some(0.01), ..Budget::default() }).unwrap();
    assert!(at.expected_loss.unwrap() <= 0.01, "{at:?}");
    let json = serde_json::to_string(&at).unwrap();
    let again: Plan = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), json);
}

#[test]
fn edited_plans_are_checked() {
    let with = |name: &str, dtype: &str| {
        let planned = Planned { name: name.into(), dtype: dtype.into(), note: None };
        let plan = Plan { tensors: vec![planned], ..Plan::default() };
        rewrite(&small(), move |_, _| plan, &How::default())
    };
    for (name, dtype, word) in [
        ("blk.0.attn_v.weight", "Q9_9", "Q9_9"),
        ("blk.0.attn_v.weight", "IQ2_XS", "IQ2_XS"),
        ("blk.0.ffn_up.weight", "Q8_0", "whole blocks"),
        ("blk.0.attn_norm.weight", "Q8_0", "whole blocks"),
        ("blk.9.attn_v.weight", "Q8_0", "does not have"),
    ] {
        let error = failure(with(name, dtype));
        assert_eq!(error.code, Code::BadArgument, "{name} {dtype}");
        assert_eq!(error.tensor.as_deref(), Some(name));
        assert!(error.message.contains(word), "{error}");
    }
    let (_, report) = with("blk.0.attn_v.weight", "Q2_K").unwrap();
    assert_eq!(report.per_tensor[2].dtype, "Q2_K");
    assert_eq!(report.per_tensor[0].dtype, "F16", "what a plan does not name is halved");
}

#[test]
fn q07_what_has_been_rounded_is_rounded_again_on_demand_only() {
    let rounded = uniform(&small(), DType::Q8_0).unwrap().0;
    let error = failure(uniform(&rounded, DType::Q4_0));
    assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some("allowRequantize")));
    let plan = |outline: &Outline, header: &Header| Plan::uniform(outline, header, DType::Q4_0);
    let (_, report) = rewrite(&rounded, plan, &How { requantize: true, ..How::default() }).unwrap();
    assert_eq!(report.per_tensor[0].dtype, "Q4_0");
    // The same type again is a copy.
    assert!(uniform(&rounded, DType::Q8_0).unwrap().0 == rounded);
}

/// Q09: a file that ends early is refused, and nothing is made up for what is missing.
#[test]
fn q09_missing_bytes_are_missing() {
    let source = small();
    for keep in [100, source.len() / 2, source.len() - 1] {
        let plan = |outline: &Outline, header: &Header| Plan::uniform(outline, header, DType::Q4_0);
        let make = move |header: &Header| {
            let outline = Outline::of(header, &Files::default())?;
            let plan = plan(&outline, header);
            Rewriter::new(header, outline, &plan, RewriteOptions::default(), Vec::new())
        };
        let mut pass = Arriving::new(None, Box::new(make));
        let outcome = pass.push(&source[..keep]).and_then(|()| pass.finish().map(drop));
        assert_eq!(failure(outcome).code, Code::Truncated, "{keep} bytes");
    }
}

/// Q01 through the whole way: finite weights, and exact zeros where there were zeros.
#[test]
fn q01_hostile_tensors_become_finite_files() {
    let n = 16 * 256;
    let mut outlier = noise(n, 8);
    outlier[1000] = 6e4;
    let tensors = [
        ("zeros.weight", vec![0.0; n]),
        ("constant.weight", vec![-0.7; n]),
        ("outlier.weight", outlier),
        ("subnormal.weight", noise(n, 9).iter().map(|v| v * 1e-38).collect()),
        ("largest.weight", (0..n).map(|i| if i % 2 == 0 { f32::MAX } else { f32::MIN }).collect()),
    ];
    let tensors: Vec<_> = tensors.into_iter().map(|(name, v)| (name, &[16usize, 256][..], v)).collect();
    let source = file(&tensors);
    for dtype in
        [DType::Q8_0, DType::Q6_K, DType::Q4_K, DType::Q4_0, DType::IQ4_XS, DType::Q2_K, DType::TQ2_0]
    {
        let bytes = uniform(&source, dtype).unwrap().0;
        for (name, ..) in &tensors {
            let values = values_of(&bytes, name);
            assert!(values.iter().all(|v| v.is_finite()), "{dtype:?} {name}");
        }
        assert!(values_of(&bytes, "zeros.weight").iter().all(|&v| v == 0.0), "{dtype:?}");
    }
}

/// A disk with so many bytes left.
struct Disk(usize);

impl std::io::Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = bytes.len().min(self.0);
        self.0 -= n;
        if n == 0 && !bytes.is_empty() { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Q08: wherever the disk is full, that is what the error says.
#[test]
fn q08_a_full_disk_is_told() {
    let bytes = small();
    let whole = uniform(&bytes, DType::Q8_0).unwrap().0.len();
    let write_to = |room: usize| {
        let make = move |header: &Header| {
            let outline = Outline::of(header, &Files::default())?;
            let plan = Plan::uniform(&outline, header, DType::Q8_0);
            Rewriter::new(header, outline, &plan, RewriteOptions::default(), Disk(room))
        };
        let mut pass = Arriving::new(None, Box::new(make));
        pass.push(&bytes)?;
        pass.finish()?.finish()
    };
    for room in [0, 1, 100, whole / 2, whole - 1] {
        let error = failure(write_to(room).map(|(_, report)| report));
        assert_eq!(error.code, Code::Io, "{room}");
        assert!(error.message.contains("writing failed"), "{room}: {error}");
    }
    assert_eq!(write_to(whole).unwrap().1.bytes_after, whole as u64);
}

/// Shards of one model, whose headers are known first, become what the whole file becomes.
#[test]
fn files_of_one_model_make_one_file() {
    let bytes = small();
    let whole = uniform(&bytes, DType::Q8_0).unwrap().0;
    let header = header_of(&bytes);
    let values = |t: &TensorInfo| {
        let raw = &bytes[t.offset as usize..][..t.n_bytes as usize];
        (raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))).collect::<Vec<f32>>()
    };
    let tensors: Vec<(&str, &[usize], Vec<f32>)> =
        header.tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice(), values(t))).collect();
    let (a, b) = tensors.split_at(tensors.len() / 2);
    let shard = |tensors: &[_], no: u64| {
        with_keys(
            tensors,
            &[("split.no", no), ("split.count", 2), ("split.tensors.count", header.tensors.len() as u64)],
        )
    };
    let files = [shard(a, 0), shard(b, 1)];
    let join = || Joined::of(files.iter().map(|f| header_of(f)).collect(), None).unwrap();
    let start = || {
        let make = |header: &Header| {
            let outline = Outline::of(header, &Files::default())?;
            let plan = Plan::uniform(&outline, header, DType::Q8_0);
            Rewriter::new(header, outline, &plan, RewriteOptions::default(), Vec::new())
        };
        Arriving::of_files(join(), Box::new(make)).unwrap()
    };
    let mut pass = start();
    for file in &files {
        pass.next_file(Some(file.len() as u64)).unwrap();
        file.chunks(1000).for_each(|chunk| pass.push(chunk).unwrap());
    }
    assert!(pass.finish().unwrap().finish().unwrap().0 == whole, "other bytes than the whole file's");

    assert_eq!(failure(start().push(&files[0])).code, Code::BadArgument, "no file was begun");
    let mut early = start();
    early.next_file(None).unwrap();
    early.push(&files[0][..files[0].len() - 1]).unwrap();
    assert_eq!(failure(early.next_file(None)).code, Code::Truncated);
    let mut missing = start();
    missing.next_file(None).unwrap();
    missing.push(&files[0]).unwrap();
    assert_eq!(failure(missing.finish().map(|_| ())).code, Code::ShardMismatch);
    let mut other = start();
    other.next_file(None).unwrap();
    assert_eq!(failure(other.push(&files[1])).code, Code::ShardMismatch, "a file in another's place");
    let twice = Joined::of(vec![header_of(&files[0]), header_of(&files[0])], None);
    assert_eq!(failure(twice.map(|_| ())).code, Code::ShardMismatch);
    assert_eq!(failure(Joined::of(Vec::new(), None).map(|_| ())).code, Code::ShardMismatch);
}

fn text_model(bytes: &[u8], options: LoadOptions) -> TextModel {
    let mut loader = Loader::new(options, None).unwrap();
    loader.push(bytes).unwrap();
    match loader.finish().unwrap() {
        Loaded::Text(model) => *model,
        _ => panic!("no language model"),
    }
}

/// A load with `quantize` and a load of the written file compute the same bits.
#[test]
fn loading_and_writing_quantize_alike() {
    let Some(path) = shared("data/lm/babyllama_tok105/babyllama105.F16.gguf") else { return };
    let source = std::fs::read(path).unwrap();
    for dtype in ["Q4_0", "Q8_0", "IQ4_NL"] {
        let written = uniform(&source, DType::from_name(dtype).unwrap()).unwrap().0;
        let on_load = LoadOptions { quantize: Some(dtype.into()), ..LoadOptions::default() };
        let tokens = [1, 20, 30, 40, 50];
        let a = text_model(&source, on_load).logits(&tokens, 3).unwrap();
        let b = text_model(&written, LoadOptions::default()).logits(&tokens, 3).unwrap();
        assert_eq!(a, b, "{dtype}");
    }
}

/// 4.5 bits per weight without data: at most 1.10 times the perplexity of F16.
#[test]
fn babyllama_keeps_its_perplexity_at_four_and_a_half_bits() {
    let Some(path) = shared("data/lm/babyllama_tok105/babyllama105.F16.gguf") else { return };
    let Some(golden) = shared("golden/perplexity/babyllama105.F16.json") else { return };
    let golden = json(&golden);
    let tokens: Vec<u32> = numbers(&golden["token_ids"]).iter().map(|&v| v as u32).take(1020).collect();
    let source = std::fs::read(path).unwrap();
    let plan = survey(&source).plan(&Budget { bits_per_weight: Some(4.55), ..Budget::default() }).unwrap();
    println!("{:.3} bits per weight", plan.bits_per_weight);
    let written = rewrite(&source, move |_, _| plan, &How::default()).unwrap().0;
    let nll = |bytes: &[u8]| {
        let mut model = text_model(bytes, LoadOptions::default());
        let mut sum = 0.0;
        for piece in tokens.chunks(255) {
            let tokens: Vec<u32> = std::iter::once(1).chain(piece.iter().copied()).collect();
            sum += model.nll(&tokens).unwrap().0;
        }
        sum / tokens.len() as f64
    };
    let ratio = (nll(&written) - nll(&source)).exp();
    println!("perplexity {ratio:.4} times that of F16");
    assert!(ratio < 1.10, "{ratio}");
}

/// Q05: inputs that depend on each other, that were never seen, or only once: GPTQ damps, or leaves it to the search, and
/// what it writes is finite and never far from what the search writes.
#[test]
fn q05_gptq_survives_any_inputs() {
    let (n, k) = (8, 64);
    let source = file(&[("blk.0.attn_v.weight", &[n, k], noise(n * k, 21))]);
    let column = |i: usize| (i % 64) as f32 / 64.0;
    let inputs: [(&str, Vec<f32>); 6] = [
        ("usual", noise(200 * k, 22)),
        ("one row", noise(k, 23)),
        ("the same row again and again", noise(k, 24).repeat(50)),
        ("dead columns", (0..200 * k).map(|i| if i % 3 == 0 { 0.0 } else { column(i * 7) - 0.4 }).collect()),
        ("nothing but zeros", vec![0.0; 20 * k]),
        ("huge", noise(100 * k, 25).iter().map(|v| v * 1e15).collect()),
    ];
    for (name, rows) in inputs {
        for dtype in [DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0, DType::IQ4_NL] {
            let mut statistics = Statistics::new(true);
            statistics.add("blk.0.attn_v.weight", k, &rows);
            statistics.finish();
            let make = move |header: &Header| {
                let outline = Outline::of(header, &Files::default())?;
                let plan = Plan::uniform(&outline, header, dtype);
                let calibration = Some(Box::new(statistics) as Box<dyn Calibration>);
                let options = RewriteOptions { calibration, ..RewriteOptions::default() };
                Rewriter::new(header, outline, &plan, options, Vec::new())
            };
            let mut pass = Arriving::new(None, Box::new(make));
            pass.push(&source).unwrap();
            let (bytes, report) = pass.finish().unwrap().finish().unwrap();
            let values = values_of(&bytes, "blk.0.attn_v.weight");
            assert!(values.iter().all(|v| v.is_finite()), "{name} {dtype:?}");
            let db = report.per_tensor[0].sqnr_db.unwrap();
            assert!(db > 8.0, "{name} {dtype:?}: {db} dB, {:?}", report.notes);
            if name == "nothing but zeros" {
                assert!(!report.notes.is_empty(), "{dtype:?}: no word about it");
            }
        }
    }
}

/// What GPTQ is for: the product with such inputs is nearer to the original than after the search.
#[test]
fn gptq_lowers_the_error_of_products() {
    let (n, k) = (16, 256);
    let weights = noise(n * k, 31);
    // Inputs in which neighbours are alike.
    let base = noise(400 * k, 32);
    let rows: Vec<f32> = (0..400 * k).map(|i| base[i] + 0.9 * base[i / 8 * 8]).collect();
    for dtype in [DType::Q4_0, DType::Q4_K, DType::Q3_K, DType::Q2_K, DType::IQ4_XS, DType::Q6_K, DType::Q5_K]
    {
        let source = file(&[("blk.0.attn_v.weight", &[n, k], weights.clone())]);
        let product_error = |with_pairs: bool| {
            let mut statistics = Statistics::new(with_pairs);
            statistics.add("blk.0.attn_v.weight", k, &rows);
            statistics.finish();
            let make = move |header: &Header| {
                let outline = Outline::of(header, &Files::default())?;
                let plan = Plan::uniform(&outline, header, dtype);
                let calibration = Some(Box::new(statistics) as Box<dyn Calibration>);
                let options = RewriteOptions { calibration, ..RewriteOptions::default() };
                Rewriter::new(header, outline, &plan, options, Vec::new())
            };
            let mut pass = Arriving::new(None, Box::new(make));
            pass.push(&source).unwrap();
            let values = values_of(&pass.finish().unwrap().finish().unwrap().0, "blk.0.attn_v.weight");
            let mut error = 0f64;
            for x in rows.chunks_exact(k) {
                for (w, q) in weights.chunks_exact(k).zip(values.chunks_exact(k)) {
                    error += x
                        .iter()
                        .zip(w.iter().zip(q))
                        .map(|(x, (w, q))| f64::from(x * (w - q)))
                        .sum::<f64>()
                        .powi(2);
                }
            }
            error
        };
        let (searched, gptq) = (product_error(false), product_error(true));
        println!("{dtype:?}: GPTQ leaves {:.3} of the product's error", gptq / searched);
        assert!(gptq < 0.8 * searched, "{dtype:?}: {gptq:e} against {searched:e}");
    }
}
