//! Convolutions of quantized files: the same integers by pairs of halves and by bytes, whichever way an engine reads them.
//! Runs natively and, under wasm-pack, in a browser.

use bitpane::kernels::isa::Scalar;
use bitpane::kernels::path32::{Signed, Unsigned};
#[cfg(not(target_family = "wasm"))]
use bitpane::kernels::pool;
use bitpane::kernels::qconv::{Dense, Depthwise, Map, Requantize, STRIP, Zeros};
use bitpane::kernels::window::Window;
use bitpane::kernels::{convolve, select_paths};
#[cfg(target_feature = "relaxed-simd")]
use bitpane::kernels::{has_pairs, isa::Native};
use bitpane::layers::quantized::{Codes, Sum, depthwise, quantize, rescale};

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

/// The code of a sum.
fn code(sum: i32, scale: f32, zero: u8, clamp: [u8; 2]) -> u8 {
    let zero = i32::from(zero);
    let [low, high] = clamp.map(|code| (i32::from(code) - zero) as f32);
    let value = (sum as f32 * scale).clamp(low, high).round_ties_even();
    (value as i32 + zero) as u8
}

/// The value less its zero point that each tap of output `i` reads, with the tap's number.
fn taps<'a>(
    case: &'a Case,
    map: &'a Map,
    zero: u8,
    i: usize,
    c: usize,
) -> impl Iterator<Item = (usize, i32)> + 'a {
    let Case { window, out_side, .. } = *case;
    (0..window.n_taps()).filter_map(move |tap| {
        let y = window.input(0, i / out_side, tap / window.size[1], map.height)?;
        let x = window.input(1, i % out_side, tap % window.size[1], map.width)?;
        let value = map.data[(y * map.width + x) * map.stride + c];
        Some((tap, i32::from(value) - i32::from(zero)))
    })
}

/// The sums that the definition gives, `[outputs, n]`.
fn expected(case: &Case, map: &Map, codes: &[i8], zeros: Zeros) -> Vec<Vec<i32>> {
    let Case { channels, n, window, out_side, .. } = case;
    let sum = |i: usize, j: usize| {
        let row = &codes[j * window.n_taps() * channels..];
        let of_channel = |c: usize| {
            let weight = |tap: usize| i32::from(row[tap * channels + c]) - i32::from(zeros.weights);
            taps(case, map, zeros.input, i, c).map(|(tap, a)| a * weight(tap)).sum::<i32>()
        };
        (0..*channels).map(of_channel).sum()
    };
    (0..out_side * out_side).map(|i| (0..*n).map(|j| sum(i, j)).collect()).collect()
}

/// Calls `forward` and compares what it gives with the codes of the sums.
fn compare(
    name: &str,
    sums: &[Vec<i32>],
    bias: &[i32],
    scale: &[f32],
    (zero, clamp): (u8, [u8; 2]),
    forward: &dyn Fn(&mut [u8]),
) {
    let n = bias.len();
    let mut out = vec![77u8; sums.len() * n.next_multiple_of(STRIP)];
    forward(&mut out);
    for (i, (out, sums)) in out.chunks_exact(n.next_multiple_of(STRIP)).zip(sums).enumerate() {
        let want: Vec<u8> = (0..n).map(|j| code(sums[j] + bias[j], scale[j], zero, clamp)).collect();
        assert_eq!(out[..n], want, "{name}: output {i}");
    }
}

/// Which codes may be given, and what scales are multiplied with: some products are far from all codes.
fn ends(zeros: Zeros, extreme: bool) -> ([u8; 2], f32) {
    (if extreme { [20, 200] } else { [0, 255] }, if zeros.input == 1 { 1e6 } else { 1.0 })
}

fn check(case: &Case, zeros: Zeros, extreme: bool) {
    let Case { channels, n, window, side, out_side } = case;
    let mut noise = Noise(u64::from(zeros.weights as u8) << 8 | u64::from(zeros.input));
    let mut code = |low: i32, high: i32| match extreme {
        true => [low, high][noise.within(0, 1) as usize],
        false => noise.within(low, high),
    };
    let k = window.n_taps() * channels;
    let codes: Vec<i8> = (0..n * k).map(|_| code(-128, 127) as i8).collect();
    let bias: Vec<i32> = (0..*n).map(|_| code(-5000, 5000)).collect();
    let (clamp, far) = ends(zeros, extreme);
    let scale: Vec<f32> = (0..*n).map(|j| far * (1.0 + j as f32 / 7.0) / (k as f32 * 40.0)).collect();
    let zero = code(0, 255) as u8;
    let new = || Dense::new(&codes, k, zeros, Requantize::new(&bias, &scale, clamp, zero));
    // Channels that count for nothing hold anything; a picture's three are by themselves.
    for stride in [channels.next_multiple_of(STRIP), *channels] {
        let data: Vec<u8> = (0..side * side * stride).map(|_| code(0, 255) as u8).collect();
        let map = Map { data: &data, height: *side, width: *side, channels: *channels, stride };
        let (want, layer) = (expected(case, &map, &codes, zeros), new());
        let run = |name: &str, forward: &dyn Fn(&mut [u8])| {
            let name = format!("{name}, {channels} channels, {stride} apart, {zeros:?}");
            compare(&name, &want, &bias, &scale, (zero, clamp), forward);
        };
        run("the path of this machine", &|out| convolve(&layer, map, window, *out_side, out));
        run("halves", &|out| layer.forward::<Scalar>(map, window, *out_side, out));
        run("pairs of bytes", &|out| layer.forward_pairs::<Scalar>(map, window, *out_side, out));
        #[cfg(target_feature = "relaxed-simd")]
        if has_pairs() {
            run("this engine's pairs", &|out| layer.forward_pairs::<Native>(map, window, *out_side, out));
        }
        run("bytes read as unsigned", &|out| {
            layer.forward_bytes::<Scalar, Unsigned>(map, window, *out_side, out)
        });
        run("bytes read as signed", &|out| {
            layer.forward_bytes::<Scalar, Signed>(map, window, *out_side, out)
        });
    }
}

