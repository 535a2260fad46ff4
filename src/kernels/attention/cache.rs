//! Keys and values of one layer, in the order in which attention reads them.

use super::code::{self, Coding, Range};
use crate::error::{Code, Error, Result};
use crate::repack::AlignedBytes;
use half::{bf16, f16};
use std::cell::RefCell;

/// Tokens that there is room for are a multiple of this.
pub(super) const BLOCK: usize = 32;
/// Tokens whose keys lie together: floats, codes.
pub(super) const FLOAT_GROUP: usize = 8;
pub(super) const CODE_GROUP: usize = 16;
/// Numbers of values whose codes lie together.
pub(super) const COLUMNS: usize = 16;

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// A byte per number and a scale per token and head. The codes have 7 bits, which every
    /// instruction set multiplies as bytes.
    Q8_0,
    /// 4 bits per number and a scale per token and head.
    Q4_0,
}

impl KvType {
    /// All of them.
    pub const ALL: [KvType; 4] = [KvType::F32, KvType::F16, KvType::Q8_0, KvType::Q4_0];

    /// As GGUF spells it.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "F32",
            KvType::F16 => "F16",
            KvType::Q8_0 => "Q8_0",
            KvType::Q4_0 => "Q4_0",
        }
    }

    /// The type of that name, in any case.
    ///
    /// # Errors
    /// [`Code::BadArgument`] with the key `kvType`.
    pub fn from_name(name: &str) -> Result<Self> {
        KvType::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known = KvType::ALL.map(KvType::name).join(", ");
            let rule = format!("{name:?} is no type of keys and values; supported: {known}");
            Error::new(Code::BadArgument, rule).key("kvType")
        })
    }

    /// Whether numbers become codes.
    pub fn is_coded(self) -> bool {
        self.coding().is_some()
    }

    /// How numbers become codes, where they do.
    pub(super) fn coding(self) -> Option<Coding> {
        match self {
            KvType::F32 | KvType::F16 => None,
            KvType::Q8_0 => Some(code::BYTES),
            KvType::Q4_0 => Some(code::NIBBLES),
        }
    }

    /// Bytes that a key and a value of a head take.
    pub fn token_bytes(self, head_dim: usize) -> usize {
        let ranges = if self.is_coded() { 2 * RANGE_BYTES } else { 0 };
        (self.padded(head_dim).saturating_mul(self.n_bits()) / 8).saturating_mul(2).saturating_add(ranges)
    }

    /// A head's size as it is stored.
    fn padded(self, head_dim: usize) -> usize {
        let unit = if self.is_coded() { 16 } else { 8 };
        head_dim.div_ceil(unit).saturating_mul(unit)
    }

    /// Bits per number.
    fn n_bits(self) -> usize {
        match self {
            KvType::F32 => 32,
            KvType::F16 => 16,
            KvType::Q8_0 => 8,
            KvType::Q4_0 => 4,
        }
    }
}

/// Bytes that the range of one token's codes takes.
const RANGE_BYTES: usize = 4;

/// Keys and values of one layer. Per head:
///
/// - floats: keys `[n_ctx / 8][dim][8]`, values `[n_ctx][dim]`;
/// - bytes: keys `[n_ctx / 16][dim / 4][16][4]`, values `[n_ctx / 32][dim / 16][8][16][4]` of which the last
///   index is the token, so that a vector is four tokens (keys) or four numbers (values) times
///   four of what is summed over, and memory is read front to back;
/// - nibbles: the same with the second half of a key, or of a block of values, in the high ones;
/// - codes: their scales and middles, `[2][n_ctx]`.
pub struct KvCache {
    pub(super) kv_type: KvType,
    pub(super) n_head_kv: usize,
    pub(super) head_dim: usize,
    /// `head_dim` with padding.
    pub(super) dim: usize,
    pub(super) n_ctx: usize,
    pub(super) k: AlignedBytes,
    pub(super) v: AlignedBytes,
    pub(super) k_ranges: Vec<bf16>,
    pub(super) v_ranges: Vec<bf16>,
}

