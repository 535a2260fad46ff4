//! Takes back the relaxed float operations that LLVM chooses of its own accord.
//!
//! With relaxed SIMD enabled, LLVM writes plain comparisons-and-selects of vectors (what
//! `f32x4.pmin` and `pmax` are by definition) as `relaxed_min` and `relaxed_max`, whose result
//! for NaN and for zeros of both signs is the engine's to decide. This build is there for an
//! integer operation, and its floats have to be those of the plain build. Both kinds take the
//! same operands in the same order and are encoded in as many bytes, so that one can stand in
//! place of the other.

use wasmparser::{Operator, Parser, Payload};

/// Replaces them in a module; returns how many there were.
pub fn restore(wasm: &mut [u8]) -> Result<usize, String> {
    let found = relaxed_extremes(wasm).map_err(|error| error.to_string())?;
    for &(at, plain) in &found {
        let opcode = wasm.get_mut(at + 1..at + 3).ok_or("an instruction beyond the end")?;
        opcode.copy_from_slice(&plain);
    }
    Ok(found.len())
}

/// Where they stand, and the opcode (after the SIMD prefix, LEB128) of the plain one.
fn relaxed_extremes(wasm: &[u8]) -> wasmparser::Result<Vec<(usize, [u8; 2])>> {
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::CodeSectionEntry(body) = payload? else { continue };
        for item in body.get_operators_reader()?.into_iter_with_offsets() {
            let (op, at) = item?;
            match op {
                Operator::F32x4RelaxedMin => found.push((at, [0xea, 0x01])),
                Operator::F32x4RelaxedMax => found.push((at, [0xeb, 0x01])),
                Operator::F64x2RelaxedMin => found.push((at, [0xf6, 0x01])),
                Operator::F64x2RelaxedMax => found.push((at, [0xf7, 0x01])),
                _ => {}
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with one function: a zero vector twice, the operation, the end.
    fn module(opcode: [u8; 2]) -> Vec<u8> {
        let zero = [0x41, 0, 0xfd, 15]; // i32.const 0, i8x16.splat
        let body = [&[0][..], &zero, &zero, &[0xfd], &opcode, &[0x0b]].concat();
        let n = body.len() as u8;
        let head = [&b"\0asm\x01\0\0\0"[..], &[1, 5, 1, 0x60, 0, 1, 0x7b], &[3, 2, 1, 0]].concat();
        [&head[..], &[10, n + 2, 1, n], &body].concat()
    }

    #[test]
    fn minima_and_maxima_become_the_plain_ones() {
        // By the numbers in the two proposals: relaxed_min 0x10d, .. and pmin 0xea, ..
        let pairs = [(0x10d, 0xea), (0x10e, 0xeb), (0x10f, 0xf6), (0x110, 0xf7)];
        let leb = |n: u16| [(n & 0x7f) as u8 | 0x80, (n >> 7) as u8];
        for (relaxed, plain) in pairs {
            let mut wasm = module(leb(relaxed));
            assert_eq!(restore(&mut wasm), Ok(1));
            assert_eq!(wasm, module(leb(plain)));
            assert_eq!(restore(&mut wasm), Ok(0));
        }
    }

    #[test]
    fn other_operations_and_other_files_stay() {
        let mut swizzle = module([0x80, 0x02]);
        let before = swizzle.clone();
        assert_eq!(restore(&mut swizzle), Ok(0));
        assert_eq!(swizzle, before);
        assert!(restore(&mut b"not wasm".to_vec()).is_err());
    }
}
