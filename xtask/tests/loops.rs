//! How many instructions the kernels' innermost loops take: a guard against regressions that timings on
//! shared machines cannot see (values rebuilt in a loop, addresses computed anew, more steps per product).

use std::fs;
use std::path::Path;

use wasmparser::{Operator, Parser, Payload};

/// An innermost loop with products.
#[derive(Clone, Copy, Debug, Default)]
struct Loop {
    /// Products by kind.
    dots: [usize; 4],
    /// Vector constants and splats of scalars that are made in the loop.
    literals: usize,
    /// Instructions that the engine turns into code, and the loop: neither locals nor the structure of blocks.
    ops: usize,
}

/// Kinds of products: of four bytes, of pairs of bytes, of pairs of i16, of bytes.
const FOUR: usize = 0;
const PAIRS: usize = 1;
const WORDS: usize = 2;
const BYTES: usize = 3;

impl Loop {
    fn add(&mut self, op: &Operator) {
        match op {
            Operator::LocalGet { .. } | Operator::LocalSet { .. } | Operator::LocalTee { .. } => return,
            Operator::I32Const { .. } | Operator::I64Const { .. } => return,
            Operator::Block { .. } | Operator::End | Operator::Drop => return,
            Operator::I32x4RelaxedDotI8x16I7x16AddS => self.dots[FOUR] += 1,
            Operator::I16x8RelaxedDotI8x16I7x16S => self.dots[PAIRS] += 1,
            Operator::I32x4DotI16x8S => self.dots[WORDS] += 1,
            Operator::I16x8ExtMulLowI8x16S | Operator::I16x8ExtMulHighI8x16S => self.dots[BYTES] += 1,
            Operator::V128Const { .. } | Operator::I8x16Splat | Operator::I16x8Splat => self.literals += 1,
            Operator::I32x4Splat | Operator::F32x4Splat => self.literals += 1,
            _ => {}
        }
        self.ops += 1;
    }

    fn n_dots(&self) -> usize {
        self.dots.iter().sum()
    }

    /// The kind of product that it mostly consists of.
    fn kind(&self) -> usize {
        (0..self.dots.len()).max_by_key(|&kind| self.dots[kind]).unwrap_or_default()
    }
}

/// The innermost loops of a module that have at least [`MIN_DOTS`] products.
fn dot_loops(wasm: &[u8]) -> Vec<Loop> {
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::CodeSectionEntry(body) = payload.expect("a well-formed module") else { continue };
        // For every open block, the loop that begins there, if it is one.
        let mut open: Vec<Option<Loop>> = vec![None];
        for op in body.get_operators_reader().expect("a function body") {
            let op = op.expect("a known instruction");
            match op {
                Operator::Loop { .. } => {
                    // Those around it are not innermost.
                    open.iter_mut().for_each(|block| *block = None);
                    open.push(Some(Loop::default()));
                }
                Operator::Block { .. } | Operator::If { .. } => open.push(None),
                Operator::End => {
                    if let Some(Some(done)) = open.pop()
                        && done.n_dots() >= MIN_DOTS
                    {
                        found.push(done);
                    }
                }
                _ => {}
            }
            if let Some(inner) = open.iter_mut().rev().find_map(|block| block.as_mut()) {
                inner.add(&op);
            }
        }
    }
    found
}

/// Products below which a loop is none of those that matter.
const MIN_DOTS: usize = 8;

/// At least `least` loops of a build have so many products of a kind, at most so many instructions and at
/// most so many vectors made from constants or numbers.
struct Bound {
    least: usize,
    kind: usize,
    n_dots: usize,
    ops: usize,
    literals: usize,
}

const fn bound(least: usize, kind: usize, n_dots: usize, ops: usize, literals: usize) -> Bound {
    Bound { least, kind, n_dots, ops, literals }
}

