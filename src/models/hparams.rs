//! Hyperparameters that decoders share, under the keys that GGUF gives them.

use super::config::Reader;
use super::{TextConfig, Weights};
use crate::error::Result;
use crate::layers::{RopePairing, RopeParams, Yarn};

/// Largest width of all heads together; sums of three and products with 64 do not overflow.
const MAX_WIDTH: usize = 1 << 24;

/// The dimensions.
///
/// # Errors
/// `BadConfig` naming the key.
pub fn text_config(reader: &Reader, weights: &Weights) -> Result<TextConfig> {
    let n_embd = reader.dim("embedding_length")?;
    let n_layer = reader.n_layer()?;
    let n_head = reader.dim("attention.head_count")?;
    let n_head_kv = reader.optional_dim("attention.head_count_kv")?.unwrap_or(n_head);
    if n_head_kv > n_head || !n_head.is_multiple_of(n_head_kv) {
        return Err(
            reader.bad("attention.head_count_kv", format!("{n_head_kv} does not divide {n_head} heads"))
        );
    }
    let head_dim = match reader.optional_dim("attention.key_length")? {
        Some(d) => d,
        None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
        None => return Err(reader.bad("attention.head_count", format!("{n_head} does not divide {n_embd}"))),
    };
    if n_head.checked_mul(head_dim).is_none_or(|width| width > MAX_WIDTH) {
        return Err(reader.bad("attention.key_length", format!("{n_head} heads of {head_dim}")));
    }
    if reader.optional_dim("attention.value_length")?.is_some_and(|d| d != head_dim) {
        return Err(reader.bad("attention.value_length", "differs from the key length: not supported"));
    }
    Ok(TextConfig {
        n_embd,
        n_layer,
        n_head,
        n_head_kv,
        head_dim,
        n_ff: reader.dim("feed_forward_length")?,
        n_vocab: weights.n_vocab(),
        n_ctx_train: reader.dim("context_length")?,
    })
}

/// The context length before it was extended.
///
/// # Errors
/// `BadConfig`.
pub fn original_context(reader: &Reader, config: &TextConfig) -> Result<usize> {
    Ok(reader.optional_dim("rope.scaling.original_context_length")?.unwrap_or(config.n_ctx_train))
}

/// Rotation parameters: `rope.dimension_count`, `.freq_base`, `.scaling.*`.
///
/// # Errors
/// `BadConfig`.
pub fn rope(reader: &Reader, config: &TextConfig, pairing: RopePairing) -> Result<RopeParams> {
    let head_dim = config.head_dim;
    let n_rot = reader.optional_dim("rope.dimension_count")?.unwrap_or(head_dim);
    if n_rot % 2 != 0 || n_rot > head_dim {
        return Err(
            reader.bad("rope.dimension_count", format!("{n_rot} is odd or above the head size {head_dim}"))
        );
    }
    let base = reader.positive("rope.freq_base", 10_000.0)?;
    let mut magnitude = reader.positive("rope.scaling.attn_factor", 1.0)?;
    let factor = match reader.number("rope.scaling.factor")? {
        Some(factor) => Some(("rope.scaling.factor", factor)),
        None => reader.number("rope.scale_linear")?.map(|factor| ("rope.scale_linear", factor)),
    };
    let factor = match factor {
        None | Some((_, 0.0)) => 1.0,
        Some((key, factor)) if factor < 0.0 => return Err(reader.bad(key, format!("{factor} is below zero"))),
        Some((_, factor)) => factor,
    };
    let (scale, yarn) = match reader.str("rope.scaling.type")? {
        Some("none") => (1.0, None),
        None | Some("linear" | "longrope") => (1.0 / factor, None),
        Some("yarn") => {
            // Peng et al. 2023, section 3.4.
            magnitude *= 1.0 + 0.1 * factor.max(1.0).ln();
            let n_ctx_orig = original_context(reader, config)?;
            (1.0 / factor, Some(Yarn { n_ctx_orig, beta_fast: 32.0, beta_slow: 1.0 }))
        }
        Some(other) => {
            return Err(reader.bad("rope.scaling.type", format!("scaling {other:?} is not supported")));
        }
    };
    Ok(RopeParams { pairing, n_rot, base, scale, yarn, magnitude })
}

/// Which layers attend to a window only, and its length; `None` where all attend to everything.
pub struct Windows {
    /// Positions that such a layer sees.
    pub window: usize,
    /// Per layer, whether it has the window.
    pub is_local: Vec<bool>,
}

impl Windows {
    /// `attention.sliding_window` (0 or absent for none) and `attention.sliding_window_pattern`: a
    /// bool per layer, or a number n (by default `period`) with the last of every n layers global.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn read(reader: &Reader, n_layer: usize, period: usize) -> Result<Option<Windows>> {
        match reader.count("attention.sliding_window")? {
            None | Some(0) => Ok(None),
            Some(window) => Windows::with(reader, n_layer, window, period).map(Some),
        }
    }

    /// As [`Self::read`], with a window already known.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn with(reader: &Reader, n_layer: usize, window: usize, period: usize) -> Result<Windows> {
        let key = "attention.sliding_window_pattern";
        let is_local = match reader.bools(key, n_layer)? {
            Some(pattern) => pattern,
            None => {
                let period = reader.count(key)?.unwrap_or(period);
                (0..n_layer).map(|i| period == 0 || i % period < period - 1).collect()
            }
        };
        Ok(Windows { window, is_local })
    }

    /// The window of layer `i`, 0 for none.
    pub fn of(windows: Option<&Windows>, i: usize) -> usize {
        windows.filter(|w| w.is_local[i]).map_or(0, |w| w.window)
    }
}
