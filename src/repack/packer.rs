//! Fills a [`PackedWeights`] from a stream of file bytes, one strip of 16 rows at a time.

use super::{
    AlignedBytes, NR, PackedWeights, Packing, SUPER_K, SuperKind, TILE_K, bit_place, bit_tile, half_place,
};
use crate::error::{Code, Error, Result};
use crate::quant::superblock::SuperBlock;
use crate::quant::{Codec, DType, Format, KernelForm, SuperForm};
use half::f16;

/// Receives a matrix's file bytes in any portions and packs them, quantizing on the way if
/// the target type is another than the source's. Extra memory: one strip.
pub struct Packer {
    source: (&'static Format, Codec),
    target: (&'static Format, Codec),
    out: PackedWeights,
    /// File bytes of the strip being collected.
    rows: Vec<u8>,
    row_bytes: usize,
    /// Whether blocks reach over rows.
    is_folded: bool,
    next_strip: usize,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    values: Vec<f32>,
    /// The weights of the errors: all alike.
    ones: Vec<f32>,
    blocks: Vec<u8>,
    codes: Vec<u8>,
    scales: Vec<f32>,
    /// In place of `scales`, where the strip holds f16.
    halves: Vec<f16>,
}

impl Packer {
    /// A packer for a matrix `[n, k]` stored as `source`, to be held as `target`.
    ///
    /// # Errors
    /// [`Code::UnsupportedQuant`], [`Code::BadShape`] where k is not whole blocks of either
    /// type, [`Code::OutOfMemory`].
    pub fn new(source: DType, target: DType, n: usize, k: usize) -> Result<Self> {
        Packer::padded(source, target, n, k, k)
    }

    /// A packer for a matrix `[n, file_k]` of floats, to be held as `target` with zeros at the end of each row, which
    /// is then `k` long.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn padded(source: DType, target: DType, n: usize, file_k: usize, k: usize) -> Result<Self> {
        let (source, target) = (source.codec()?, target.codec()?);
        if source.0.dtype == target.0.dtype && k > 0 && !k.is_multiple_of(source.0.block_len) {
            return Packer::folded(source, n, k);
        }
        for ((format, _), k) in [(source, file_k), (target, k)] {
            if k == 0 || n == 0 || !k.is_multiple_of(format.block_len) {
                let rule = format!("{n} x {k} is not whole blocks of {} ({})", format.block_len, format.name);
                return Err(Error::new(Code::BadShape, rule));
            }
        }
        if source.0.dtype != target.0.dtype && target.1.quantize.is_none() {
            return Err(Error::new(Code::UnsupportedQuant, format!("{} cannot be written", target.0.name)));
        }
        let packing = packing_of(target.1.kernel);
        let overflow =
            || Error::new(Code::Overflow, format!("{n} x {k} weights do not fit the address space"));
        let row_bytes =
            (file_k / source.0.block_len).checked_mul(source.0.block_bytes).ok_or_else(overflow)?;
        row_bytes.checked_mul(NR).ok_or_else(overflow)?;
        k.checked_mul(NR * 4).ok_or_else(overflow)?;
        let n_bytes = packing.strip_bytes(k).checked_mul(n.div_ceil(NR)).ok_or_else(overflow)?;
        let out = PackedWeights { packing, n, k, data: AlignedBytes::zeroed(n_bytes)? };
        Ok(Packer {
            source,
            target,
            out,
            rows: Vec::new(),
            row_bytes,
            is_folded: false,
            next_strip: 0,
            scratch: Scratch::default(),
        })
    }

    /// Bytes that a matrix `[n, k]` takes when it is held as `target`; `None` where it cannot be.
    pub fn n_bytes(target: DType, n: usize, k: usize) -> Option<u64> {
        let (format, codec) = target.codec().ok()?;
        k.checked_mul(NR * 4).filter(|_| k.is_multiple_of(format.block_len))?;
        (packing_of(codec.kernel).strip_bytes(k) as u64).checked_mul(n.div_ceil(NR) as u64)
    }

    /// A packer for a matrix whose blocks reach over rows: 16 rows are whole blocks, or all of them. It is held as
    /// 8-bit codes with a scale per 32, at most 1/254 of each 32's largest magnitude off.
    fn folded(source: (&'static Format, Codec), n: usize, k: usize) -> Result<Self> {
        let (format, codec) = source;
        let fits = |rows: usize| k.checked_mul(rows).is_some_and(|len| len.is_multiple_of(format.block_len));
        if !fits(n % NR) || !fits(NR) || !k.is_multiple_of(TILE_K) {
            let rule = format!("{n} x {k} is not whole blocks of {} ({})", format.block_len, format.name);
            return Err(Error::new(Code::BadShape, rule));
        }
        let n_bytes = Packing::I8.strip_bytes(k).checked_mul(n.div_ceil(NR));
        let overflow =
            || Error::new(Code::Overflow, format!("{n} x {k} weights do not fit the address space"));
        let data = AlignedBytes::zeroed(n_bytes.ok_or_else(overflow)?)?;
        Ok(Packer {
            source,
            target: (format, Codec { kernel: KernelForm::ViaI8, ..codec }),
            out: PackedWeights { packing: Packing::I8, n, k, data },
            rows: Vec::new(),
            row_bytes: 0,
            is_folded: true,
            next_strip: 0,
            scratch: Scratch::default(),
        })
    }

    /// How the matrix will be held.
    pub fn packing(&self) -> Packing {
        self.out.packing
    }

    /// File bytes of the strip being collected.
    fn strip_source_bytes(&self) -> usize {
        let rows = self.strip_rows();
        match self.is_folded {
            true => rows * self.out.k / self.source.0.block_len * self.source.0.block_bytes,
            false => rows * self.row_bytes,
        }
    }

    /// Packs a strip whose blocks reach over rows.
    fn pack_folded(&mut self) {
        let k = self.out.k;
        let strip_bytes = self.out.packing.strip_bytes(k);
        let mut values = vec![0f32; self.strip_rows() * k];
        (self.source.1.dequantize)(&self.rows, &mut values);
        let strip = &mut self.out.data[self.next_strip * strip_bytes..][..strip_bytes];
        self.scratch.reserve(k);
        for (column, row) in values.chunks_exact(k).enumerate() {
            self.scratch.values.clear();
            self.scratch.values.extend_from_slice(row);
            self.scratch.round_to_i8();
            self.scratch.write_codes(column, self.out.packing, strip);
        }
        self.rows.clear();
        self.next_strip += 1;
    }

    /// Takes the next file bytes.
    ///
    /// # Errors
    /// [`Code::NonFiniteWeight`] when quantizing NaN or infinity, and for scales that are either and held as f16;
    /// [`Code::BadShape`] where more bytes come than the matrix has.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let want = self.strip_source_bytes() - self.rows.len();
            if want == 0 {
                return Err(Error::new(Code::BadShape, "more bytes than the matrix holds"));
            }
            let (now, rest) = bytes.split_at(want.min(bytes.len()));
            self.rows.extend_from_slice(now);
            bytes = rest;
            if now.len() == want && self.is_folded {
                self.pack_folded();
            } else if now.len() == want {
                self.pack_strip()?;
            }
        }
        Ok(())
    }

