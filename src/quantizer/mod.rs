//! From float weights to files of few bits: what is kept in which type, what that costs, and the file itself.
//!
//! A model passes through twice where a budget is given: [`Survey`] measures what each type would cost each tensor,
//! [`plan`](Survey::plan) spends the budget, and [`Rewriter`] writes the file. Both are [`Sink`]s: they take tensors as
//! they arrive, row by row, so that the same code serves the command line, the page and a load with `quantize`. The
//! bytes depend on nothing but the input and the options.
//!
//! [`Sink`]: crate::container::stream::Sink

mod allocate;
mod arriving;
mod gptq;
pub mod import;
mod outline;
pub mod pictures;
mod plan;
pub mod policy;
mod rewrite;
mod rows;
mod sequential;
mod shapes;
mod statistics;
mod survey;

pub use allocate::{Budget, CurvePoint};
pub use arriving::Arriving;
pub use import::Files;
pub use outline::{Extra, Outline, Target, Transform};
pub use plan::{Plan, Planned};
pub use rewrite::{Calibration, Report, RewriteOptions, Rewriter, TensorReport};
pub use sequential::{MovedInputs, Rounded};
pub use shapes::restore_shapes;
pub use statistics::Statistics;
pub use survey::{Choice, Survey, SurveyOptions, Surveyed, Surveyor};

use crate::error::{Code, Error, Result};
use crate::quant::{DType, FORMATS, Format};

/// The type of that name, if it can be written.
///
/// # Errors
/// [`Code::BadArgument`] naming the option `key` and the types that can be.
pub fn writable(name: &str, key: &str) -> Result<DType> {
    let is_writable = |f: &Format| f.codec.is_some_and(|c| c.quantize.is_some());
    match DType::from_name(name).and_then(DType::format).filter(|f| is_writable(f)) {
        Some(format) => Ok(format.dtype),
        None => {
            let known: Vec<_> = FORMATS.iter().filter(|f| is_writable(f)).map(|f| f.name).collect();
            let rule = format!("{name:?} cannot be quantized to; supported: {}", known.join(", "));
            Err(Error::new(Code::BadArgument, rule).key(key))
        }
    }
}
