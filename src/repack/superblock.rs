//! Tiles of 256 k x 16 columns with integer sub-scales: the K-quants and the ternary types.
//!
//! ```text
//! scales   [n_sub][16 columns] i8, where the kind has sub-scales
//! codes    8 chunks of 32 k, each `bits * 64` bytes
//! mins     [n_sub / 4][4 column groups] 16 bytes, byte 4j+q: column 4c+j, sub-block 4g+q; u8
//! d        16 f16, as [`half_place`] has them
//! dmin     16 f16, where the kind has mins
//! ```
//! The parts stand in the order of first use, so that decoding touches new cache lines strictly
//! forward: with the scales behind the codes, memory delivered half as fast.
//!
//! A chunk is 8 units of 4 consecutive k: byte 4j+b of vector (v, c) belongs to column 4c+j and to
//! k = 4 unit + b of the units that [`pieces`] puts into vector v. Where a width does not divide 8, the lowest
//! bits of each byte are one unit, whole, and what bytes have left over makes the others: most units then cost
//! one mask, where a plane of lower and one of upper bits would cost shifts, masks and an "or" for each.
//!
//! Kinds of 2 bits ([`SuperKind::in_fields`]) differ, so that a field belongs to one sub-block and
//! need not be shifted down: codes are 4 chunks of 64 k in which vector (v, c), byte 4j+b, field f is
//! column 4c+j, k = 16 f + 4 v + b; scales are `[n_sub / 4][4 column groups]` 16 bytes, byte 4j+q
//! being column 4c+j, sub-block 4g+q, the scale in the low and the minimum in the high nibble.

use super::{NR, half_place};
use crate::quant::superblock::SuperBlock;
use half::f16;

/// k per tile.
pub const SUPER_K: usize = 256;

/// A kind of tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuperKind {
    /// Bits of a code: 2 to 6.
    pub bits: usize,
    /// Subtracted from every code.
    pub offset: u8,
    /// k per sub-scale: 16 or 32; 256 where there are no sub-scales.
    pub sub_len: usize,
    /// Whether each sub-block has a minimum.
    pub has_min: bool,
}

impl SuperKind {
    /// Sub-blocks with a scale; 0 where there are no sub-scales.
    pub const fn n_sub(self) -> usize {
        if self.sub_len == SUPER_K { 0 } else { SUPER_K / self.sub_len }
    }

    /// Whether a field of the codes belongs to one sub-block.
    pub const fn in_fields(self) -> bool {
        self.bits == 2
    }

    /// Whether a scale and its minimum share a byte.
    pub const fn in_nibbles(self) -> bool {
        self.in_fields() && self.has_min
    }

    /// Where the scale of a sub-block is.
    const fn scale_at(self, sub: usize, column: usize) -> usize {
        if self.in_fields() { min_place(sub, column) } else { sub * NR + column }
    }

    /// Largest code.
    pub const fn max_code(self) -> i32 {
        (1 << self.bits) - 1
    }

    /// Bytes of the codes of 32 k.
    pub const fn chunk_bytes(self) -> usize {
        self.bits * 64
    }

    /// Where the codes begin, after the scales.
    pub const fn codes_at(self) -> usize {
        self.n_sub() * NR
    }

    /// Where the minima begin.
    pub const fn mins_at(self) -> usize {
        if self.in_nibbles() { 0 } else { self.codes_at() + 8 * self.chunk_bytes() }
    }

    /// Where the scales of the scales begin.
    pub const fn d_at(self) -> usize {
        let mins = if self.has_min && !self.in_nibbles() { self.n_sub() * NR } else { 0 };
        self.codes_at() + 8 * self.chunk_bytes() + mins
    }

    /// Bytes of a tile.
    pub const fn tile_bytes(self) -> usize {
        self.d_at() + NR * 2 * (1 + self.has_min as usize)
    }

    /// Writes one block down one column of a zeroed tile.
    pub fn write(self, tile: &mut [u8], column: usize, block: &SuperBlock) {
        let codes = &mut tile[self.codes_at()..];
        if self.in_fields() {
            for (k, &code) in block.codes.iter().enumerate() {
                let (byte, shift) = field_place(column, k);
                codes[byte] |= code << shift;
            }
        } else {
            let chunks = codes.chunks_exact_mut(self.chunk_bytes());
            for (chunk, codes) in chunks.zip(block.codes.chunks_exact(32)) {
                for piece in pieces(self.bits) {
                    let to = &mut chunk[piece.place(column)..][..4];
                    for (to, code) in to.iter_mut().zip(&codes[4 * piece.unit..]) {
                        *to |= (code >> piece.from & piece.mask()) << piece.at;
                    }
                }
            }
        }
        for sub in 0..self.n_sub() {
            let from = sub * self.sub_len / 16;
            tile[self.scale_at(sub, column)] = block.scales[from] as i8 as u8;
            if self.in_nibbles() {
                tile[self.mins_at() + min_place(sub, column)] |= (block.mins[from] as u8) << 4;
            } else if self.has_min {
                tile[self.mins_at() + min_place(sub, column)] = block.mins[from] as u8;
            }
        }
        let mut put = |first: usize, d: f32| {
            let short = f16::from_f32(d);
            debug_assert!(short.to_f32() == d || !d.is_finite(), "{d} is not an f16");
            tile[first + half_place(column)..][..2].copy_from_slice(&short.to_le_bytes());
        };
        put(self.d_at(), block.d);
        if self.has_min {
            put(self.d_at() + NR * 2, block.dmin);
        }
    }

