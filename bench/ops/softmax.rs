//! Class probabilities of every pixel, and their gradient.

use shadegrad::{Result, ops};

use super::{BenchCase, IMAGES, Layer, pointwise, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let of = |version| pointwise(layer, FORM, [4.0, 4.0], version, ops::softmax::forward);
    Ok(versions(layer.x.last().is_multiple_of(4)).iter().flat_map(|version| of(*version)).collect())
}
