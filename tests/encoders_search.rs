//! The encoders: what the search is worth, hostile values, and the same bytes on every platform.

#[path = "common/blocks.rs"]
mod blocks;

use bitpane::quant::{Codec, FORMATS, Format};
use bitpane::quantizer::pictures;
use blocks::splitmix_bytes;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// Nearly normal noise; with `heavy` squared, as weights with outliers are.
fn noise(n: usize, seed: u64, heavy: bool) -> Vec<f32> {
    let value = |bytes: &[u8]| {
        let sum = bytes.iter().map(|&v| (f32::from(v) + 0.5) / 256.0).sum::<f32>() - 6.0;
        if heavy { sum * sum.abs() * 0.02 } else { sum * 0.02 }
    };
    splitmix_bytes(n * 12, seed).chunks_exact(12).map(value).collect()
}

fn writable() -> impl Iterator<Item = (&'static Format, Codec)> {
    FORMATS.iter().filter_map(|f| Some((f, f.codec?))).filter(|(_, c)| c.quantize.is_some())
}

fn encoded(format: &Format, codec: &Codec, x: &[f32], w: &[f32]) -> Vec<u8> {
    let mut out = vec![0xAA; x.len() / format.block_len * format.block_bytes];
    assert!(codec.encode(x, w, &mut out));
    out
}

fn error(codec: &Codec, blocks: &[u8], x: &[f32], w: &[f32]) -> f64 {
    let mut back = vec![f32::NAN; x.len()];
    (codec.dequantize)(blocks, &mut back);
    let off = |i: usize| f64::from(w[i]) * (f64::from(x[i]) - f64::from(back[i])).powi(2);
    (0..x.len()).map(off).sum()
}

/// Least gain over rounding in dB, on normal and on heavy-tailed noise.
const GAINS: &[(&str, f64, f64)] = &[
    ("Q4_0", 0.5, 0.3),
    ("Q4_1", 0.9, 1.1),
    ("Q5_0", 0.5, 0.3),
    ("Q5_1", 0.9, 1.0),
    ("Q8_0", 0.5, 0.3),
    ("Q2_K", 1.7, 2.4),
    ("Q3_K", 0.6, 0.4),
    ("Q4_K", 0.9, 1.1),
    ("Q5_K", 0.8, 0.8),
    ("Q6_K", 1.0, 0.6),
    ("IQ4_NL", 0.7, 0.5),
    ("IQ4_XS", 0.7, 0.5),
    ("MXFP4", 0.1, 0.3),
    ("TQ1_0", 5.0, 3.0),
    ("TQ2_0", 5.0, 3.0),
];

