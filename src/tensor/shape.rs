//! The extent of each axis, at most four.

use std::fmt;

use crate::{Error, Result};

/// Up to four extents: images `[N, H, W, C]`, conv weights `[kh, kw, in, out]`, linear `[in, out]`, vectors `[C]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// A shape of up to four extents.
    ///
    /// # Errors
    /// [`Error::Shape`] for more than four.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.len() > 4 {
            return Err(Error::shape("shape", format!("{dims:?} has more than four axes")));
        }
        let mut all = [1; 4];
        all[..dims.len()].copy_from_slice(dims);
        Ok(Self { dims: all, rank: dims.len() })
    }

    /// The extents.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// How many axes.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many elements.
    #[allow(clippy::len_without_is_empty, reason = "a shape always has elements; ops refuse extents of 0")]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// The last extent: channels.
    pub fn last(&self) -> usize {
        self.dims[self.rank.max(1) - 1]
    }

    /// The same shape with another first extent.
    pub(crate) fn with_first(mut self, first: usize) -> Self {
        self.dims[0] = first;
        self
    }

    /// The same shape with another last extent.
    pub(crate) fn with_last(mut self, last: usize) -> Self {
        self.dims[self.rank.max(1) - 1] = last;
        self
    }

    /// The four extents of an image batch `[N, H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the op if there are not four, or if one is 0.
    pub fn nhwc(&self, op: &'static str) -> Result<[usize; 4]> {
        if self.rank != 4 || self.len() == 0 {
            return Err(Error::shape(op, format!("needs images [batch, height, width, channels], got {self}")));
        }
        Ok(self.dims)
    }

    /// Rows and channels: everything but the last axis taken together.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the op if there is no element.
    pub fn rows(&self, op: &'static str) -> Result<(usize, usize)> {
        if self.rank == 0 || self.len() == 0 {
            return Err(Error::shape(op, format!("needs at least one element, got {self}")));
        }
        Ok((self.len() / self.last(), self.last()))
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        const { assert!(N <= 4, "at most four axes") };
        let mut all = [1; 4];
        all[..N].copy_from_slice(&dims);
        Self { dims: all, rank: N }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}
