//! `bitpane convert` from end to end.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(args: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bitpane")).args(args).output().unwrap()
}

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn tflite_becomes_a_classifier_with_labels() {
    let (Some(cnn), Some(photo)) = (common::shared("data/cnn"), common::shared("data/images/cat.bmp")) else {
        return;
    };
    let gguf = folder("convert_tflite").join("mobilenet.gguf");
    let labels = cnn.join("imagenet_labels_1001_or_1000.txt");
    let tflite = cnn.join("mobilenet_v1_0.25_128_quant.tflite");
    let (convert, labels_flag, json) = ("convert".as_ref(), "--labels".as_ref(), "--json".as_ref());
    let made = run(&[convert, &tflite, &gguf, labels_flag, &labels, json]);
    let made = document(&made);
    assert_eq!(made["architecture"], "qcnn");
    assert_eq!(made["bytesAfter"], std::fs::metadata(&gguf).unwrap().len());
    let told = document(&run(&["info".as_ref(), &tflite, json]));
    assert_eq!([&told["container"], &told["architecture"]], ["tflite", "qcnn"]);
    let direct = document(&run(&["classify".as_ref(), &tflite, &photo, json]));
    let result = document(&run(&["classify".as_ref(), &gguf, &photo, json]));
    let best = |document: &Value| document["results"][0]["top"][0].clone();
    assert_eq!(best(&result)["index"], 286);
    assert!(
        best(&result)["label"].as_str().unwrap().contains("cat") || best(&result)["label"] == "cougar",
        "{result}"
    );
    assert_eq!(best(&direct)["logit"], best(&result)["logit"], "loaded as it is, it computes the same");
}

#[test]
fn failures_are_errors_and_leave_no_file() {
    let folder = folder("convert_faults");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let out = folder.join("out.gguf");
    for (input, code) in [
        (data.join("torch/hostile.pth"), "UnsupportedArch"),
        (data.join("torch/zip.pth"), "UnsupportedArch"),
        (data.join("cnn_goldens.py"), "BadMagic"),
        (folder.join("absent.pth"), "Io"),
    ] {
        let output = run(&["convert".as_ref(), &input, &out]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(&format!("error[{code}]")), "{message}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{message}");
    }
    assert_eq!(run(&["convert".as_ref(), &out]).status.code(), Some(2));
}