    /// Reads one column of a tile back; fields that the kind lacks are 1 (scales) and 0 (mins).
    pub fn read(self, tile: &[u8], column: usize, block: &mut SuperBlock) {
        let codes = &tile[self.codes_at()..];
        if self.in_fields() {
            for (k, code) in block.codes.iter_mut().enumerate() {
                let (byte, shift) = field_place(column, k);
                *code = codes[byte] >> shift & 3;
            }
        } else {
            block.codes.fill(0);
            let chunks = codes.chunks_exact(self.chunk_bytes());
            for (chunk, codes) in chunks.zip(block.codes.chunks_exact_mut(32)) {
                for piece in pieces(self.bits) {
                    let from = &chunk[piece.place(column)..][..4];
                    for (code, from) in codes[4 * piece.unit..].iter_mut().zip(from) {
                        *code |= (from >> piece.at & piece.mask()) << piece.from;
                    }
                }
            }
        }
        for i in 0..16 {
            let sub = i * 16 / self.sub_len;
            let scale = if self.n_sub() > 0 { tile[self.scale_at(sub, column)] } else { 1 };
            let min = if self.has_min { tile[self.mins_at() + min_place(sub, column)] } else { 0 };
            let in_nibbles = self.in_nibbles();
            block.scales[i] = if in_nibbles { i16::from(scale & 15) } else { i16::from(scale as i8) };
            block.mins[i] = i16::from(if in_nibbles { min >> 4 } else { min });
        }
        let float = |first: usize| {
            f16::from_le_bytes(tile[first + half_place(column)..][..2].try_into().unwrap()).to_f32()
        };
        block.d = float(self.d_at());
        block.dmin = if self.has_min { float(self.d_at() + NR * 2) } else { 0.0 };
    }
}

/// Bits of the codes of a unit (of 8 in a chunk) and where they are.
#[derive(Clone, Copy)]
struct Piece {
    unit: usize,
    /// The first of the code's bits.
    from: u32,
    /// How many.
    n: u32,
    /// In which vector of a column group.
    vector: usize,
    /// From which bit of its bytes on.
    at: u32,
}

impl Piece {
    /// The first of a column's four bytes in a chunk.
    fn place(self, column: usize) -> usize {
        (self.vector * 4 + column / 4) * 16 + column % 4 * 4
    }

    fn mask(self) -> u8 {
        (1 << self.n) - 1
    }
}

const fn piece(unit: usize, from: u32, n: u32, vector: usize, at: u32) -> Piece {
    Piece { unit, from, n, vector, at }
}

/// Where the codes of a chunk are. The kernels' `units` take them out again.
fn pieces(bits: usize) -> &'static [Piece] {
    const THREE: [Piece; 10] = [
        piece(0, 0, 3, 0, 0),
        piece(1, 0, 3, 0, 3),
        piece(2, 0, 3, 1, 0),
        piece(3, 0, 3, 1, 3),
        piece(4, 0, 3, 2, 0),
        piece(5, 0, 3, 2, 3),
        piece(6, 0, 2, 0, 6),
        piece(6, 2, 1, 1, 6),
        piece(7, 0, 2, 2, 6),
        piece(7, 2, 1, 1, 7),
    ];
    const FOUR: [Piece; 8] = [
        piece(0, 0, 4, 0, 0),
        piece(1, 0, 4, 0, 4),
        piece(2, 0, 4, 1, 0),
        piece(3, 0, 4, 1, 4),
        piece(4, 0, 4, 2, 0),
        piece(5, 0, 4, 2, 4),
        piece(6, 0, 4, 3, 0),
        piece(7, 0, 4, 3, 4),
    ];
    const FIVE: [Piece; 12] = [
        piece(0, 0, 5, 0, 0),
        piece(1, 0, 5, 1, 0),
        piece(2, 0, 5, 2, 0),
        piece(3, 0, 5, 3, 0),
        piece(4, 0, 5, 4, 0),
        piece(5, 0, 3, 0, 5),
        piece(5, 3, 2, 1, 5),
        piece(6, 0, 3, 2, 5),
        piece(6, 3, 2, 3, 5),
        piece(7, 0, 3, 4, 5),
        piece(7, 3, 1, 1, 7),
        piece(7, 4, 1, 3, 7),
    ];
    const SIX: [Piece; 12] = [
        piece(0, 0, 6, 0, 0),
        piece(1, 0, 6, 1, 0),
        piece(2, 0, 6, 2, 0),
        piece(3, 4, 2, 0, 6),
        piece(3, 2, 2, 1, 6),
        piece(3, 0, 2, 2, 6),
        piece(4, 0, 6, 3, 0),
        piece(5, 0, 6, 4, 0),
        piece(6, 0, 6, 5, 0),
        piece(7, 4, 2, 3, 6),
        piece(7, 2, 2, 4, 6),
        piece(7, 0, 2, 5, 6),
    ];
    match bits {
        3 => &THREE,
        4 => &FOUR,
        5 => &FIVE,
        6 => &SIX,
        _ => unreachable!("no chunks of {bits} bits"),
    }
}

const fn min_place(sub: usize, column: usize) -> usize {
    sub / 4 * 64 + column * 4 + sub % 4
}

/// (byte, shift) of a code where fields belong to sub-blocks.
fn field_place(column: usize, k: usize) -> (usize, usize) {
    (k / 64 * 256 + k / 4 % 4 * 64 + column * 4 + k % 4, k / 16 % 4 * 2)
}
