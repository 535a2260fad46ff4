//! Activations `[m, k]`: the floats, and their 8-bit codes in the layout that a path reads.
//!
//! Each 32 values of a row share one scale `d = amax / 127`; codes are `round(x / d)` (ties
//! to even) within +-127, never -128. Their sum is kept per 32 for the offset of unsigned
//! weight codes: `sum a * (q - z) = sum a * q - z * sum a`.

mod coded;

use super::isa::Isa;
use super::lut::Tables;
use super::path::{DotPath, P16};
use crate::repack::{PackedWeights, Packing, SUPER_K, TILE_K};

pub use coded::Coded;
use coded::Layout;
pub(super) use coded::TileStarts;
pub(super) use coded::{MIN_GROUP_BYTES, MIN_GROUPS, min_parts};

/// Rows that products of floats and attention take at once.
pub const MR: usize = 4;

/// The input of one or several matrix products: quantized once per layout, used by all.
#[derive(Default)]
pub struct Activations {
    m: usize,
    k: usize,
    x: Vec<f32>,
    integer: bool,
    coded: Vec<Coded>,
    /// The rows that products take: all of them where there is no list.
    taken: Option<Vec<usize>>,
    /// `coded` and `x` of those rows, as far as they have been made.
    picked: Vec<Coded>,
    picked_x: Vec<f32>,
    /// Of the one row that products take; [`Self::make_tables`].
    tables: Tables,
    has_tables: bool,
    /// So many first rows are taken twice.
    n_twice: usize,
    rest: Option<Box<Rest>>,
}

/// What 8 bits leave of the activations, and its products.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) act: Activations,
    pub(super) out: Vec<f32>,
}

/// How far one activation scale reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// 32 k: for weights with a scale per 32.
    Tile,
    /// 256 k: for weights whose sub-scales are integers, so that a whole block is summed in
    /// integers.
    Super,
}

impl Span {
    /// What products with such weights take.
    fn of(packing: Packing) -> Self {
        if matches!(packing, Packing::Super(_)) { Span::Super } else { Span::Tile }
    }

    const fn len(self) -> usize {
        match self {
            Span::Tile => TILE_K,
            Span::Super => SUPER_K,
        }
    }

    /// k per sum of codes.
    const fn sum_len(self) -> usize {
        match self {
            Span::Tile => TILE_K,
            Span::Super => 16,
        }
    }
}

impl Activations {
    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The floats, `[m, k]`.
    pub fn x(&self) -> &[f32] {
        &self.x[..self.m * self.k]
    }

    /// Whether products with integer weights may use quantized activations.
    pub fn is_integer(&self) -> bool {
        self.integer
    }

    /// Makes room for `[m, k]` floats and hands them out to be filled. With `integer`,
    /// products with integer weights quantize them; otherwise all products are in float.
    pub fn fill(&mut self, m: usize, k: usize, integer: bool) -> &mut [f32] {
        (self.m, self.k, self.integer) = (m, k, integer);
        self.coded.iter_mut().for_each(|c| c.layout = None);
        self.take_rows(None);
        // Never shorter: what grows again would be filled with zeros.
        if self.x.len() < m * k {
            self.x.resize(m * k, 0.0);
        }
        &mut self.x[..m * k]
    }

    /// [`Self::fill`] with all of `x`, which gets other floats of no meaning in exchange.
    pub fn exchange(&mut self, m: usize, k: usize, integer: bool, x: &mut Vec<f32>) {
        assert_eq!(x.len(), m * k, "not m x k");
        self.fill(m, k, integer);
        std::mem::swap(&mut self.x, x);
    }

    /// Has products with integer weights take twice 8 bits of each number of the first `n_rows` rows, from now on: its
    /// code, and that of what the code leaves. Such rows take twice as long.
    pub fn set_twice(&mut self, n_rows: usize) {
        self.n_twice = n_rows;
    }

    /// What codes for `w` leave of the floats, in the first rows, where products take that too; to be given back.
    ///
    /// # Panics
    /// Where products take a list of rows, and not all rows are taken twice: a bug in the caller.
    pub(super) fn take_rest(&mut self, w: &PackedWeights) -> Option<Box<Rest>> {
        let n_rows = self.n_twice.min(self.m);
        if n_rows == 0 || !(self.integer && w.packing().is_integer()) {
            return None;
        }
        assert!(self.taken.is_none() || n_rows == self.m, "some rows of a list cannot be taken twice");
        let mut rest = self.rest.take().unwrap_or_default();
        let x = rest.act.fill(n_rows, self.k, true);
        x.copy_from_slice(&self.x[..n_rows * self.k]);
        coded::leave_rest(x, Span::of(w.packing()));
        Some(rest)
    }

