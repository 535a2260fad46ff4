//! File order to kernel order: the layouts that the kernels read, and the packer that fills
//! them while bytes arrive.
//!
//! A weight matrix `[n, k]` (n outputs, k inputs) is cut into strips of [`NR`] = 16 columns
//! of the product, that is 16 consecutive file rows. A strip is contiguous in memory and runs
//! along k, so one thread reads one forward stream.
//!
//! ```text
//! float strip: k times 16 elements
//! U4 tile (16 columns x 32 k, 288 bytes): for g in 0..4, c in 0..4: 16 bytes, where byte 4j+b
//!     holds column 4c+j, low nibble k = 4g+b, high nibble k = 16+4g+b; then 16 f16 scales
//! I8Half tile (16 columns x 32 k, 544 bytes): for g in 0..8, c in 0..4: 16 bytes, where byte 4j+b
//!     holds column 4c+j, k = 4g+b; then 16 f16 scales
//! I8 tile (576 bytes): the same with f32 scales, for types whose scales are not f16
//! Bits block (16 columns x 128 k, 320 bytes): 4 tiles of 32 k, then 16 f32 scales. Tile: for v in
//!     0..4: 16 bytes, where byte 4i+c holds column 4c+i, bit b k = 8v+b; a set bit is the scale, a
//!     clear one minus the scale
//! ```
//! 16 f16 scales are two vectors of 8, where i16 2j+h of vector i belongs to column 8i+4h+j: so shifts, not
//! shuffles, make four f32 of them ([`half_place`]).
//!
//! Four consecutive k per 32-bit lane is the operand shape of every dot instruction, so the
//! sums of a column stay in one lane and no horizontal sum is ever needed.

#![allow(unsafe_code)]

mod aligned;
mod packer;
mod superblock;

pub use aligned::{AlignedBytes, CacheLines};
pub use packer::Packer;
pub use superblock::{SUPER_K, SuperKind};

use crate::quant::superblock::SuperBlock;
use half::{bf16, f16};

/// Columns (outputs) per strip.
pub const NR: usize = 16;
/// k per tile, and per scale.
pub const TILE_K: usize = 32;
/// Bytes of the scales that end an integer tile.
pub const TILE_SCALE_BYTES: usize = NR * 4;

/// k per scale of [`Packing::Bits`].
pub const BIT_SCALE_K: usize = 128;
/// Bytes of 32 k of bits.
const BIT_TILE_BYTES: usize = NR * TILE_K / 8;
/// Bytes of 128 k of bits and their scales.
const BIT_BLOCK_BYTES: usize = BIT_SCALE_K / TILE_K * BIT_TILE_BYTES + TILE_SCALE_BYTES;

/// The byte at which the f16 scale of a column begins.
pub const fn half_place(column: usize) -> usize {
    column / 8 * 16 + column % 4 * 4 + column / 4 % 2 * 2
}

/// Where the codes and the scales of tile `t` are in a strip of bits.
#[inline(always)]
pub const fn bit_tile(t: usize) -> (usize, usize) {
    const TILES: usize = BIT_SCALE_K / TILE_K;
    let block = t / TILES * BIT_BLOCK_BYTES;
    (block + t % TILES * BIT_TILE_BYTES, block + TILES * BIT_TILE_BYTES)
}

/// (byte, bit) of a sign in a tile of bits; k < 32.
const fn bit_place(column: usize, k: usize) -> (usize, usize) {
    (k / 8 * 16 + column % 4 * 4 + column / 4, k % 8)
}

/// How the elements of a packed matrix are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// f32 as they are.
    F32,
    /// f16 as they are.
    F16,
    /// bf16 as they are.
    Bf16,
    /// 4-bit codes with offset 8, one f16 scale per 32.
    U4,
    /// 8-bit signed codes, one f16 scale per 32.
    I8Half,
    /// 8-bit signed codes, one f32 scale per 32.
    I8,
    /// Signs, one f32 scale per 128.
    Bits,
    /// Codes of 2 to 6 bits with integer sub-scales in blocks of 256.
    Super(SuperKind),
}

