//! Convolutions of quantized files: the same integers by pairs of halves and by bytes, whichever way an engine reads them.
//! Runs natively and, under wasm-pack, in a browser.

use bitpane::kernels::isa::Scalar;
use bitpane::kernels::path32::{Signed, Unsigned};
use bitpane::kernels::qconv::{Dense, Map, Requantize, STRIP};
use bitpane::kernels::window::Window;
use bitpane::kernels::{convolve, select_paths};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// Numbers in a range, in no order.
struct Noise(u64);

impl Noise {
    fn within(&mut self, low: i32, high: i32) -> i32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + ((self.0 >> 33) % (high - low + 1) as u64) as i32
    }
}

struct Case {
    channels: usize,
    n: usize,
    window: Window,
    side: usize,
    out_side: usize,
}

/// The sum that the definition gives.
fn expected(case: &Case, map: &Map, codes: &[i8], zero: i8, bias: &[i32], scale: &[f32]) -> Vec<i16> {
    let Case { channels, n, window, out_side, .. } = case;
    let padded_n = n.next_multiple_of(STRIP);
    let mut out = vec![0i16; out_side * out_side * padded_n];
    for (i, out) in out.chunks_exact_mut(padded_n).enumerate() {
        for j in 0..*n {
            let mut sum = bias[j];
            for tap in 0..window.n_taps() {
                let y = window.input(0, i / out_side, tap / window.size[1], map.height);
                let x = window.input(1, i % out_side, tap % window.size[1], map.width);
                let (Some(y), Some(x)) = (y, x) else { continue };
                for c in 0..*channels {
                    let a = i32::from(map.data[(y * map.width + x) * map.stride + c]);
                    let w = codes[j * window.n_taps() * channels + tap * channels + c];
                    sum += a * (i32::from(w) - i32::from(zero));
                }
            }
            out[j] = (sum as f32 * scale[j]).clamp(-255.0, 255.0).round_ties_even() as i16;
        }
    }
    out
}

fn check(case: &Case, zero: i8, input_zero: i8, extreme: bool) {
    let Case { channels, n, window, side, out_side } = case;
    let mut noise = Noise(u64::from(zero as u8) << 8 | u64::from(input_zero as u8));
    let mut code = |low: i32, high: i32| match extreme {
        true => [low, high][noise.within(0, 1) as usize],
        false => noise.within(low, high),
    };
    let k = window.n_taps() * channels;
    let codes: Vec<i8> = (0..n * k).map(|_| code(-128, 127) as i8).collect();
    let stride = channels.next_multiple_of(STRIP);
    let mut data = vec![0i16; side * side * stride];
    for pixel in data.chunks_exact_mut(stride) {
        pixel[..*channels].iter_mut().for_each(|x| *x = (code(-128, 127) - i32::from(input_zero)) as i16);
    }
    let bias: Vec<i32> = (0..*n).map(|_| code(-5000, 5000)).collect();
    let scale: Vec<f32> = (0..*n).map(|j| (1.0 + j as f32 / 7.0) / (k as f32 * 40.0)).collect();
    let map = Map { data: &data, height: *side, width: *side, channels: *channels, stride };
    let want = expected(case, &map, &codes, zero, &bias, &scale);
    let layer = Dense::new(&codes, k, [zero, input_zero], Requantize::new(&bias, &scale, [-255, 255]));
    let run = |name: &str, forward: &dyn Fn(&mut [i16])| {
        let mut out = vec![77i16; want.len()];
        forward(&mut out);
        let rows =
            out.chunks_exact(n.next_multiple_of(STRIP)).zip(want.chunks_exact(n.next_multiple_of(STRIP)));
        for (i, (out, want)) in rows.enumerate() {
            assert_eq!(
                out[..*n],
                want[..*n],
                "{name}: output {i} of {channels} channels, zeros {zero}, {input_zero}"
            );
        }
    };
    run("the path of this machine", &|out| convolve(&layer, map, window, *out_side, out));
    run("halves", &|out| layer.forward::<Scalar>(map, window, *out_side, out));
    run("bytes read as unsigned", &|out| {
        layer.forward_bytes::<Scalar, Unsigned>(map, window, *out_side, out)
    });
    run("bytes read as signed", &|out| layer.forward_bytes::<Scalar, Signed>(map, window, *out_side, out));
}

#[test]
fn halves_and_bytes_give_the_same_integers() {
    // The likeliest of this engine: the clock stands still.
    select_paths(&|| 0.0);
    let point = Window { size: [1, 1], stride: [1, 1], pad: [0, 0], dilation: [1, 1] };
    let three = Window { size: [3, 3], stride: [2, 2], pad: [1, 1], dilation: [1, 1] };
    for (channels, n, side) in [(1, 1, 1usize), (3, 8, 5), (16, 9, 6), (19, 24, 3), (40, 17, 7), (130, 5, 9)]
    {
        for (window, out_side) in [(point, side), (three, side.div_ceil(2))] {
            let case = Case { channels, n, window, side, out_side };
            for (zero, input_zero) in [(0, -128), (0, 0), (-128, 127), (127, -3), (5, 128u8 as i8)] {
                check(&case, zero, input_zero, false);
                check(&case, zero, input_zero, true);
            }
        }
    }
}
