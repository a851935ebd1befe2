//! The logistic function and its gradient.

use shadegrad::{Result, ops};

use super::{BenchCase, IMAGES, Layer, pointwise, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let of = |version| pointwise(layer, FORM, [4.0, 3.0], version, ops::sigmoid::forward);
    Ok(versions(layer.x.len().is_multiple_of(4)).iter().flat_map(|version| of(*version)).collect())
}
