//! Batch normalisation in train mode, with a ReLU where the layer has one; `eval` are the running statistics applied.

use shadegrad::ops::batch_norm::{BatchNormSettings, forward};
use shadegrad::ops::{Mode, RunningStats};
use shadegrad::{Device, Result, Tape, Tensor};

use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

/// Of a batch normalisation, alone or in an op with more.
pub struct Inputs {
    pub x: Tensor,
    pub weight: Tensor,
    pub bias: Tensor,
    mean: Tensor,
    var: Tensor,
}

impl Inputs {
    pub fn new(device: &Device, shape: [usize; 4]) -> Result<Self> {
        let vector = |value| device.tensor("bench", [shape[3]], &vec![value; shape[3]]);
        let (weight, bias, mean, var) = (vector(1.0)?, vector(0.0)?, vector(0.0)?, vector(1.0)?);
        Ok(Self { x: device.zeros("bench", shape)?, weight, bias, mean, var })
    }

    pub fn running(&self) -> RunningStats<'_> {
        RunningStats { mean: &self.mean, var: &self.var }
    }
}

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let (shape, elements, relu) = (layer.nhwc()?, layer.elements(), layer.relu);
    let mut cases = Vec::new();
    for &version in versions(shape[3].is_multiple_of(4)) {
        let forward = move |inputs: &Inputs, x: &Tensor, weight: &Tensor, mode| {
            let settings = BatchNormSettings { relu, ..BatchNormSettings::new(mode) };
            forward(x, weight, &inputs.bias, &inputs.running(), &settings, version)
        };
        let mut launch = |entry, mode, cost| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let inputs = Inputs::new(device, shape)?;
                Work::launch(move || forward(&inputs, &inputs.x, &inputs.weight, mode).map(drop))
            }));
        };
        // x is read for the statistics and for y, which is written; both passes over a chunk count as one.
        launch("forward", Mode::Train, Cost::of(6.0 * elements, 3.0 * elements));
        launch("eval", Mode::Eval, Cost::of(2.0 * elements, 2.0 * elements));
        let mut gradient = |entry, cost, watched: fn(&Inputs, &Tape) -> [Tensor; 2]| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let inputs = Inputs::new(device, shape)?;
                Work::gradient(inputs.x.clone(), move |tape| {
                    let [x, weight] = watched(&inputs, tape);
                    forward(&inputs, &x, &weight, Mode::Train)
                })
            }));
        };
        // x and gy are read for the sums and again for gx, which is written.
        gradient("backward_input", Cost::of(10.0 * elements, 5.0 * elements), |inputs, tape| {
            [tape.watch_input(&inputs.x), inputs.weight.clone()]
        });
        gradient("backward_sums", Cost::of(5.0 * elements, 2.0 * elements), |inputs, tape| {
            [inputs.x.clone(), tape.watch_input(&inputs.weight)]
        });
    }
    Ok(cases)
}
