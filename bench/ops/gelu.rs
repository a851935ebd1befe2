//! GELU and its gradient: a polynomial of degree 10, an exponential, two divisions.

use shadegrad::{Result, ops};

use super::{BenchCase, IMAGES, Layer, pointwise, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let of = |version| pointwise(layer, FORM, [45.0, 47.0], version, ops::gelu::forward);
    Ok(versions(layer.x.len().is_multiple_of(4)).iter().flat_map(|version| of(*version)).collect())
}
