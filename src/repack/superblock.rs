//! Tiles of 256 k x 16 columns with integer sub-scales: the K-quants and the ternary types.
//!
//! ```text
//! scales   [n_sub][16 columns] i8, where the kind has sub-scales
//! codes    8 chunks of 32 k, each `bits * 64` bytes: one or two bit planes
//! mins     [n_sub / 4][4 column groups] 16 bytes, byte 4j+q: column 4c+j, sub-block 4g+q; u8
//! d        16 f32
//! dmin     16 f32, where the kind has mins
//! ```
//! The parts stand in the order of first use, so that decoding touches new cache lines strictly
//! forward: with the scales behind the codes, memory delivered half as fast.
//!
//! A plane of w-bit fields holds F = 8 / w units per vector, a unit being 4 consecutive k of
//! 4 columns: vector (v, c), byte 4j+b, field f is column 4c+j, k = 4 (v F + f) + b. Kinds of
//! 3, 5 and 6 bits have a second plane for the upper bits.
//!
//! Kinds of 2 bits ([`SuperKind::in_fields`]) differ, so that a field belongs to one sub-block and
//! need not be shifted down: codes are 4 chunks of 64 k in which vector (v, c), byte 4j+b, field f is
//! column 4c+j, k = 16 f + 4 v + b; scales are `[n_sub / 4][4 column groups]` 16 bytes, byte 4j+q
//! being column 4c+j, sub-block 4g + (0, 2, 1, 3)[q].

use super::NR;
use crate::quant::superblock::SuperBlock;

/// k per tile.
pub const SUPER_K: usize = 256;

/// A kind of tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuperKind {
    /// Bits of the lower plane's fields: 2 or 4.
    pub low_bits: usize,
    /// Bits of the upper plane's fields: 0, 1 or 2.
    pub high_bits: usize,
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
        self.low_bits == 2 && self.high_bits == 0
    }

    /// Where the scale of a sub-block is.
    const fn scale_at(self, sub: usize, column: usize) -> usize {
        const PLACE: [usize; 4] = [0, 2, 1, 3];
        if self.in_fields() { sub / 4 * 64 + column * 4 + PLACE[sub % 4] } else { sub * NR + column }
    }

    /// Largest code.
    pub const fn max_code(self) -> i32 {
        (1 << (self.low_bits + self.high_bits)) - 1
    }

    /// Bytes of the codes of 32 k.
    pub const fn chunk_bytes(self) -> usize {
        (self.low_bits + self.high_bits) * 64
    }

    /// Where the codes begin, after the scales.
    pub const fn codes_at(self) -> usize {
        self.n_sub() * NR
    }

    /// Where the minima begin.
    pub const fn mins_at(self) -> usize {
        self.codes_at() + 8 * self.chunk_bytes()
    }

    /// Where the scales of the scales begin.
    pub const fn d_at(self) -> usize {
        self.mins_at() + if self.has_min { self.n_sub() * NR } else { 0 }
    }

    /// Bytes of a tile.
    pub const fn tile_bytes(self) -> usize {
        self.d_at() + NR * 4 * (1 + self.has_min as usize)
    }

    /// Writes one block down one column of a zeroed tile.
    pub fn write(self, tile: &mut [u8], column: usize, block: &SuperBlock) {
        for (k, &code) in block.codes.iter().enumerate() {
            if self.in_fields() {
                let (byte, shift) = field_place(column, k);
                tile[self.codes_at() + byte] |= code << shift;
                continue;
            }
            let chunk = &mut tile[self.codes_at() + k / 32 * self.chunk_bytes()..][..self.chunk_bytes()];
            let (low, high) = chunk.split_at_mut(self.low_bits * 64);
            put(low, self.low_bits, column, k % 32, code & ((1 << self.low_bits) - 1));
            if self.high_bits > 0 {
                put(high, self.high_bits, column, k % 32, code >> self.low_bits);
            }
        }
        for sub in 0..self.n_sub() {
            let from = sub * self.sub_len / 16;
            tile[self.scale_at(sub, column)] = block.scales[from] as i8 as u8;
            if self.has_min {
                tile[self.mins_at() + min_place(sub, column)] = block.mins[from] as u8;
            }
        }
        tile[self.d_at() + column * 4..][..4].copy_from_slice(&block.d.to_le_bytes());
        if self.has_min {
            tile[self.d_at() + NR * 4 + column * 4..][..4].copy_from_slice(&block.dmin.to_le_bytes());
        }
    }

    /// Reads one column of a tile back; fields that the kind lacks are 1 (scales) and 0 (mins).
    pub fn read(self, tile: &[u8], column: usize, block: &mut SuperBlock) {
        for (k, code) in block.codes.iter_mut().enumerate() {
            if self.in_fields() {
                let (byte, shift) = field_place(column, k);
                *code = tile[self.codes_at() + byte] >> shift & 3;
                continue;
            }
            let chunk = &tile[self.codes_at() + k / 32 * self.chunk_bytes()..][..self.chunk_bytes()];
            let (low, high) = chunk.split_at(self.low_bits * 64);
            *code = get(low, self.low_bits, column, k % 32);
            if self.high_bits > 0 {
                *code |= get(high, self.high_bits, column, k % 32) << self.low_bits;
            }
        }
        for i in 0..16 {
            let sub = i * 16 / self.sub_len;
            let has_scale = self.n_sub() > 0;
            let scale = if has_scale { tile[self.scale_at(sub, column)] as i8 } else { 1 };
            block.scales[i] = i16::from(scale);
            let min = if self.has_min { tile[self.mins_at() + min_place(sub, column)] } else { 0 };
            block.mins[i] = i16::from(min);
        }
        let float = |at: usize| f32::from_le_bytes(tile[at + column * 4..][..4].try_into().unwrap());
        block.d = float(self.d_at());
        block.dmin = if self.has_min { float(self.d_at() + NR * 4) } else { 0.0 };
    }
}

fn min_place(sub: usize, column: usize) -> usize {
    sub / 4 * 64 + column * 4 + sub % 4
}

/// (byte, shift) of a field in a plane of 32 k.
fn place(bits: usize, column: usize, k: usize) -> (usize, usize) {
    let fields = 8 / bits;
    let unit = k / 4;
    ((unit / fields * 4 + column / 4) * 16 + column % 4 * 4 + k % 4, unit % fields * bits)
}

/// (byte, shift) of a code where fields belong to sub-blocks.
fn field_place(column: usize, k: usize) -> (usize, usize) {
    (k / 64 * 256 + k / 4 % 4 * 64 + column * 4 + k % 4, k / 16 % 4 * 2)
}

fn put(plane: &mut [u8], bits: usize, column: usize, k: usize, code: u8) {
    let (byte, shift) = place(bits, column, k);
    plane[byte] |= code << shift;
}

fn get(plane: &[u8], bits: usize, column: usize, k: usize) -> u8 {
    let (byte, shift) = place(bits, column, k);
    plane[byte] >> shift & ((1 << bits) - 1)
}
