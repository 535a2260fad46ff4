//! F32, F16 and BF16: one element per block, little-endian.

use super::{Codec, KernelForm};
use half::{bf16, f16};

macro_rules! float_codec {
    ($name:ident, $form:ident, $width:literal, $from:expr, $to:expr) => {
        pub(super) const $name: Codec = Codec {
            dequantize: |bytes, out| {
                for (b, o) in bytes.chunks_exact($width).zip(out) {
                    let b: [u8; $width] = b.try_into().unwrap();
                    *o = $from(b);
                }
            },
            quantize: Some(|values, out| {
                for (v, o) in values.iter().zip(out.chunks_exact_mut($width)) {
                    o.copy_from_slice(&$to(*v));
                }
            }),
            search: None,
            grid: None,
            kernel: KernelForm::$form,
        };
    };
}

float_codec!(F32, F32, 4, f32::from_le_bytes, f32::to_le_bytes);
float_codec!(F16, F16, 2, |b| f16::from_le_bytes(b).to_f32(), |v| f16::from_f32(v).to_le_bytes());
float_codec!(BF16, Bf16, 2, |b| bf16::from_le_bytes(b).to_f32(), |v| bf16::from_f32(v).to_le_bytes());