/// Where the numbers of one token lie among the bytes of its head: pieces at equal distances, in runs at equal distances.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Whether the numbers are a key.
    of_key: bool,
    pub(super) pos: usize,
    pub(super) offset: usize,
    stride: usize,
    n_pieces: usize,
    piece_bytes: usize,
    /// Pieces of a run.
    pub(super) run: usize,
    /// Bytes from one run to the next.
    pub(super) run_stride: usize,
    /// Which bits of each byte, where not all.
    pub(super) nibble: Option<u32>,
}

impl Place {
    /// Rotates what is to be stored, or was.
    pub(super) fn rotate(self, x: &mut [f32]) {
        if self.of_key { code::rotate_key(x) } else { code::rotate(x) }
    }

    fn len(self) -> usize {
        self.n_pieces * self.piece_bytes
    }

    /// Writes what a place is for.
    pub(super) fn write(self, to: &mut [u8], from: &[u8]) {
        let runs = to[self.offset..].chunks_mut(self.run_stride);
        runs.zip(from.chunks(self.run * self.piece_bytes)).for_each(|(to, from)| self.write_run(to, from));
    }

    fn write_run(self, to: &mut [u8], from: &[u8]) {
        let pieces = to.chunks_mut(self.stride.max(1)).take(self.run);
        match (self.nibble, self.piece_bytes) {
            (Some(shift), _) => {
                pieces.zip(from).for_each(|(to, x)| to[0] = to[0] & !(15 << shift) | (x & 15) << shift);
            }
            (None, 1) => pieces.zip(from).for_each(|(to, x)| to[0] = *x),
            (None, 4) => {
                pieces.zip(from.as_chunks::<4>().0).for_each(|(to, x)| to[..4].copy_from_slice(x));
            }
            _ if self.run == 1 => to[..self.piece_bytes].copy_from_slice(&from[..self.piece_bytes]),
            (None, n) => {
                pieces.zip(from.chunks_exact(n)).for_each(|(to, x)| to[..n].copy_from_slice(x));
            }
        }
    }

    fn read(self, from: &[u8], to: &mut [u8]) {
        for (i, piece) in to.chunks_exact_mut(self.piece_bytes).take(self.n_pieces).enumerate() {
            let at = self.offset + i / self.run * self.run_stride + i % self.run * self.stride;
            piece.copy_from_slice(&from[at..][..self.piece_bytes]);
            if let Some(shift) = self.nibble {
                piece[0] = piece[0] >> shift & 15;
            }
        }
    }
}

thread_local! {
    /// Codes that are read; kept.
    static BUFFER: RefCell<Vec<u8>> = RefCell::default();
}

