//! Batch normalisation in train mode, with a ReLU where the layer has one; `eval` are the running statistics applied.

use shadegrad::ops::batch_norm::{BatchNormSettings, forward};
use shadegrad::ops::{Mode, RunningStats, Version};
use shadegrad::{Device, Result, Tape, Tensor};

use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

struct Inputs {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    relu: bool,
}

impl Inputs {
    fn new(device: &Device, shape: [usize; 4], relu: bool) -> Result<Self> {
        let vector = |value| device.tensor("bench", [shape[3]], &vec![value; shape[3]]);
        let (weight, bias, mean, var) = (vector(1.0)?, vector(0.0)?, vector(0.0)?, vector(1.0)?);
        Ok(Self { x: device.zeros("bench", shape)?, weight, bias, mean, var, relu })
    }

    fn forward(&self, x: &Tensor, weight: &Tensor, mode: Mode, version: Version) -> Result<Tensor> {
        let running = RunningStats { mean: &self.mean, var: &self.var };
        let settings = BatchNormSettings { relu: self.relu, ..BatchNormSettings::new(mode) };
        forward(x, weight, &self.bias, &running, &settings, version)
    }
}

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (shape, elements, relu) = (layer.nhwc()?, layer.elements(), layer.relu);
    let mut cases = Vec::new();
    for &version in versions(shape[3].is_multiple_of(4)) {
        let mut launch = |entry, mode, cost| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let inputs = Inputs::new(device, shape, relu)?;
                Work::launch(move || inputs.forward(&inputs.x, &inputs.weight, mode, version).map(drop))
            }));
        };
        // x is read for the statistics and for y, which is written; both passes over a chunk count as one.
        launch("forward", Mode::Train, Cost::of(6.0 * elements, 3.0 * elements));
        launch("eval", Mode::Eval, Cost::of(2.0 * elements, 2.0 * elements));
        let mut gradient = |entry, cost, record: fn(&Inputs, &Tape, Version) -> Result<Tensor>| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let inputs = Inputs::new(device, shape, relu)?;
                Work::gradient(inputs.x.clone(), move |tape| record(&inputs, tape, version))
            }));
        };
        // x and gy are read for the sums and again for gx, which is written.
        gradient("backward_input", Cost::of(10.0 * elements, 5.0 * elements), |inputs, tape, version| {
            inputs.forward(&tape.watch_input(&inputs.x), &inputs.weight, Mode::Train, version)
        });
        gradient("backward_sums", Cost::of(5.0 * elements, 2.0 * elements), |inputs, tape, version| {
            inputs.forward(&inputs.x, &tape.watch_input(&inputs.weight), Mode::Train, version)
        });
    }
    Ok(cases)
}