    /// The matrix as it will be held, of zeros: for bytes that [`PackedWeights::bytes`] gave.
    pub fn zeros(self) -> PackedWeights {
        self.out
    }

    /// The packed matrix.
    ///
    /// # Errors
    /// [`Code::Truncated`] where bytes are missing.
    pub fn finish(self) -> Result<PackedWeights> {
        if self.next_strip < self.out.n_strips() {
            return Err(Error::new(Code::Truncated, "bytes of the matrix are missing"));
        }
        Ok(self.out)
    }

    /// Rows of the strip being collected (the last strip may have fewer than 16).
    fn strip_rows(&self) -> usize {
        self.out.n.saturating_sub(self.next_strip * NR).min(NR)
    }

    fn pack_strip(&mut self) -> Result<()> {
        let strip_bytes = self.out.packing.strip_bytes(self.out.k);
        let start = self.next_strip * strip_bytes;
        let rows = std::mem::take(&mut self.rows);
        let mut requantized = std::mem::take(&mut self.scratch.blocks);
        let whole_bytes = self.out.k / self.source.0.block_len * self.source.0.block_bytes;
        let mut whole = Vec::new();
        for (column, mut row) in rows.chunks_exact(self.row_bytes).enumerate() {
            if self.row_bytes < whole_bytes {
                // A float of zero bytes is zero in every type.
                whole.clear();
                whole.extend_from_slice(row);
                whole.resize(whole_bytes, 0);
                row = &whole;
            }
            let row_idx = self.next_strip * NR + column;
            let blocks: &[u8] = if self.source.0.dtype == self.target.0.dtype {
                row
            } else {
                self.scratch.quantize(
                    self.source,
                    self.target,
                    row,
                    self.out.k,
                    row_idx,
                    &mut requantized,
                )?;
                &requantized
            };
            let strip = &mut self.out.data[start..start + strip_bytes];
            match self.target.1.kernel {
                KernelForm::F32 => scatter::<4>(blocks, column, strip),
                KernelForm::F16 | KernelForm::Bf16 => scatter::<2>(blocks, column, strip),
                KernelForm::U4(unpack) | KernelForm::I8Half(unpack) => {
                    self.scratch.reserve(self.out.k);
                    unpack(blocks, &mut self.scratch.codes, &mut self.scratch.halves);
                    if let Some(i) = self.scratch.halves.iter().position(|scale| !scale.is_finite()) {
                        check_scale(self.scratch.halves[i].to_f32(), row_idx, i * TILE_K)?;
                    }
                    self.scratch.write_codes(column, self.out.packing, strip);
                }
                KernelForm::I8(unpack) | KernelForm::Bits(unpack) => {
                    self.scratch.reserve(self.out.k);
                    unpack(blocks, &mut self.scratch.codes, &mut self.scratch.scales);
                    self.scratch.write_codes(column, self.out.packing, strip);
                }
                KernelForm::Super(form) => {
                    write_super(form, blocks, (row_idx, column), self.out.packing, strip)?;
                }
                KernelForm::ViaI8 => {
                    self.scratch.reserve(self.out.k);
                    self.scratch.values.resize(self.out.k, 0.0);
                    (self.target.1.dequantize)(blocks, &mut self.scratch.values);
                    self.scratch.round_to_i8();
                    self.scratch.write_codes(column, self.out.packing, strip);
                }
            }
        }
        self.scratch.blocks = requantized;
        self.rows = rows;
        self.rows.clear();
        self.next_strip += 1;
        Ok(())
    }
}