    /// Keeps it for the next time.
    pub(super) fn keep_rest(&mut self, rest: Box<Rest>) {
        self.rest = Some(rest);
    }

    /// Has the products that follow take these rows only, in this order, until the next call.
    pub(super) fn take_rows(&mut self, rows: Option<&[usize]>) {
        self.taken = rows.map(<[usize]>::to_vec);
        self.picked.iter_mut().for_each(|c| c.layout = None);
        self.picked_x.clear();
        self.has_tables = false;
    }

    /// Rows that products take.
    pub(super) fn n_taken(&self) -> usize {
        self.taken.as_ref().map_or(self.m, Vec::len)
    }

    /// Makes ready the floats that products take.
    pub(super) fn make_floats(&mut self) {
        if let (Some(rows), true) = (&self.taken, self.picked_x.is_empty()) {
            for &row in rows {
                self.picked_x.extend_from_slice(&self.x[row * self.k..][..self.k]);
            }
        }
    }

    /// The floats that products take.
    pub(super) fn floats(&self) -> &[f32] {
        if self.taken.is_some() { &self.picked_x } else { self.x() }
    }

    /// Makes ready the codes that products take, in the layout of `P`. k is a multiple of the span
    /// wherever such weights are.
    pub fn make_codes<P: DotPath>(&mut self, span: Span) {
        let layout = Some((P::NAME, span));
        let (all, is_new) = slot(&mut self.coded, layout);
        if is_new {
            all.quantize::<P>(&self.x[..self.m * self.k], self.m, self.k, span);
        }
        if let Some(rows) = &self.taken {
            let (picked, is_new) = slot(&mut self.picked, layout);
            if is_new {
                picked.pick::<P>(all, self.m, rows);
                if span == Span::Super {
                    picked.code_sums::<P>();
                }
            }
        }
    }

    /// As [`Self::make_codes`], for kernels of several rows: with what the sums of codes with
    /// `offset` begin with, every `len` k.
    pub(super) fn make_tiles<P: DotPath>(&mut self, span: Span, offset: i32, len: usize) {
        self.make_codes::<P>(span);
        let made = if self.taken.is_some() { &mut self.picked } else { &mut self.coded };
        if let Some(coded) = made.iter_mut().find(|c| c.layout == Some((P::NAME, span))) {
            coded.make_starts::<P>(span, offset, len);
        }
    }

    /// Makes ready the tables of the one row that products take, and its codes.
    pub(super) fn make_tables<I: Isa>(&mut self) {
        self.make_codes::<P16<I>>(Span::Tile);
        if !self.has_tables {
            let mut tables = std::mem::take(&mut self.tables);
            tables.fill::<I>(self.codes::<P16<I>>(Span::Tile));
            (self.tables, self.has_tables) = (tables, true);
        }
    }

    /// What [`Self::make_tables`] made.
    pub(super) fn tables(&self) -> &Tables {
        assert!(self.has_tables, "no tables: a bug in the caller");
        &self.tables
    }

    /// The codes that products take, in the layout of `P`.
    ///
    /// # Panics
    /// Where [`Self::make_codes`] has not made them: a bug in the caller.
    pub(super) fn codes<P: DotPath>(&self, span: Span) -> &Coded {
        let made = if self.taken.is_some() { &self.picked } else { &self.coded };
        match made.iter().find(|c| c.layout == Some((P::NAME, span))) {
            Some(coded) => coded,
            None => unreachable!("no codes for {} over {span:?}", P::NAME),
        }
    }
}

/// Where codes of a layout are, or a place for them and true.
fn slot(all: &mut Vec<Coded>, layout: Layout) -> (&mut Coded, bool) {
    let made = all.iter().position(|c| c.layout == layout);
    let i = made.or_else(|| all.iter().position(|c| c.layout.is_none())).unwrap_or_else(|| {
        all.push(Coded::default());
        all.len() - 1
    });
    (&mut all[i], made.is_none())
}
