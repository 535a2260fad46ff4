//! The tests of what reads files, as tests of this crate alone.
#![cfg(not(target_arch = "wasm32"))]

extern crate bitpane_core as bitpane;

#[path = "../../tests/container.rs"]
mod container;
#[path = "../../tests/faults_container.rs"]
mod faults_container;
#[path = "../../tests/readers.rs"]
mod readers;