fn packing_of(form: KernelForm) -> Packing {
    match form {
        KernelForm::F32 => Packing::F32,
        KernelForm::F16 => Packing::F16,
        KernelForm::Bf16 => Packing::Bf16,
        KernelForm::U4(_) => Packing::U4,
        KernelForm::I8Half(_) => Packing::I8Half,
        KernelForm::I8(_) | KernelForm::ViaI8 => Packing::I8,
        KernelForm::Bits(_) => Packing::Bits,
        KernelForm::Super(form) => Packing::Super(SuperKind {
            bits: form.bits as usize,
            offset: form.offset,
            sub_len: form.sub_len,
            has_min: form.has_min,
        }),
    }
}

/// Writes a row's blocks down a column of a strip of 256-wide tiles.
fn write_super(
    form: SuperForm,
    blocks: &[u8],
    (row, column): (usize, usize),
    packing: Packing,
    strip: &mut [u8],
) -> Result<()> {
    let Packing::Super(kind) = packing else { unreachable!("the packing of this form") };
    let mut parts = SuperBlock::default();
    let tiles = strip.chunks_exact_mut(kind.tile_bytes());
    for (i, (block, tile)) in blocks.chunks_exact(form.block_bytes).zip(tiles).enumerate() {
        (form.decompose)(block, &mut parts);
        check_scale(parts.d, row, i * SUPER_K)?;
        check_scale(parts.dmin, row, i * SUPER_K)?;
        kind.write(tile, column, &parts);
    }
    Ok(())
}

/// The kernels read f16 without looking for infinity and NaN.
fn check_scale(scale: f32, row: usize, column: usize) -> Result<()> {
    if scale.is_finite() {
        return Ok(());
    }
    let what = format!("the scale of row {row} from column {column} on is {scale}");
    Err(Error::new(Code::NonFiniteWeight, what))
}