#[test]
fn the_search_takes_off_as_much_error_as_it_should() {
    let n = 256 * 64;
    let ones = vec![1.0; n];
    let mut faults = Vec::new();
    for (format, codec) in writable().filter(|(_, c)| c.search.is_some()) {
        let wanted = GAINS.iter().find(|(name, ..)| *name == format.name);
        for (heavy, wanted) in [(false, wanted.map(|w| w.1)), (true, wanted.map(|w| w.2))] {
            let x = noise(n, 3, heavy);
            let mut rounded = vec![0; n / format.block_len * format.block_bytes];
            codec.quantize.unwrap()(&x, &mut rounded);
            let found = encoded(format, &codec, &x, &ones);
            let gain = 10.0 * (error(&codec, &rounded, &x, &ones) / error(&codec, &found, &x, &ones)).log10();
            println!("{} heavy {heavy}: {gain:.2} dB", format.name);
            // Q1_0 has nothing to search for without weights.
            if gain.is_nan() || gain < wanted.unwrap_or(-1e-6) {
                faults.push(format!("{} heavy {heavy}: {gain:.3} dB", format.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn weights_move_the_error_to_where_it_counts_least() {
    let n = 256 * 16;
    let ones = vec![1.0; n];
    let w: Vec<f32> = noise(n, 77, true).iter().map(|v| v.abs() * 50.0 + 0.01).collect();
    for (format, codec) in writable().filter(|(_, c)| c.search.is_some()) {
        let x = noise(n, 5, false);
        let plain = error(&codec, &encoded(format, &codec, &x, &ones), &x, &w);
        let weighted = error(&codec, &encoded(format, &codec, &x, &w), &x, &w);
        println!("{}: weighted error {:.3} of the plain one", format.name, weighted / plain);
        assert!(weighted < plain * 0.995, "{}: {weighted} against {plain}", format.name);
    }
}

/// Blocks of 256 that have broken quantizers.
fn hostile() -> Vec<(&'static str, Vec<f32>)> {
    let with = |at: usize, v: f32| {
        let mut x = noise(256, 9, false);
        x[at] = v;
        x
    };
    vec![
        ("zeros", vec![0.0; 256]),
        ("negative zeros", vec![-0.0; 256]),
        ("constant", vec![0.37; 256]),
        ("negative constant", vec![-1.25; 256]),
        ("one value", (0..256).map(|i| if i == 40 { -2.0 } else { 0.0 }).collect()),
        ("outlier", with(100, 500.0)),
        ("negative outlier", with(31, -3e4)),
        ("subnormals", noise(256, 1, false).iter().map(|v| v * 1e-39).collect()),
        ("below f16", noise(256, 2, false).iter().map(|v| v * 1e-9).collect()),
        ("above f16", noise(256, 4, false).iter().map(|v| v * 1e9).collect()),
        ("largest", (0..256).map(|i| if i % 2 == 0 { f32::MAX } else { f32::MIN }).collect()),
        ("largest and smallest", (0..256).map(|i| if i % 3 == 0 { f32::MAX } else { 1e-45 }).collect()),
        ("far from zero", noise(256, 6, false).iter().map(|v| v + 1000.0).collect()),
    ]
}

/// Q01: whatever the values, the blocks hold finite ones; zeros stay exact zeros, and no search is worse than rounding.
#[test]
fn q01_hostile_blocks_stay_finite() {
    let mut faults = Vec::new();
    for (format, codec) in writable() {
        for (name, x) in hostile() {
            for w in [vec![1.0; 256], vec![0.0; 256], (0..256).map(|i| (i % 7 == 0) as u8 as f32).collect()] {
                let blocks = encoded(format, &codec, &x, &w);
                let mut back = vec![f32::NAN; 256];
                (codec.dequantize)(&blocks, &mut back);
                let is_float = format.block_len == 1;
                if !is_float && back.iter().any(|v| !v.is_finite()) {
                    faults.push(format!("{} {name}: not finite", format.name));
                }
                if name.ends_with("zeros") && back.iter().any(|&v| v != 0.0) {
                    faults.push(format!("{} {name}: not zero", format.name));
                }
            }
            let ones = vec![1.0; 256];
            let mut rounded = vec![0; 256 / format.block_len * format.block_bytes];
            codec.quantize.unwrap()(&x, &mut rounded);
            let (found, rounded) = (
                error(&codec, &encoded(format, &codec, &x, &ones), &x, &ones),
                error(&codec, &rounded, &x, &ones),
            );
            if found > rounded * 1.0001 {
                faults.push(format!("{} {name}: error {found:e}, by rounding {rounded:e}", format.name));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Q10: FNV-1a of what each type's encoder writes for one noise.
const HASHES: &[(&str, u64)] = &[
    ("F32", 0x53396461C319D6CE),
    ("F16", 0x660BB7E8AB01F96B),
    ("Q4_0", 0x87DD72E3BE172D04),
    ("Q4_1", 0xE4D8AA62100C3473),
    ("Q5_0", 0x41217A3FC1DFB31B),
    ("Q5_1", 0x00DBEC56DF399BE0),
    ("Q8_0", 0x2847FB6B0EBD3BB3),
    ("Q2_K", 0xDBAECC8CC8065049),
    ("Q3_K", 0x5AEDDDE628644F10),
    ("Q4_K", 0xF7FB2700CBAF2EA1),
    ("Q5_K", 0x9851CCA3644FCA68),
    ("Q6_K", 0xB3D55841314B708D),
    ("IQ4_NL", 0x6186C27F49724A77),
    ("IQ4_XS", 0xE1A4D25E797D1427),
    ("BF16", 0x7C73CE85DEEAE1BB),
    ("TQ1_0", 0xF186F9A4230D2451),
    ("TQ2_0", 0x6BBDB249D7E55254),
    ("MXFP4", 0x12EFF646E2209D35),
    ("Q1_0", 0x922A2E5E1BDFF111),
];

#[test]
fn q10_every_platform_writes_the_same_bytes() {
    let x: Vec<f32> = noise(256 * 24, 11, false).into_iter().chain(noise(256 * 24, 12, true)).collect();
    let w: Vec<f32> = noise(x.len(), 13, true).iter().map(|v| v.abs() + 0.003).collect();
    let mut found = String::new();
    for (format, codec) in writable() {
        let hash = encoded(format, &codec, &x, &w)
            .iter()
            .fold(0xCBF2_9CE4_8422_2325u64, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
        if HASHES.iter().find(|(name, _)| *name == format.name).map(|h| h.1) != Some(hash) {
            found += &format!("    ({:?}, 0x{hash:016X}),\n", format.name);
        }
    }
    assert!(found.is_empty(), "other bytes than before:\n{found}");
}

/// The pictures that vision models are calibrated on, natively and in WebAssembly.
#[test]
fn drawn_pictures_are_always_the_same() {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for picture in (0..24).map(pictures::draw) {
        assert_eq!(picture.rgb.len(), picture.side * picture.side * 3);
        hash = picture.rgb.iter().fold(hash, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    }
    assert_eq!(hash, 0x4D10_4468_6782_0B1E, "0x{hash:016X}");
}
