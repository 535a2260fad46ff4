//! What a stored block means: the table of tensor types, and one file per type with its
//! layout and its scalar (reference) decoder and encoder.
//!
//! Type ids and names are GGUF's. To add a type: write its file, add its row to
//! [`FORMATS`], add a golden.

mod blocks;
mod float;
pub mod fp4;
mod grid;
mod grids;
pub mod iq1;
pub mod iq2;
pub mod iq3;
pub mod iq4;
mod k_quant;
mod minimum;
pub mod q1_0;
pub mod q2_0;
pub mod q2_k;
pub mod q3_k;
mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
mod q8_0;
mod search;
pub mod superblock;
mod ternary;
pub mod tq1_0;
pub mod tq2_0;

pub use grid::{Grid, GridRule};
pub use q4_0::Q4_0;
pub use q8_0::Q8_0;

use crate::error::{Code, Error, Result};
use half::f16;

/// A GGUF tensor type id, known or not, with everything the table says of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DType(pub u32);

/// How the bytes of one type are laid out, and the scalar code that reads and writes them.
pub struct Format {
    /// The type's id in GGUF files.
    pub dtype: DType,
    /// The type's name in the GGUF specification.
    pub name: &'static str,
    /// Elements per block.
    pub block_len: usize,
    /// Bytes per block.
    pub block_bytes: usize,
    /// Code that reads and writes blocks; `None` where the layout is known but not yet supported.
    pub codec: Option<Codec>,
}

/// Writes f32 values as blocks.
pub type Quantize = fn(&[f32], &mut [u8]);

/// Writes f32 values as blocks of little weighted squared error: (values, their weights, blocks).
pub type Search = fn(&[f32], &[f32], &mut [u8]);

/// Scalar code for one type. Slices hold whole blocks; lengths agree.
#[derive(Clone, Copy)]
pub struct Codec {
    /// Blocks to f32.
    pub dequantize: fn(&[u8], &mut [f32]),
    /// f32 to blocks, rounded to the nearest codes under scales that hold the extremes; `None` where the
    /// type cannot be written.
    pub quantize: Option<Quantize>,
    /// f32 to blocks with a search for the scales; `None` where rounding leaves nothing to search for.
    pub search: Option<Search>,
    /// Rounding under scales that are set, one element at a time; `None` where nothing needs it.
    pub grid: Option<GridRule>,
    /// How the kernels hold this type.
    pub kernel: KernelForm,
}

/// What the kernels work on. Every type has one of these forms; the codes are those of the
/// file, so that nothing is lost on the way (but see [`ROUNDED`]).
#[derive(Clone, Copy)]
pub enum KernelForm {
    /// Plain f32.
    F32,
    /// f16 kept as they are.
    F16,
    /// bf16 kept as they are.
    Bf16,
    /// Unsigned 4-bit codes, `w = d * (q - 8)`, one scale per 32 that is an f16.
    U4(UnpackHalves),
    /// Signed 8-bit codes, `w = d * q`, one scale per 32 that is an f16.
    I8Half(UnpackHalves),
    /// Signed 8-bit codes, `w = d * q`, one scale per 32.
    I8(UnpackCodes),
    /// Signs as codes 1 and -1, `w = d * q`, one scale per 128 (given four times).
    Bits(UnpackCodes),
    /// Codes of 2 to 6 bits with integer sub-scales in blocks of 256.
    Super(SuperForm),
    /// No integer form of its own yet: the decoded values are held as [`KernelForm::I8`] with
    /// scales of their own, at most 1/254 of each 32's largest magnitude off.
    ViaI8,
}

/// How a type's 256-wide blocks come apart.
#[derive(Clone, Copy)]
pub struct SuperForm {
    /// Bits per code.
    pub bits: u32,
    /// Subtracted from every code.
    pub offset: u8,
    /// Elements per sub-scale: 16, 32, or 256 where all are 1.
    pub sub_len: usize,
    /// Whether sub-blocks have minima.
    pub has_min: bool,
    /// Bytes per block.
    pub block_bytes: usize,
    /// Splits one block.
    pub decompose: fn(&[u8], &mut superblock::SuperBlock),
}

/// Splits whole blocks into codes (one byte per element, in element order) and scales (one
/// per 32 elements).
pub type UnpackCodes = fn(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]);

/// [`UnpackCodes`] of a type whose scales are kept as they are in the file.
pub type UnpackHalves = fn(blocks: &[u8], codes: &mut [u8], scales: &mut [f16]);

macro_rules! formats {
    ($($name:ident = $id:literal, $len:literal, $bytes:literal, $codec:expr;)*) => {
        impl DType {
            $(#[doc = concat!("GGUF tensor type ", stringify!($name), ".")]
            pub const $name: DType = DType($id);)*
        }

        /// Every tensor type that GGUF files may hold.
        pub const FORMATS: &[Format] = &[
            $(Format { dtype: DType($id), name: stringify!($name), block_len: $len, block_bytes: $bytes, codec: $codec },)*
        ];
    };
}