/// Weights are `[taps, channels]`.
fn check_depthwise(case: &Case, zeros: Zeros, extreme: bool) {
    let Case { channels, window, side, out_side, .. } = case;
    let mut noise = Noise(u64::from(zeros.weights as u8) << 16 | u64::from(zeros.input));
    let mut code = |low: i32, high: i32| match extreme {
        true => [low, high][noise.within(0, 1) as usize],
        false => noise.within(low, high),
    };
    let codes: Vec<i8> = (0..window.n_taps() * channels).map(|_| code(-128, 127) as i8).collect();
    let bias: Vec<i32> = (0..*channels).map(|_| code(-5000, 5000)).collect();
    let (clamp, far) = ends(zeros, extreme);
    let scale: Vec<f32> = (0..*channels).map(|j| far * (1.0 + j as f32 / 7.0) / 400.0).collect();
    let (zero, stride) = (code(0, 255) as u8, channels.next_multiple_of(STRIP));
    let data: Vec<u8> = (0..side * side * stride).map(|_| code(0, 255) as u8).collect();
    let map = Map { data: &data, height: *side, width: *side, channels: *channels, stride };
    let sum = |i: usize, c: usize| {
        let weight = |tap: usize| i32::from(codes[tap * channels + c]) - i32::from(zeros.weights);
        taps(case, &map, zeros.input, i, c).map(|(tap, a)| a * weight(tap)).sum::<i32>()
    };
    let sums: Vec<Vec<i32>> =
        (0..out_side * out_side).map(|i| (0..*channels).map(|c| sum(i, c)).collect()).collect();
    let layer = Depthwise::new(&codes, *channels, zeros, Requantize::new(&bias, &scale, clamp, zero));
    let name = |isa: &str| format!("{isa}, {channels} channels, {window:?}, {zeros:?}");
    compare(&name("scalar"), &sums, &bias, &scale, (zero, clamp), &|out| {
        layer.forward::<Scalar>(map, window, *out_side, out)
    });
    compare(&name("bytes read as unsigned"), &sums, &bias, &scale, (zero, clamp), &|out| {
        layer.forward_bytes::<Scalar, Unsigned>(map, window, *out_side, out)
    });
    compare(&name("bytes read as signed"), &sums, &bias, &scale, (zero, clamp), &|out| {
        layer.forward_bytes::<Scalar, Signed>(map, window, *out_side, out)
    });
    compare(&name("this build"), &sums, &bias, &scale, (zero, clamp), &|out| {
        depthwise(&layer, map, window, *out_side, out)
    });
}

/// Zero points at and between the ends.
const ZEROS: [(i8, u8); 5] = [(0, 0), (0, 128), (-128, 255), (127, 125), (5, 1)];

#[test]
fn halves_and_bytes_give_the_same_integers() {
    // The likeliest of this engine: the clock stands still.
    select_paths(&|| 0.0);
    let point = Window { size: [1, 1], stride: [1, 1], pad: [0, 0], dilation: [1, 1] };
    let three = Window { size: [3, 3], stride: [2, 2], pad: [1, 1], dilation: [1, 1] };
    let shapes: [(usize, usize, usize); 6] =
        [(1, 1, 1), (3, 8, 5), (16, 9, 6), (19, 24, 3), (40, 17, 7), (130, 5, 9)];
    for (channels, n, side) in shapes {
        for (window, out_side) in [(point, side), (three, side.div_ceil(2))] {
            let case = Case { channels, n, window, side, out_side };
            for (weights, input) in ZEROS {
                check(&case, Zeros { weights, input }, false);
                check(&case, Zeros { weights, input }, true);
            }
        }
    }
}

