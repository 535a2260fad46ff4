//! Models in several files: rows G25 and S12 of the fault catalogue, and that they compute what one file does.

mod bad_files;

use bad_files::gguf::{I32, STRING, U16, string};
use bad_files::model::Model;
use bitpane::container::shards::ShardIndex;
use bitpane::tasks::{LoadOptions, Loaded, Loader};
use bitpane::{Code, Error, Result};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

fn loader() -> Loader {
    Loader::new(LoadOptions::default(), None).unwrap()
}

fn push_all(mut loader: Loader, files: &[Vec<u8>]) -> Result<Loaded> {
    for (i, file) in files.iter().enumerate() {
        if i > 0 {
            loader.next_file(Some(file.len() as u64))?;
        }
        file.chunks(500).try_for_each(|piece| loader.push(piece))?;
    }
    loader.finish()
}

fn load(files: &[Vec<u8>]) -> Result<Loaded> {
    let mut loader = loader();
    loader.expect_files(files.len());
    push_all(loader, files)
}

fn logits(loaded: Loaded) -> Vec<f32> {
    match loaded {
        Loaded::Text(mut model) => model.logits(&[1, 5, 9], 1).unwrap().remove(0),
        Loaded::Vision(mut model) => {
            let size = model.info().image_size;
            model.logits(&vec![0.5; 3 * size * size], &[3, size, size]).unwrap()
        }
        Loaded::Encoder(_) => unreachable!("no encoder is loaded here"),
    }
}

fn error(result: Result<Loaded>) -> Error {
    result.map(|_| ()).expect_err("refused")
}

fn gguf(models: &[Model]) -> Vec<Vec<u8>> {
    models.iter().map(Model::gguf).collect()
}

#[test]
fn shards_compute_what_the_whole_file_does() {
    let whole = logits(load(&[Model::llama().gguf()]).unwrap());
    for n in [2, 3, 11] {
        let loaded = load(&gguf(&Model::llama().split(n))).unwrap();
        let Loaded::Text(model) = &loaded else { unreachable!() };
        assert_eq!(model.info().parameters, 12 * 32 + 32 * 32 * 2 + 16 * 32 * 2 + 64 * 32 * 3 + 3 * 32);
        assert_eq!(logits(loaded), whole, "{n} shards");
    }
}

#[test]
fn g25_shards_that_do_not_belong_together() {
    let split = Model::llama().split(3);
    let files = gguf(&split);
    let [a, b, c] = files.try_into().unwrap();
    let set = |value: u16| split[1].clone().set("split.count", U16, &value.to_le_bytes()).gguf();
    let no_number = |model: &Model| model.clone().set("split.no", STRING, &string(b"1")).gguf();
    let other = split[1].clone().set("split.tensors.count", I32, &[9, 0, 0, 0]).gguf();
    let foreign = split[1].clone().set("general.architecture", STRING, &string(b"qwen2")).gguf();
    for (what, files, key) in [
        ("one missing at the end", vec![a.clone(), b.clone()], "split.count"),
        ("one missing in the middle", vec![a.clone(), c.clone()], "split.count"),
        ("one twice", vec![a.clone(), b.clone(), b.clone()], "split.no"),
        ("in another order", vec![a.clone(), c.clone(), b.clone()], "split.no"),
        ("the first not first", vec![b.clone(), a.clone(), c.clone()], "split.no"),
        ("another split.count", vec![a.clone(), set(4), c.clone()], "split.count"),
        ("split.no is a string", vec![a.clone(), no_number(&split[1]), c.clone()], "split.no"),
        ("of another model", vec![a.clone(), other, c.clone()], "split.tensors.count"),
        ("of another architecture", vec![a.clone(), foreign, c.clone()], "general.architecture"),
        ("one too many", vec![a.clone(), b.clone(), c.clone(), c.clone()], "split.count"),
        ("whole files", vec![Model::llama().gguf(), Model::llama().gguf()], "split.count"),
    ] {
        let e = error(load(&files));
        assert_eq!((e.code, e.key.as_deref()), (Code::ShardMismatch, Some(key)), "{what}: {e}");
    }
    let safetensors = Model::vit().safetensors(|_| ("F32", 4));
    assert_eq!(error(load(&[a.clone(), safetensors, c.clone()])).code, Code::ShardMismatch);
    let cut = b[..b.len() - 1].to_vec();
    assert_eq!(error(load(&[a.clone(), cut, c.clone()])).code, Code::Truncated);
    // Declared, but they never come.
    let mut loader = loader();
    loader.expect_files(3);
    assert_eq!(error(push_all(loader, &[a, b])).code, Code::ShardMismatch);
}

fn index(entries: &[(&str, &str)]) -> ShardIndex {
    let map: serde_json::Map<String, serde_json::Value> =
        entries.iter().map(|(tensor, file)| (tensor.to_string(), (*file).into())).collect();
    let json = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    ShardIndex::parse(json.to_string().as_bytes()).unwrap()
}

#[test]
fn s12_the_index_of_a_safetensors_model() {
    let model = Model::vit();
    let names = model.names();
    let files: Vec<Vec<u8>> =
        [0..2, 2..12, 12..names.len()].map(|part| model.part(part).safetensors(|_| ("F32", 4))).into();
    let place = |i: usize| {
        ["a.safetensors", "b.safetensors", "c.safetensors"][usize::from(i >= 2) + usize::from(i >= 12)]
    };
    let entries: Vec<(&str, &str)> =
        names.iter().enumerate().map(|(i, name)| (name.as_str(), place(i))).collect();
    let load_with = |index: ShardIndex, files: &[Vec<u8>]| {
        let mut loader = loader();
        loader.expect_index(index);
        push_all(loader, files)
    };
    let whole = logits(load(&[model.safetensors(|_| ("F32", 4))]).unwrap());
    assert_eq!(logits(load_with(index(&entries), &files).unwrap()), whole);
    assert_eq!(logits(load(&files).unwrap()), whole, "without an index");
    // A tensor that is not in the file that the index names.
    let mut wrong = entries.clone();
    wrong[0].1 = "b.safetensors";
    let e = error(load_with(index(&wrong), &files));
    assert_eq!((e.code, e.tensor.as_deref()), (Code::MissingTensor, Some("cls_token")), "{e}");
    let e = error(load_with(index(&entries), &[files[0].clone(), files[2].clone(), files[1].clone()]));
    assert_eq!(e.code, Code::MissingTensor);
    let e = error(load_with(index(&entries), &files[..2]));
    assert_eq!(e.code, Code::ShardMismatch);
    let e = error(load(&[files[0].clone(), files[1].clone(), files[1].clone()]));
    assert_eq!(e.code, Code::Duplicate);
}