/// Loops that both instruction sets have: the plain path.
const EVERYWHERE: &[Bound] = &[
    bound(12, WORDS, 8, 28, 0),  // prompts, 4 rows
    bound(2, WORDS, 16, 70, 0),  // decoding 4-bit codes
    bound(1, WORDS, 8, 45, 0),   // decoding 2-bit codes
    bound(1, WORDS, 64, 359, 0), // decoding 3-bit codes
    bound(2, WORDS, 64, 381, 1), // and those of 5 bits
    bound(1, WORDS, 32, 192, 1), // and of 6, half as many at a time
];
const PLAIN: &[Bound] = &[
    bound(8, BYTES, 16, 44, 0),  // prompts
    bound(14, BYTES, 16, 54, 0), // and decoding 4-bit and 2-bit codes
];
const RELAXED: &[Bound] = &[
    bound(12, FOUR, 10, 23, 0), // prompts, 5 rows
    bound(8, FOUR, 8, 30, 0),   // decoding 4-bit codes, and 2-bit codes with sub-scales
    bound(11, FOUR, 8, 32, 0),  // and ternary ones, and 8-bit codes that are read signed
    bound(12, FOUR, 8, 39, 0),  // and unsigned
    // Both readings of bytes come to the same code.
    bound(2, FOUR, 32, 208, 0),  // decoding codes of 3 and 5 bits
    bound(1, FOUR, 16, 107, 0),  // and of 6, half as many at a time
    bound(6, PAIRS, 8, 28, 0),   // prompts, 4 rows
    bound(10, PAIRS, 8, 38, 0),  // and decoding codes of 4 and 2 bits
    bound(2, PAIRS, 32, 244, 0), // decoding codes of 3 and 5 bits
    bound(1, PAIRS, 16, 123, 0), // and of 6, half as many at a time
];

#[test]
fn loops_take_no_more_instructions_than_they_did() {
    for (name, bounds) in [("simd128", PLAIN), ("relaxed", RELAXED), ("relaxed64", RELAXED)] {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/builds").join(format!("{name}.wasm"));
        let wasm = fs::read(&file)
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` makes it", file.display()));
        let found = dot_loops(&wasm);
        for of in EVERYWHERE.iter().chain(bounds) {
            let of_shape = |l: &&Loop| l.kind() == of.kind && l.dots[of.kind] == of.n_dots;
            let good = |l: &&Loop| of_shape(l) && l.ops <= of.ops && l.literals <= of.literals;
            let n = found.iter().filter(good).count();
            let shown: Vec<&Loop> = found.iter().filter(of_shape).collect();
            assert!(
                n >= of.least,
                "{name}: {n} loops of {} products of kind {} within {} instructions and {} literals, not {}: {shown:#?}",
                of.n_dots,
                of.kind,
                of.ops,
                of.literals,
                of.least
            );
        }
    }
}

/// A module with a loop of eight products, and a constant beside them where asked for.
fn module(with_literal: bool) -> Vec<u8> {
    let zero = [0x41, 0, 0xfd, 15]; // i32.const 0, i8x16.splat
    let dot = [&zero[..], &[0xfd, 0xba, 0x01]].concat(); // i32x4.dot_i16x8_s
    let literal: &[u8] = if with_literal { &[0x41, 0, 0xfd, 15, 0x1a] } else { &[] }; // and drop
    let products = [&[0x20, 0][..], &dot.repeat(8), &[0x21, 0], literal].concat();
    // One v128 local; block, loop, the products, two ends; the local.
    let body = [&[1, 1, 0x7b, 0x02, 0x40, 0x03, 0x40][..], &products, &[0x0b, 0x0b, 0x20, 0, 0x0b]].concat();
    let n = body.len() as u8;
    let head = [&b"\0asm\x01\0\0\0"[..], &[1, 5, 1, 0x60, 0, 1, 0x7b], &[3, 2, 1, 0]].concat();
    [&head[..], &[10, n + 2, 1, n], &body].concat()
}

#[test]
fn the_scan_counts_what_is_in_a_loop() {
    let count = |with_literal| {
        let [found] = dot_loops(&module(with_literal))[..] else { panic!("one loop") };
        (found.dots, found.ops, found.literals)
    };
    assert_eq!(count(false), ([0, 0, 8, 0], 17, 8));
    assert_eq!(count(true), ([0, 0, 8, 0], 18, 9));
}