impl Packing {
    /// Bytes of 16 columns times `k`; `k` is a multiple of 32 for the integer packings.
    pub const fn strip_bytes(self, k: usize) -> usize {
        match self {
            Packing::F32 => k * NR * 4,
            Packing::F16 | Packing::Bf16 => k * NR * 2,
            Packing::U4 | Packing::I8 | Packing::I8Half => k / TILE_K * self.tile_bytes(),
            Packing::Bits => k / BIT_SCALE_K * BIT_BLOCK_BYTES,
            Packing::Super(kind) => k / SUPER_K * kind.tile_bytes(),
        }
    }

    /// Bytes of one tile of an integer packing.
    pub const fn tile_bytes(self) -> usize {
        self.tile_code_bytes() + if self.has_half_scales() { NR * 2 } else { TILE_SCALE_BYTES }
    }

    /// Bytes of the codes that a tile of an integer packing begins with.
    pub const fn tile_code_bytes(self) -> usize {
        match self {
            Packing::U4 => NR * TILE_K / 2,
            Packing::I8 | Packing::I8Half => NR * TILE_K,
            _ => 0,
        }
    }

    /// Whether the scales of a tile are f16.
    pub const fn has_half_scales(self) -> bool {
        matches!(self, Packing::U4 | Packing::I8Half)
    }

    /// The scale of a column, of the scales that end a tile.
    pub(crate) fn scale(self, scales: &[u8], column: usize) -> f32 {
        if self.has_half_scales() {
            return f16::from_le_bytes(scales[half_place(column)..][..2].try_into().unwrap()).to_f32();
        }
        f32::from_le_bytes(scales[column * 4..][..4].try_into().unwrap())
    }

    /// Whether weights are codes of 5 bits or fewer: rounding them costs far more than rounding what they meet.
    pub const fn is_coarse(self) -> bool {
        match self {
            Packing::U4 | Packing::Bits => true,
            Packing::Super(kind) => kind.bits <= 5,
            Packing::I8 | Packing::I8Half | Packing::F32 | Packing::F16 | Packing::Bf16 => false,
        }
    }

    /// Whether the kernels multiply integers.
    pub const fn is_integer(self) -> bool {
        matches!(self, Packing::U4 | Packing::I8 | Packing::I8Half | Packing::Bits | Packing::Super(_))
    }

    /// As shown to users.
    pub const fn name(self) -> &'static str {
        match self {
            Packing::F32 => "f32",
            Packing::F16 => "f16",
            Packing::Bf16 => "bf16",
            Packing::U4 => "u4",
            Packing::I8 | Packing::I8Half => "i8",
            Packing::Bits => "bits",
            Packing::Super(_) => "superblock",
        }
    }
}

/// A weight matrix `[n, k]` in kernel order. Built only by [`Packer`], which guarantees that
/// `data` holds `ceil(n / 16)` whole strips.
pub struct PackedWeights {
    packing: Packing,
    n: usize,
    k: usize,
    data: AlignedBytes,
}

impl PackedWeights {
    /// How elements are held.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of 16-column strips; the last may be partly padding.
    pub fn n_strips(&self) -> usize {
        self.n.div_ceil(NR)
    }

    /// Bytes held.
    pub fn n_bytes(&self) -> usize {
        self.data.len()
    }

    /// All bytes, in kernel order.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// All bytes, to be replaced by those of a matrix of the same shape and packing. Kernels read whatever they are.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Strip `i`, columns `16 * i ..`.
    pub fn strip(&self, i: usize) -> &[u8] {
        let len = self.packing.strip_bytes(self.k);
        &self.data[i * len..(i + 1) * len]
    }

