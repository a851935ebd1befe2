//! Skip connections: the upsampled image, then the skip; and both parts of the gradient.

use shadegrad::{Result, ops};

use super::{BenchCase, Cost, Layer, Work, versions};

pub const FORM: &str = "NxHxWxC OTHER";

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], other) = (layer.nhwc()?, layer.out);
    let (a, b) = ([n, h, w, c], [n, h, w, other]);
    let cost = Cost::of(0.0, 2.0 * (n * h * w * (c + other)) as f64);
    let mut cases = Vec::new();
    for &version in versions(c.is_multiple_of(4) && other.is_multiple_of(4)) {
        cases.push(BenchCase::new(layer, FORM, "forward", version.name(), cost, move |device| {
            let (a, b) = (device.zeros("bench", a)?, device.zeros("bench", b)?);
            Work::launch(move || ops::concat::forward(&a, &b, version).map(drop))
        }));
        cases.push(BenchCase::new(layer, FORM, "backward", version.name(), cost, move |device| {
            let (a, b) = (device.zeros("bench", a)?, device.zeros("bench", b)?);
            let gy = device.zeros("bench", [n, h, w, c + other])?;
            Work::gradient(gy, move |tape| ops::concat::forward(&tape.watch_input(&a), &tape.watch_input(&b), version))
        }));
    }
    Ok(cases)
}