// Source: GGUF specification (type ids) and the block structs of ggml's ggml-common.h (sizes).
formats! {
    // name = id, elements, bytes per block, codec
    F32 = 0, 1, 4, Some(float::F32);
    F16 = 1, 1, 2, Some(float::F16);
    Q4_0 = 2, 32, 18, Some(q4_0::CODEC);
    Q4_1 = 3, 32, 20, Some(q4_1::CODEC);
    Q5_0 = 6, 32, 22, Some(q5_0::CODEC);
    Q5_1 = 7, 32, 24, Some(q5_1::CODEC);
    Q8_0 = 8, 32, 34, Some(q8_0::CODEC);
    Q8_1 = 9, 32, 36, None;
    Q2_K = 10, 256, 84, Some(q2_k::CODEC);
    Q3_K = 11, 256, 110, Some(q3_k::CODEC);
    Q4_K = 12, 256, 144, Some(q4_k::CODEC);
    Q5_K = 13, 256, 176, Some(q5_k::CODEC);
    Q6_K = 14, 256, 210, Some(q6_k::CODEC);
    Q8_K = 15, 256, 292, None;
    IQ2_XXS = 16, 256, 66, Some(iq2::IQ2_XXS);
    IQ2_XS = 17, 256, 74, Some(iq2::IQ2_XS);
    IQ3_XXS = 18, 256, 98, Some(iq3::IQ3_XXS);
    IQ1_S = 19, 256, 50, Some(iq1::IQ1_S);
    IQ4_NL = 20, 32, 18, Some(iq4::IQ4_NL);
    IQ3_S = 21, 256, 110, Some(iq3::IQ3_S);
    IQ2_S = 22, 256, 82, Some(iq2::IQ2_S);
    IQ4_XS = 23, 256, 136, Some(iq4::IQ4_XS);
    I8 = 24, 1, 1, None;
    I16 = 25, 1, 2, None;
    I32 = 26, 1, 4, None;
    I64 = 27, 1, 8, None;
    F64 = 28, 1, 8, None;
    IQ1_M = 29, 256, 56, Some(iq1::IQ1_M);
    BF16 = 30, 1, 2, Some(float::BF16);
    TQ1_0 = 34, 256, 54, Some(tq1_0::CODEC);
    TQ2_0 = 35, 256, 66, Some(tq2_0::CODEC);
    MXFP4 = 39, 32, 17, Some(fp4::MXFP4);
    NVFP4 = 40, 64, 36, Some(fp4::NVFP4);
    Q1_0 = 41, 128, 18, Some(q1_0::CODEC);
    Q2_0 = 42, 64, 18, Some(q2_0::CODEC);
}

impl Codec {
    /// Writes `values` with a search where the type has one, each value's squared error counted `weights`
    /// times; false where the type cannot be written.
    pub fn encode(&self, values: &[f32], weights: &[f32], blocks: &mut [u8]) -> bool {
        match (self.search, self.quantize) {
            (Some(search), _) => search(values, weights, blocks),
            (None, Some(quantize)) => quantize(values, blocks),
            (None, None) => return false,
        }
        true
    }
}

/// Types whose decoded values no integer form of the kernels holds exactly yet: they become
/// 8-bit codes under the scale that rounds least.
pub const ROUNDED: &[DType] =
    &[DType::Q4_1, DType::Q5_1, DType::NVFP4, DType::IQ1_M, DType::IQ2_XS, DType::IQ2_S];

impl DType {
    /// The table row of this type; `None` for ids that are unknown or were removed.
    pub fn format(self) -> Option<&'static Format> {
        FORMATS.iter().find(|f| f.dtype == self)
    }

    /// The name in the GGUF specification, or `"?"`.
    pub fn name(self) -> &'static str {
        self.format().map_or("?", |f| f.name)
    }

    /// The type of that name (as in `"Q4_0"`, any case).
    pub fn from_name(name: &str) -> Option<DType> {
        FORMATS.iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.dtype)
    }

    /// How the kernels hold matrices of this type, for people; `None` where they cannot.
    pub fn held_as(self) -> Option<String> {
        let codec = self.format()?.codec?;
        let form = match codec.kernel {
            KernelForm::F32 => "F32".into(),
            KernelForm::F16 => "F16".into(),
            KernelForm::Bf16 => "BF16".into(),
            KernelForm::U4(_) => "4-bit codes, a scale per 32".into(),
            KernelForm::I8Half(_) | KernelForm::I8(_) | KernelForm::ViaI8 => {
                "8-bit codes, a scale per 32".into()
            }
            KernelForm::Bits(_) => "1-bit codes, a scale per 128".into(),
            KernelForm::Super(form) => format!("{}-bit codes, blocks of 256", form.bits),
        };
        Some(if ROUNDED.contains(&self) { form + ", rounded" } else { form })
    }

    /// The type's codec, or an error that names the type and lists the supported ones.
    ///
    /// # Errors
    /// [`Code::UnsupportedQuant`].
    pub fn codec(self) -> Result<(&'static Format, Codec)> {
        let format = self.format();
        match format.and_then(|f| f.codec.map(|c| (f, c))) {
            Some(found) => Ok(found),
            None => {
                let known: Vec<_> = FORMATS.iter().filter(|f| f.codec.is_some()).map(|f| f.name).collect();
                Err(Error::new(
                    Code::UnsupportedQuant,
                    format!(
                        "tensor type {} (id {}) is not supported; supported: {}",
                        self.name(),
                        self.0,
                        known.join(", ")
                    ),
                ))
            }
        }
    }

    /// Bytes of `n_elements` in this type; `None` where they are not whole blocks or overflow.
    pub fn bytes_for(self, n_elements: u64) -> Option<u64> {
        let f = self.format()?;
        if !n_elements.is_multiple_of(f.block_len as u64) {
            return None;
        }
        (n_elements / f.block_len as u64).checked_mul(f.block_bytes as u64)
    }
}

impl std::fmt::Debug for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}