#[test]
fn each_channel_by_itself_gives_the_integers_of_its_definition() {
    let square = |size: usize, stride: usize, pad: usize| Window::square(size, stride, pad);
    let apart = Window { dilation: [2, 2], ..square(3, 1, 2) };
    // The last two have outputs whose taps are all outside of the map's width on one side, or on all.
    let shapes = [
        (8, square(3, 1, 1), 6, 6),
        (20, square(3, 2, 1), 7, 4),
        (16, square(3, 2, 0), 8, 4),
        (3, square(5, 1, 2), 6, 6),
        (150, square(3, 1, 1), 9, 9),
        (24, apart, 7, 7),
        (8, square(2, 2, 0), 6, 3),
        (8, square(3, 1, 1), 1, 1),
        (8, square(5, 1, 4), 2, 6),
    ];
    for (channels, window, side, out_side) in shapes {
        let case = Case { channels, n: channels, window, side, out_side };
        for (weights, input) in ZEROS {
            check_depthwise(&case, Zeros { weights, input }, false);
            check_depthwise(&case, Zeros { weights, input }, true);
        }
    }
}

#[cfg(not(target_family = "wasm"))]
#[test]
fn threads_change_nothing() {
    for threads in [2, 3] {
        pool::set_threads(threads);
        halves_and_bytes_give_the_same_integers();
        each_channel_by_itself_gives_the_integers_of_its_definition();
        // Large enough to be cut both ways.
        let window = Window::square(1, 1, 0);
        let case = Case { channels: 64, n: 200, window, side: 16, out_side: 16 };
        check(&case, Zeros { weights: 3, input: 7 }, false);
        let case = Case { channels: 330, n: 330, window: Window::square(3, 1, 1), side: 12, out_side: 12 };
        check_depthwise(&case, Zeros { weights: 3, input: 7 }, false);
    }
    pool::set_threads(1);
}

#[test]
fn maps_are_added_in_integers() {
    let mut noise = Noise(5);
    let mut codes = |n: usize| (0..n).map(|_| noise.within(0, 255) as u8).collect::<Vec<u8>>();
    let sums = [
        ([0.1, 0.02, 0.07], [0, 128], 255),
        ([3.0, 1e-6, 0.5], [255, 3], 0),
        ([0.5, 0.5, 1e-4], [7, 9], 100),
    ];
    for (scales, zeros, zero) in sums {
        for clamp in [[0, 255], [3, 77]] {
            for n in [8, 64, 1003] {
                let (a, b) = (codes(n), codes(n));
                let mut out = vec![1; n];
                let to = Codes { zero, clamp };
                Sum::new(scales[0], scales[1], scales[2]).forward([&a, &b], zeros, to, &mut out);
                for i in 0..n {
                    let real = |code: u8, zero: u8, scale: f32| {
                        (f64::from(code) - f64::from(zero)) * f64::from(scale)
                    };
                    let sum = real(a[i], zeros[0], scales[0]) + real(b[i], zeros[1], scales[1]);
                    let want = sum / f64::from(scales[2]) + f64::from(zero);
                    let want = want.clamp(clamp[0].into(), clamp[1].into());
                    // The factors have 20 bits and more.
                    assert!(
                        (f64::from(out[i]) - want).abs() < 0.501,
                        "{} + {}: {}, not {want}",
                        a[i],
                        b[i],
                        out[i]
                    );
                }
            }
        }
    }
}

#[test]
fn pixels_are_rounded_to_the_nearest_code() {
    let mut noise = Noise(9);
    for (n, zero) in [(1, 0), (5, 128), (16, 255), (1003, 3)] {
        let pixels: Vec<f32> = (0..3 * n).map(|_| noise.within(-30_000, 30_000) as f32 / 100.0).collect();
        let code =
            |x: f32| (x / 0.75).round_ties_even().clamp(-f32::from(zero), 255.0 - f32::from(zero)) as i32;
        for stride in [3, 8] {
            let mut out = vec![77; n * stride];
            quantize(&pixels, n, 0.75, zero, stride, &mut out);
            for (i, pixel) in out.chunks_exact(stride).enumerate() {
                for c in 0..3 {
                    let x = pixels[c * n + i];
                    // A product with the inverse may fall on the other side of a half.
                    let away = (i32::from(pixel[c]) - i32::from(zero) - code(x)).abs();
                    let fraction = (x / 0.75).abs().fract();
                    assert!(away == 0 || away == 1 && (fraction - 0.5).abs() < 1e-3, "{x}: {}", pixel[c]);
                }
            }
        }
    }
}

#[test]
fn codes_under_another_scale_are_those_of_their_values() {
    let input: Vec<u8> = (0..=255).collect();
    for (zero, scale, to) in [(128, 1.0, 128), (3, 0.4, 200), (0, 2.0, 0)] {
        for clamp in [[0, 255], [10, 99]] {
            let mut out = vec![1; 256];
            rescale(&input, zero, scale, Codes { zero: to, clamp }, &mut out);
            for (&code, &out) in input.iter().zip(&out) {
                let value = (f32::from(code) - f32::from(zero)) * scale;
                let want = value.round_ties_even() as i32 + i32::from(to);
                assert_eq!(i32::from(out), want.clamp(clamp[0].into(), clamp[1].into()), "{code}");
            }
        }
    }
}
