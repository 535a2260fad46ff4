//! The taps of a convolution's outputs as rows of a matrix.

use super::{Map, Window};
use std::ops::Range;

/// The taps of some outputs, each row filled up to a multiple of four; `zero` stands for what is outside of the map.
pub(super) fn rows(
    input: Map,
    zero: u8,
    window: &Window,
    out_width: usize,
    outputs: Range<usize>,
    to: &mut Vec<u8>,
) {
    let k = (window.n_taps() * input.channels).next_multiple_of(4);
    to.clear();
    to.resize(outputs.len() * k, zero);
    let (mut to, mut at) = (&mut **to, outputs.start);
    while at < outputs.end {
        // Outputs of one row of the map.
        let (y, x) = (at / out_width, at % out_width);
        let n = (out_width - x).min(outputs.end - at);
        let (part, rest) = to.split_at_mut(n * k);
        for ky in 0..window.size[0] {
            let Some(iy) = window.input(0, y, ky, input.height) else { continue };
            let line = &input.data[iy * input.width * input.stride..][..input.width * input.stride];
            let first = ky * window.size[1] * input.channels;
            taps(input, line, window, x, part.chunks_exact_mut(k).map(|row| &mut row[first..]));
        }
        (to, at) = (rest, at + n);
    }
}

/// The taps on one line of the map, of outputs from `x` on.
fn taps<'a>(input: Map, line: &[u8], window: &Window, x: usize, rows: impl Iterator<Item = &'a mut [u8]>) {
    let (c, columns, pad) = (input.channels, window.size[1], window.pad[1]);
    // Taps beside each other lie beside each other in the map, too.
    let are_runs = input.stride == c && window.dilation[1] == 1;
    for (x, row) in (x..).zip(rows) {
        let left = x * window.stride[1];
        if are_runs && left >= pad && left - pad + columns <= input.width {
            copy(&line[(left - pad) * c..][..columns * c], &mut row[..columns * c]);
            continue;
        }
        for kx in 0..columns {
            let Some(ix) = window.input(1, x, kx, input.width) else { continue };
            copy(&line[ix * input.stride..][..c], &mut row[kx * c..][..c]);
        }
    }
}

/// Runs are short, and copying by call costs more than this.
#[inline(always)]
fn copy(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len());
    let n = from.len();
    if n < 8 {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        return;
    }
    for (to, from) in to.as_chunks_mut::<8>().0.iter_mut().zip(from.as_chunks::<8>().0) {
        *to = *from;
    }
    // The last eight, some of them once more.
    to[n - 8..].copy_from_slice(&from[n - 8..]);
}
