//! Where the taps of a convolution or of pooling lie: shared by all kernels over feature maps.
//!
//! Feature maps are channel-last, `[height, width, channels]`: a tap is then a run of channels, and a
//! convolution of one tap is a matrix product as it stands.

/// The taps of one output, along rows and along columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Taps: rows, columns.
    pub size: [usize; 2],
    /// Inputs between neighbouring outputs.
    pub stride: [usize; 2],
    /// Rows above and columns left of the map that count as zeros.
    pub pad: [usize; 2],
    /// Inputs between neighbouring taps.
    pub dilation: [usize; 2],
}

impl Window {
    /// One tap per output.
    pub const POINT: Window = Window { size: [1, 1], stride: [1, 1], pad: [0, 0], dilation: [1, 1] };

    /// A square window without dilation.
    pub fn square(size: usize, stride: usize, pad: usize) -> Self {
        Window { size: [size; 2], stride: [stride; 2], pad: [pad; 2], dilation: [1, 1] }
    }

    /// Taps per output.
    pub fn n_taps(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Inputs that an output spans along `axis`.
    pub fn extent(&self, axis: usize) -> usize {
        (self.size[axis] - 1) * self.dilation[axis] + 1
    }

    /// Whether every input is one output's only tap.
    pub fn is_point(&self) -> bool {
        *self == Window { dilation: self.dilation, ..Window::POINT }
    }

    /// The input along `axis` that tap `tap` of output `out` reads, of `len`; `None` in the padding.
    #[inline(always)]
    pub fn input(&self, axis: usize, out: usize, tap: usize, len: usize) -> Option<usize> {
        let at = (out * self.stride[axis] + tap * self.dilation[axis]).checked_sub(self.pad[axis])?;
        (at < len).then_some(at)
    }
}