/// Writes a row of `W`-byte elements down one column of a float strip.
fn scatter<const W: usize>(row: &[u8], column: usize, strip: &mut [u8]) {
    for (element, line) in row.chunks_exact(W).zip(strip.chunks_exact_mut(NR * W)) {
        line[column * W..][..W].copy_from_slice(element);
    }
}

impl Scratch {
    /// Requantizes one row into `blocks`.
    fn quantize(
        &mut self,
        source: (&Format, Codec),
        target: (&Format, Codec),
        row: &[u8],
        k: usize,
        row_idx: usize,
        blocks: &mut Vec<u8>,
    ) -> Result<()> {
        self.values.resize(k, 0.0);
        (source.1.dequantize)(row, &mut self.values);
        if let Some(i) = self.values.iter().position(|v| !v.is_finite()) {
            let what = format!("weight {} at row {row_idx}, column {i} cannot be quantized", self.values[i]);
            return Err(Error::new(Code::NonFiniteWeight, what));
        }
        blocks.resize(k / target.0.block_len * target.0.block_bytes, 0);
        self.ones.resize(k, 1.0);
        let is_written = target.1.encode(&self.values, &self.ones, blocks);
        debug_assert!(is_written, "checked by Packer::new");
        Ok(())
    }

    fn reserve(&mut self, k: usize) {
        self.codes.resize(k, 0);
        self.scales.resize(k / TILE_K, 0.0);
        self.halves.resize(k / TILE_K, f16::ZERO);
    }

    /// `values` to `codes` and `scales`; a block with a NaN or infinity keeps a NaN scale, so
    /// that the fault shows in the result instead of being lost.
    fn round_to_i8(&mut self) {
        let blocks = self.values.chunks_exact(TILE_K).zip(self.codes.chunks_exact_mut(TILE_K));
        for ((x, codes), scale) in blocks.zip(&mut self.scales) {
            let finite = x.iter().all(|v| v.is_finite());
            let amax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            let inv = if amax > 0.0 { 127.0 / amax } else { 0.0 };
            *scale = if finite { amax / 127.0 } else { f32::NAN };
            for (code, v) in codes.iter_mut().zip(x) {
                *code = (v * inv).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
            }
        }
    }

    /// Writes `codes` and `scales` down one column of an integer strip.
    fn write_codes(&mut self, column: usize, packing: Packing, strip: &mut [u8]) {
        if packing == Packing::Bits {
            return self.write_bits(column, strip);
        }
        let tiles = strip.chunks_exact_mut(packing.tile_bytes());
        let lane = column / 4 * 16 + column % 4 * 4;
        for (t, (tile, codes)) in tiles.zip(self.codes.as_chunks::<TILE_K>().0).enumerate() {
            let (places, scales) = tile.split_at_mut(packing.tile_code_bytes());
            if packing.has_half_scales() {
                scales[half_place(column)..][..2].copy_from_slice(&self.halves[t].to_le_bytes());
            } else {
                scales[column * 4..][..4].copy_from_slice(&self.scales[t].to_le_bytes());
            }
            // Four codes at a time: one next to the other, or 16 apart in the halves of a byte.
            let (quads, _) = codes.as_chunks::<4>();
            let (groups, _) = places.as_chunks_mut::<64>();
            if packing == Packing::U4 {
                let (low, high) = quads.split_at(4);
                for ((group, &low), &high) in groups.iter_mut().zip(low).zip(high) {
                    let pairs = u32::from_le_bytes(low) | u32::from_le_bytes(high) << 4;
                    group[lane..][..4].copy_from_slice(&pairs.to_le_bytes());
                }
            } else {
                for (group, quad) in groups.iter_mut().zip(quads) {
                    group[lane..][..4].copy_from_slice(quad);
                }
            }
        }
    }

    /// Writes codes 1 and -1 and the first of each four scales down one column of a strip of bits.
    fn write_bits(&mut self, column: usize, strip: &mut [u8]) {
        for (t, (codes, scale)) in self.codes.chunks_exact(TILE_K).zip(&self.scales).enumerate() {
            let (codes_at, scales_at) = bit_tile(t);
            strip[scales_at + column * 4..][..4].copy_from_slice(&scale.to_le_bytes());
            for (k, &code) in codes.iter().enumerate() {
                let (byte, bit) = bit_place(column, k);
                strip[codes_at + byte] |= u8::from(code == 1) << bit;
            }
        }
    }
}