impl KvCache {
    /// Room for `n_ctx` tokens.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    pub fn new(kv_type: KvType, n_head_kv: usize, head_dim: usize, n_ctx: usize) -> Result<Self> {
        let n_ctx = Self::room_for(n_ctx);
        let dim = kv_type.padded(head_dim);
        let n = n_head_kv.checked_mul(dim).and_then(|n| n.checked_mul(n_ctx));
        let n_bytes = n.and_then(|n| n.checked_mul(kv_type.n_bits())).map(|bits| bits / 8);
        let n_ranges = if kv_type.is_coded() { 2 * n_head_kv * n_ctx } else { 0 };
        let side = |n_bytes| Some((AlignedBytes::zeroed(n_bytes).ok()?, zeros(n_ranges)?));
        let made = n_bytes.and_then(|n_bytes| Some((side(n_bytes)?, side(n_bytes)?)));
        let Some(((k, k_ranges), (v, v_ranges))) = made else {
            let what = format!("a key-value cache of {n_ctx} tokens could not be allocated");
            return Err(Error::new(Code::OutOfMemory, what));
        };
        Ok(KvCache { kv_type, n_head_kv, head_dim, dim, n_ctx, k, v, k_ranges, v_ranges })
    }

    /// Tokens that a cache for `n_ctx` has room for.
    pub fn room_for(n_ctx: usize) -> usize {
        n_ctx.div_ceil(BLOCK).saturating_mul(BLOCK)
    }

    /// How keys and values are held.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Tokens there is room for.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Numbers per head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Key heads times head size: numbers that one token's keys have, and its values.
    pub fn n_embd(&self) -> usize {
        self.n_head_kv * self.head_dim
    }

    /// Bytes that it takes.
    pub fn n_bytes(&self) -> usize {
        self.k.len() + self.v.len() + 2 * (self.k_ranges.len() + self.v_ranges.len())
    }

    /// What [`Self::store`] took for that position, up to rounding.
    pub fn load(&self, pos: usize, k: &mut [f32], v: &mut [f32]) {
        let d = self.head_dim;
        assert!(pos < self.n_ctx && k.len() == self.n_embd() && v.len() == k.len());
        let layout = Layout::of(self);
        BUFFER.with_borrow_mut(|b| {
            for (head, (k, v)) in k.chunks_exact_mut(d).zip(v.chunks_exact_mut(d)).enumerate() {
                layout.get(layout.key(pos), self.keys(head), self.key_ranges(head), k, b);
                layout.get(layout.value(pos), self.values(head), self.value_ranges(head), v, b);
            }
        });
    }

    /// Bytes that [`Self::save`] writes for a token.
    pub fn saved_len(&self) -> usize {
        let layout = Layout::of(self);
        let ranges = if self.kv_type.is_coded() { 2 * RANGE_BYTES } else { 0 };
        self.n_head_kv * (layout.key(0).len() + layout.value(0).len() + ranges)
    }

    /// Appends what is stored for the first `n` tokens, token after token, to `out`.
    pub fn save(&self, n: usize, out: &mut Vec<u8>) {
        let layout = Layout::of(self);
        out.reserve(n * self.saved_len());
        for pos in 0..n {
            for head in 0..self.n_head_kv {
                let sides = [
                    (layout.key(pos), self.keys(head), self.key_ranges(head)),
                    (layout.value(pos), self.values(head), self.value_ranges(head)),
                ];
                for (place, bytes, ranges) in sides {
                    let first = out.len();
                    out.resize(first + place.len(), 0);
                    place.read(bytes, &mut out[first..]);
                    let range = [ranges.get(pos), ranges.get(self.n_ctx + pos)];
                    out.extend(range.into_iter().flatten().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
    }

    /// Takes back what [`Self::save`] of a cache of the same shape and type wrote for the first tokens.
    ///
    /// # Panics
    /// Where there are more tokens than it has room for: a bug in the caller.
    pub fn restore(&mut self, saved: &[u8]) {
        let (layout, n_ctx, saved_len) = (Layout::of(self), self.n_ctx, self.saved_len());
        let (head_bytes, coded) = (layout.head_bytes(), self.kv_type.is_coded());
        for (pos, mut token) in saved.chunks_exact(saved_len).enumerate() {
            for head in 0..self.n_head_kv {
                let sides = [
                    (layout.key(pos), &mut self.k, &mut self.k_ranges),
                    (layout.value(pos), &mut self.v, &mut self.v_ranges),
                ];
                for (place, bytes, ranges) in sides {
                    place.write(&mut bytes[head * head_bytes..][..head_bytes], token);
                    token = &token[place.len()..];
                    if let (true, Some((range, rest))) = (coded, token.split_first_chunk::<RANGE_BYTES>()) {
                        let [a, b, c, d] = *range;
                        ranges[2 * head * n_ctx + pos] = bf16::from_le_bytes([a, b]);
                        ranges[(2 * head + 1) * n_ctx + pos] = bf16::from_le_bytes([c, d]);
                        token = rest;
                    }
                }
            }
        }
    }

    /// The keys of a head.
    pub(super) fn keys(&self, head: usize) -> &[u8] {
        let head_bytes = Layout::of(self).head_bytes();
        &self.k[head * head_bytes..][..head_bytes]
    }

    /// The values of a head.
    pub(super) fn values(&self, head: usize) -> &[u8] {
        let head_bytes = Layout::of(self).head_bytes();
        &self.v[head * head_bytes..][..head_bytes]
    }

    /// The scales of a head's keys, and their middles.
    pub(super) fn key_ranges(&self, head: usize) -> &[bf16] {
        self.ranges_of(head, &self.k_ranges)
    }

    /// The scales of a head's values, and their middles.
    pub(super) fn value_ranges(&self, head: usize) -> &[bf16] {
        self.ranges_of(head, &self.v_ranges)
    }

    fn ranges_of<'a>(&self, head: usize, ranges: &'a [bf16]) -> &'a [bf16] {
        let n = if self.kv_type.is_coded() { 2 * self.n_ctx } else { 0 };
        &ranges[head * n..][..n]
    }
}

/// Where things lie in a cache of some type and shape.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) kv_type: KvType,
    pub(super) dim: usize,
    pub(super) n_ctx: usize,
}

