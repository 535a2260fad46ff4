//! One scale for 256 codes of -1, 0, 1.

use crate::quant::blocks::nearest_f16;
use crate::quant::superblock::LEN;

/// The scale (as f16) and the codes 0, 1, 2 of least squared error, exactly: whatever the scale, the codes
/// that are not zero are those of the largest magnitudes, so that only their number is to be found.
pub fn ternary(x: &[f32; LEN], w: &[f32; LEN]) -> (f32, [u8; LEN]) {
    let mut order: [u16; LEN] = std::array::from_fn(|i| i as u16);
    order.sort_unstable_by(|&a, &b| {
        let (a, b) = (usize::from(a), usize::from(b));
        x[b].abs().total_cmp(&x[a].abs()).then(a.cmp(&b))
    });
    let (mut sum_x, mut sum_w, mut best) = (0f32, 0f32, (0f32, 0f32));
    for i in order.map(usize::from) {
        sum_x += w[i] * x[i].abs();
        sum_w += w[i];
        let gain = if sum_w > 0.0 { sum_x * sum_x / sum_w } else { 0.0 };
        if gain > best.0 {
            best = (gain, sum_x / sum_w);
        }
    }
    let d = nearest_f16(best.1);
    if d == 0.0 {
        return (0.0, [1; LEN]);
    }
    let code = |v: f32| match v {
        v if v > d / 2.0 => 2,
        v if v < -d / 2.0 => 0,
        _ => 1,
    };
    (d, x.map(code))
}
