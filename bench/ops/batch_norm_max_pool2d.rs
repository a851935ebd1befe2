//! Batch normalisation in train mode with max pooling, and a ReLU where the layer has one; `eval` are the running
//! statistics applied.

use shadegrad::ops::batch_norm_max_pool2d::forward;
use shadegrad::ops::{BatchNormSettings, Mode};
use shadegrad::{Result, Tape, Tensor};

use super::batch_norm::Inputs;
use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], elements, relu) = (layer.nhwc()?, layer.elements(), layer.relu);
    let settings = move |mode| BatchNormSettings { relu, ..BatchNormSettings::new(mode) };
    let mut cases = Vec::new();
    for &version in versions(c.is_multiple_of(4)) {
        let forward = move |inputs: &Inputs, x: &Tensor, weight: &Tensor, mode| {
            forward(x, weight, &inputs.bias, &inputs.running(), &settings(mode), version)
        };
        let mut launch = |entry, mode, cost| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let inputs = Inputs::new(device, [n, h, w, c])?;
                Work::launch(move || forward(&inputs, &inputs.x, &inputs.weight, mode).map(drop))
            }));
        };
        // x is read for the statistics and for y; y and the winners are a quarter of it each.
        launch("forward", Mode::Train, Cost::of(5.0 * elements, 2.5 * elements));
        launch("eval", Mode::Eval, Cost::of(elements, 1.5 * elements));
        let mut gradient = |entry, cost, watched: fn(&Inputs, &Tape) -> [Tensor; 2]| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let (inputs, gy) = (Inputs::new(device, [n, h, w, c])?, device.zeros("bench", [n, h / 2, w / 2, c])?);
                Work::gradient(gy, move |tape| {
                    let [x, weight] = watched(&inputs, tape);
                    forward(&inputs, &x, &weight, Mode::Train)
                })
            }));
        };
        // gy, the winners and x there are read for the sums; gy, the winners and x again for gx, which is written.
        gradient("backward_input", Cost::of(6.25 * elements, 3.25 * elements), |inputs, tape| {
            [tape.watch_input(&inputs.x), inputs.weight.clone()]
        });
        gradient("backward_sums", Cost::of(1.25 * elements, 0.75 * elements), |inputs, tape| {
            [inputs.x.clone(), tape.watch_input(&inputs.weight)]
        });
    }
    Ok(cases)
}
