//! What the ops on all parameters have in common ([`adam`](mod@super::adam), [`sgd`](mod@super::sgd), [`ema`](mod@super::ema),
//! [`clip_norm`](mod@super::clip_norm)): one number at a time, or four.

use super::Version;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// When `v2` is taken, for [`Plan`](super::plan::Plan).
pub(super) const RULE: (&str, &str) = ("_v2", "the numbers divide by 4");

/// Four at a time where that divides.
pub(super) fn select(numbers: &Tensor) -> Version {
    if numbers.len().is_multiple_of(4) { Version::V2 } else { Version::V1 }
}

/// The entry point of an update in place, and how many invocations update `count` numbers.
///
/// # Errors
/// [`Error::Shape`] for [`Version::V2`] if they do not divide by 4.
pub(super) fn entry(op: &'static str, version: Version, count: usize) -> Result<(&'static str, usize)> {
    match version {
        Version::V1 => Ok(("update_v1", count)),
        Version::V2 if count.is_multiple_of(4) => Ok(("update_v2", count / 4)),
        Version::V2 => Err(Error::shape(op, format!("v2 needs 4n numbers, got {count}"))),
    }
}
