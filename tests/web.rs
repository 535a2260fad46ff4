//! The bindings as JavaScript meets them: shapes of results and of errors.
#![cfg(target_arch = "wasm32")]

use bitpane::container::gguf_write::GgufWriter;
use bitpane::quant::DType;
use bitpane::web;
use js_sys::{Array, Object, Reflect};
use wasm_bindgen::JsValue;
use wasm_bindgen_test::wasm_bindgen_test as test;

wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

fn field(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &name.into()).expect("an object")
}

fn text(object: &JsValue, name: &str) -> String {
    field(object, name).as_string().unwrap_or_else(|| panic!("{name} is not a string"))
}

/// A GGUF file with one tensor, of an architecture that is not supported.
fn small_file() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.str("general.architecture", "nonesuch").strs("list", ["a", "b", "c"]).bool("yes", true);
    writer.tensor("weight", DType::F32, &[2, 3]).expect("a tensor");
    writer.to_bytes(&[&[0; 24]]).expect("a file")
}

#[test]
fn an_error_is_a_plain_object() {
    let mut loader = web::Loader::new(JsValue::UNDEFINED, None).expect("a loader");
    let error = loader.push(b"<!doctype html><html></html>").expect_err("not a model");
    assert_eq!(text(&error, "code"), "BadMagic");
    assert!(text(&error, "message").len() > 10);
    assert_eq!(field(&error, "tensor"), JsValue::UNDEFINED);
}

#[test]
fn a_bad_option_is_named() {
    let options = Object::new();
    Reflect::set(&options, &"quantize".into(), &"Q9_9".into()).expect("an object");
    let error = web::Loader::new(options.into(), None).err().expect("no such type");
    assert_eq!(text(&error, "code"), "BadArgument");
    assert_eq!(text(&error, "key"), "quantize");

    let options = Object::new();
    Reflect::set(&options, &"contextLength".into(), &f64::NAN.into()).expect("an object");
    let error = web::Loader::new(options.into(), None).err().expect("not a length");
    assert_eq!(text(&error, "code"), "BadArgument");
}

#[test]
fn a_hasher_hashes_as_the_standards_say() {
    let mut hasher = web::Hasher::new(true);
    hasher.update(b"ab");
    hasher.update(b"c");
    assert_eq!(hasher.take_block(), "44bc2cf5ad770999");
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hasher.sha256().as_deref(), Some(abc));
    assert_eq!(web::Hasher::new(false).sha256(), None);
}

#[test]
fn inspection_ends_with_the_header() {
    let file = small_file();
    let mut inspector = web::Inspector::new(None);
    let early = inspector.push(&file[..16]).expect("a prefix");
    assert_eq!(early, JsValue::UNDEFINED);
    let summary = inspector.push(&file[16..file.len() - 24]).expect("the header");
    assert_eq!(text(&summary, "container"), "gguf");
    assert_eq!(field(&summary, "kind"), JsValue::UNDEFINED);
    assert_eq!(text(&summary, "architecture"), "nonesuch");
    assert_eq!(field(&summary, "parameters"), 6);
    assert_eq!(field(&summary, "bitsPerWeight"), 32);
    let tensors = Array::from(&field(&summary, "tensors"));
    assert_eq!(tensors.length(), 1);
    assert_eq!(text(&tensors.get(0), "type"), "F32");
    let metadata = field(&summary, "metadata");
    assert_eq!(field(&metadata, "yes"), true);
    assert_eq!(field(&field(&metadata, "list"), "length"), 3);
}

#[test]
fn the_module_knows_itself() {
    assert_eq!(web::version(), env!("CARGO_PKG_VERSION"));
    assert!(web::memory_bytes() >= 65536.0);
}
