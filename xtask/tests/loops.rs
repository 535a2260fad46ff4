//! How many instructions the kernels' innermost loops take: a guard against regressions that timings on
//! shared machines cannot see (values rebuilt in a loop, addresses computed anew, more steps per product).

use std::fs;
use std::path::Path;

use wasmparser::{Operator, Parser, Payload};

/// An innermost loop with products.
#[derive(Clone, Copy, Debug, Default)]
struct Loop {
    /// Products of the two relaxed kinds, and of pairs of i16.
    dots: [usize; 3],
    /// Vector constants and splats of scalars that are made in the loop.
    literals: usize,
    /// Instructions that the engine turns into code: neither locals nor the structure of blocks.
    ops: usize,
}

const FOUR: usize = 0;
const PAIRS: usize = 1;
const WORDS: usize = 2;

impl Loop {
    fn add(&mut self, op: &Operator) {
        match op {
            Operator::LocalGet { .. } | Operator::LocalSet { .. } | Operator::LocalTee { .. } => return,
            Operator::I32Const { .. } | Operator::Block { .. } | Operator::End | Operator::Drop => return,
            Operator::I32x4RelaxedDotI8x16I7x16AddS => self.dots[FOUR] += 1,
            Operator::I16x8RelaxedDotI8x16I7x16S => self.dots[PAIRS] += 1,
            Operator::I32x4DotI16x8S => self.dots[WORDS] += 1,
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

    fn ops_per_dot(&self) -> f64 {
        self.ops as f64 / self.n_dots() as f64
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

#[test]
fn show() {
    let file = std::env::var("FILE").unwrap();
    let mut loops = dot_loops(&fs::read(Path::new(&file)).unwrap());
    loops.sort_by(|a, b| (a.kind(), a.ops_per_dot()).partial_cmp(&(b.kind(), b.ops_per_dot())).unwrap());
    for l in loops {
        println!("{} {:5.2} {:?}", l.kind(), l.ops_per_dot(), l);
    }
}