    /// File row `row` (one output's weights, or one token's embedding) as f32; `out` holds k.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n && out.len() == self.k, "row {row} of {} x {}", self.n, self.k);
        let (strip, column) = (self.strip(row / NR), row % NR);
        let element = |i: usize, width: usize| &strip[(i * NR + column) * width..][..width];
        match self.packing {
            Packing::F32 => out.iter_mut().enumerate().for_each(|(i, o)| {
                *o = f32::from_le_bytes(element(i, 4).try_into().unwrap());
            }),
            Packing::F16 => out.iter_mut().enumerate().for_each(|(i, o)| {
                *o = f16::from_le_bytes(element(i, 2).try_into().unwrap()).to_f32();
            }),
            Packing::Bf16 => out.iter_mut().enumerate().for_each(|(i, o)| {
                *o = bf16::from_le_bytes(element(i, 2).try_into().unwrap()).to_f32();
            }),
            Packing::Bits => {
                for (t, out) in out.chunks_exact_mut(TILE_K).enumerate() {
                    bit_column(strip, t, column, out);
                }
            }
            Packing::U4 | Packing::I8 | Packing::I8Half => {
                let tiles = strip.chunks_exact(self.packing.tile_bytes());
                for (tile, out) in tiles.zip(out.chunks_exact_mut(TILE_K)) {
                    self.tile_column(tile, column, out);
                }
            }
            Packing::Super(kind) => {
                let mut block = SuperBlock::default();
                let tiles = strip.chunks_exact(kind.tile_bytes());
                for (tile, out) in tiles.zip(out.chunks_exact_mut(SUPER_K)) {
                    kind.read(tile, column, &mut block);
                    block.values(kind.offset, out);
                }
            }
        }
    }

    /// Eight columns of a strip of bits or superblocks, from `column` on, as floats `[k][8]`, from `k0` on.
    pub(crate) fn integer_panel(&self, strip: usize, column: usize, k0: usize, panel: &mut [f32]) {
        if let Packing::Super(kind) = self.packing {
            return self.super_panel(kind, strip, column, k0, panel);
        }
        let mut values = [0f32; TILE_K];
        for (t, panel) in panel.chunks_exact_mut(TILE_K * 8).enumerate() {
            for j in 0..8 {
                bit_column(self.strip(strip), k0 / TILE_K + t, column + j, &mut values);
                panel.chunks_exact_mut(8).zip(&values).for_each(|(to, v)| to[j] = *v);
            }
        }
    }

    /// As [`Self::integer_panel`]; `k0` is a multiple of 256, the panel's k too.
    fn super_panel(&self, kind: SuperKind, strip: usize, column: usize, k0: usize, panel: &mut [f32]) {
        let (mut block, mut values) = (SuperBlock::default(), [0f32; SUPER_K]);
        let tiles = self.strip(strip)[k0 / SUPER_K * kind.tile_bytes()..].chunks_exact(kind.tile_bytes());
        for (tile, panel) in tiles.zip(panel.chunks_exact_mut(SUPER_K * 8)) {
            for j in 0..8 {
                kind.read(tile, column + j, &mut block);
                block.values(kind.offset, &mut values);
                panel.chunks_exact_mut(8).zip(&values).for_each(|(to, v)| to[j] = *v);
            }
        }
    }

    fn tile_column(&self, tile: &[u8], column: usize, out: &mut [f32]) {
        let (codes, scales) = tile.split_at(self.packing.tile_code_bytes());
        let scale = self.packing.scale(scales, column);
        for (i, o) in out.iter_mut().enumerate() {
            *o = scale * f32::from(code_at(self.packing, codes, column, i));
        }
    }
}

/// One column of tile `t` of a strip of bits.
fn bit_column(strip: &[u8], t: usize, column: usize, out: &mut [f32]) {
    let (codes, scales) = bit_tile(t);
    let scale = f32::from_le_bytes(strip[scales + column * 4..][..4].try_into().unwrap());
    for (k, out) in out.iter_mut().enumerate() {
        let (byte, bit) = bit_place(column, k);
        *out = if strip[codes + byte] >> bit & 1 == 1 { scale } else { -scale };
    }
}

/// The centred code of (`column`, `k`) in a tile's code bytes.
fn code_at(packing: Packing, codes: &[u8], column: usize, k: usize) -> i8 {
    let byte = |k: usize| codes[(k / 4 * 4 + column / 4) * 16 + column % 4 * 4 + k % 4];
    match packing {
        Packing::U4 => (byte(k % 16) >> (k / 16 * 4) & 15) as i8 - 8,
        _ => byte(k) as i8,
    }
}