impl Layout {
    pub(super) fn of(kv: &KvCache) -> Self {
        Layout { kv_type: kv.kv_type, dim: kv.dim, n_ctx: kv.n_ctx }
    }

    pub(super) fn head_bytes(self) -> usize {
        self.n_ctx * self.dim * self.kv_type.n_bits() / 8
    }

    /// The key of a token.
    pub(super) fn key(self, pos: usize) -> Place {
        let (group, piece_bytes) = match self.kv_type {
            KvType::F32 => (FLOAT_GROUP, 4),
            KvType::F16 => (FLOAT_GROUP, 2),
            KvType::Q8_0 | KvType::Q4_0 => (CODE_GROUP, 4),
        };
        let token_bytes = self.dim * self.kv_type.n_bits() / 8;
        let n_pieces = token_bytes / piece_bytes;
        // Nibbles: a byte holds two numbers, and `put` gives it both.
        Place {
            of_key: true,
            pos,
            offset: pos / group * group * token_bytes + pos % group * piece_bytes,
            stride: group * piece_bytes,
            n_pieces,
            piece_bytes,
            run: n_pieces,
            run_stride: usize::MAX,
            nibble: None,
        }
    }

    /// The value of a token.
    pub(super) fn value(self, pos: usize) -> Place {
        let coded = |tokens: usize, nibble: Option<u32>| {
            // `tokens` of a block have their own bits.
            let (block, within) = (pos / BLOCK, pos % tokens);
            let run_stride = tokens * COLUMNS;
            let offset = block * tokens * self.dim + within / 4 * 4 * COLUMNS + within % 4;
            let n_pieces = self.dim;
            let run = COLUMNS;
            Place { of_key: false, pos, offset, stride: 4, n_pieces, piece_bytes: 1, run, run_stride, nibble }
        };
        match self.kv_type {
            KvType::F32 | KvType::F16 => {
                let piece_bytes = self.dim * self.kv_type.n_bits() / 8;
                Place {
                    of_key: false,
                    pos,
                    offset: pos * piece_bytes,
                    stride: 0,
                    n_pieces: 1,
                    piece_bytes,
                    run: 1,
                    run_stride: usize::MAX,
                    nibble: None,
                }
            }
            KvType::Q8_0 => coded(BLOCK, None),
            KvType::Q4_0 => coded(BLOCK / 2, Some(4 * (pos % BLOCK / (BLOCK / 2)) as u32)),
        }
    }

    /// Reads what [`Self::put`] stored.
    fn get(self, place: Place, from: &[u8], ranges: &[bf16], x: &mut [f32], b: &mut Vec<u8>) {
        b.resize(place.len(), 0);
        place.read(from, b);
        match self.kv_type.coding() {
            Some(coding) => {
                if self.kv_type == KvType::Q4_0 && place.nibble.is_none() {
                    b.extend_from_within(..);
                    let half = b.len() / 2;
                    b[..half].iter_mut().for_each(|x| *x &= 15);
                    b[half..].iter_mut().for_each(|x| *x >>= 4);
                }
                let range = Range { scale: ranges[place.pos], middle: ranges[self.n_ctx + place.pos] };
                coding.decode(b, range, x);
                place.rotate(x);
            }
            _ if self.kv_type == KvType::F16 => {
                for (x, bytes) in x.iter_mut().zip(b.as_chunks().0) {
                    *x = f16::from_le_bytes(*bytes).to_f32();
                }
            }
            _ => {
                for (x, bytes) in x.iter_mut().zip(b.as_chunks().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
            }
        }
    }
}

/// `n` zeros, or `None` where there is no memory for them.
fn zeros<T: Clone + Default>(n: usize) -> Option<Vec<T>> {
    let mut all = Vec::new();
    all.try_reserve_exact(n).ok()?;
    all.resize(n, T::default());
    Some(all)
}
