//! Shapes that GGUF cannot give together with a type: its rows must be whole blocks.
//!
//! Convolution kernels of few columns and matrices whose rows are no multiple of 256 are therefore declared with other
//! shapes, of as many elements in the same order, and a metadata key keeps those that the model needs. Files of
//! language models never have it: other programs read them too.

use super::Target;
use crate::container::{Array, Header, Metadata, Value};
use crate::error::{Code, Error, Result};
use crate::quant::DType;
use crate::repack::TILE_K;

/// The key: strings such as `patch_embed.proj.weight=192,3,16,16`.
const KEY: &str = "bitpane.shapes";

/// Rows that one strip of the kernels holds: blocks may reach over rows, but not over strips.
const STRIP: usize = 16;

/// The shape to declare for a matrix of that shape in that type; `None` where there is none.
pub fn declared(shape: &[usize], (n, k): (usize, usize), dtype: DType) -> Option<Vec<usize>> {
    let block = dtype.format()?.block_len;
    if shape.last().is_some_and(|last| last.is_multiple_of(block)) {
        return Some(shape.to_vec());
    }
    if k.is_multiple_of(block) {
        return Some(vec![n, k]);
    }
    // Such matrices are held as 8-bit codes with a scale per tile of k.
    if !k.is_multiple_of(TILE_K) {
        return None;
    }
    // As few rows together as make whole blocks.
    let together = [2, 4, 8, 16].into_iter().find(|rows| (rows * k).is_multiple_of(block))?;
    (n.is_multiple_of(together) && STRIP.is_multiple_of(together)).then(|| vec![n / together, k * together])
}

/// Bytes that the key takes beside its strings.
pub const KEY_BYTES: u64 = 8 + KEY.len() as u64 + 4 + 4 + 8;

fn line(target: &Target) -> String {
    let dims: Vec<String> = target.shape.iter().map(usize::to_string).collect();
    format!("{}={}", target.name, dims.join(","))
}

/// Bytes that a target takes in the key, less the dimensions that it need not be declared with: 0 where it is declared as
/// it is.
pub fn recorded_bytes(target: &Target, declared: &[usize]) -> u64 {
    let spared = 8 * target.shape.len().saturating_sub(declared.len()) as u64;
    // A line is longer than what it spares: it holds a name, and at least two characters a dimension.
    if target.shape == declared { 0 } else { (8 + line(target).len() as u64).saturating_sub(spared).max(1) }
}

/// Adds the key for those targets whose declared shape is another.
pub fn record(metadata: &mut Metadata, targets: &[Target], declared: &[Vec<usize>]) {
    let other = targets.iter().zip(declared).filter(|(t, shape)| t.shape != **shape);
    let lines: Vec<String> = other.map(|(target, _)| line(target)).collect();
    if !lines.is_empty() {
        metadata.push(KEY.into(), Value::Array(Array::Str(lines.iter().collect())));
    }
}

/// Gives the tensors of a header that was read the shapes that the model needs.
///
/// # Errors
/// [`Code::BadShape`] for shapes with other numbers of elements, or of no tensor.
pub fn restore_shapes(header: &mut Header) -> Result<()> {
    let lines = match header.metadata.array(KEY)? {
        None => return Ok(()),
        Some(Array::Str(lines)) => lines.clone(),
        Some(_) => return Err(Error::new(Code::BadValue, "expected strings").key(KEY)),
    };
    for line in lines.iter() {
        let bad = |what: &str| {
            let line: String = String::from_utf8_lossy(line).chars().take(80).collect();
            Error::new(Code::BadShape, format!("{what}: {line:?}")).key(KEY)
        };
        let line = str::from_utf8(line).map_err(|_| bad("not UTF-8"))?;
        let (name, dims) = line.rsplit_once('=').ok_or_else(|| bad("no shape"))?;
        let shape: Option<Vec<usize>> = dims.split(',').map(|d| d.parse().ok()).collect();
        let shape = shape.filter(|s| s.len() <= 8).ok_or_else(|| bad("not a shape"))?;
        let count = |shape: &[usize]| shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
        let tensor =
            header.tensors.iter_mut().find(|t| t.name == name).ok_or_else(|| bad("no such tensor"))?;
        if count(&shape) != count(&tensor.shape) || count(&shape).is_none() {
            return Err(bad("another number of elements than the tensor has"));
        }
        tensor.shape = shape;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_joined_only_where_the_kernels_can_hold_them() {
        assert_eq!(declared(&[192, 192], (192, 192), DType::Q4_K), Some(vec![48, 768]));
        assert_eq!(declared(&[256, 48], (256, 48), DType::Q6_K), None);
        assert_eq!(declared(&[256, 3, 4, 4], (256, 48), DType::Q8_0), None);
    }
}
