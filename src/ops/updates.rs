//! What the ops on all parameters have in common ([`adam`](mod@super::adam), [`sgd`](mod@super::sgd), [`ema`](mod@super::ema),
//! [`clip_norm`](mod@super::clip_norm)): one number at a time, or four.

use super::Version;
use crate::{Error, Result};

/// When `v2` is taken, for [`Plan`](super::plan::Plan).
pub(super) const RULE: (&str, &str) = ("_v2", "the numbers divide by 4");

/// Whether a version takes `count` numbers.
///
/// # Errors
/// [`Error::Shape`] for [`Version::V2`] if they do not divide by 4.
pub(super) fn check(op: &'static str, version: Version, count: usize) -> Result<()> {
    if version == Version::V2 && Version::by_fours(count) != Version::V2 {
        return Err(Error::shape(op, format!("v2 needs 4n numbers, got {count}")));
    }
    Ok(())
}

/// The entry point of an update in place, and how many invocations update `count` numbers.
///
/// # Errors
/// As [`check`].
pub(super) fn entry(op: &'static str, version: Version, count: usize) -> Result<(&'static str, usize)> {
    check(op, version, count)?;
    Ok(match version {
        Version::V1 => ("update_v1", count),
        Version::V2 => ("update_v2", count / 4),
    })
}
