//! Batch normalisation in train mode with bilinear upsampling and a skip connection, and a ReLU where the layer has one;
//! `eval` are the running statistics applied.

use shadegrad::ops::batch_norm_upsample_bilinear::forward;
use shadegrad::ops::{BatchNormSettings, Mode};
use shadegrad::{Result, Tape, Tensor};

use super::batch_norm::Inputs;
use super::{BenchCase, Cost, IMAGES, Layer, Work, versions};

pub const FORM: &str = IMAGES;

pub fn cases(layer: &Layer) -> Result<Vec<BenchCase>> {
    let ([n, h, w, c], elements, relu) = (layer.nhwc()?, layer.elements(), layer.relu);
    let y = [n, 2 * h, 2 * w, c];
    let settings = move |mode| BatchNormSettings { relu, ..BatchNormSettings::new(mode) };
    let mut cases = Vec::new();
    for &version in versions(c.is_multiple_of(4)) {
        let forward = move |inputs: &Inputs, x: &Tensor, weight: &Tensor, mode, skip: &Tensor| {
            forward(x, [weight, &inputs.bias], &inputs.running(), &settings(mode), skip, version)
        };
        let mut launch = |entry, mode, cost| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let (inputs, skip) = (Inputs::new(device, [n, h, w, c])?, device.zeros("bench", y)?);
                Work::launch(move || forward(&inputs, &inputs.x, &inputs.weight, mode, &skip).map(drop))
            }));
        };
        // x is read for the statistics and for y; y and skip have four times the elements each.
        launch("forward", Mode::Train, Cost::of(48.0 * elements, 10.0 * elements));
        launch("eval", Mode::Eval, Cost::of(44.0 * elements, 9.0 * elements));
        let mut gradient = |entry, cost, watched: fn(&Inputs, &Tape) -> [Tensor; 2]| {
            cases.push(BenchCase::new(layer, FORM, entry, version.name(), cost, move |device| {
                let (inputs, gy) = (Inputs::new(device, [n, h, w, c])?, device.zeros("bench", y)?);
                let skip = gy.clone();
                Work::gradient(gy, move |tape| {
                    let [x, weight] = watched(&inputs, tape);
                    forward(&inputs, &x, &weight, Mode::Train, &skip)
                })
            }));
        };
        // gy and x are read for gv and its sums, and gv and x again for gx.
        gradient("backward_input", Cost::of(41.0 * elements, 9.0 * elements), |inputs, tape| {
            [tape.watch_input(&inputs.x), inputs.weight.clone()]
        });
        gradient("backward_sums", Cost::of(36.0 * elements, 6.0 * elements), |inputs, tape| {
            [inputs.x.clone(), tape.watch_input(&inputs.weight)]
        });
    }
    Ok(cases)
}
