//! Batch normalisation in UNeXt (batch 8 at 256x256): ebn1 to ebn3, dbn1 to dbn4.

use shadegrad::ops::batch_norm::{BatchNormSettings, forward};
use shadegrad::ops::{Mode, RunningStats, Version};
use shadegrad::{Device, Result, Tape, Tensor};

use super::BenchCase;

const SHAPES: [[usize; 4]; 7] = [
    [8, 256, 256, 16],
    [8, 128, 128, 32],
    [8, 64, 64, 128],
    [8, 8, 8, 160],
    [8, 16, 16, 128],
    [8, 32, 32, 32],
    [8, 64, 64, 16],
];

/// What [`BenchCase::prepare`] is.
type Prepare = Box<dyn Fn(&Device) -> Result<super::Work>>;

struct Inputs {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
}

impl Inputs {
    fn new(device: &Device, shape: [usize; 4]) -> Result<Self> {
        let vector = |value| device.tensor("bench", [shape[3]], &vec![value; shape[3]]);
        let (weight, bias, mean, var) = (vector(1.0)?, vector(0.0)?, vector(0.0)?, vector(1.0)?);
        Ok(Self { x: device.zeros("bench", shape)?, weight, bias, mean, var })
    }

    fn forward(&self, mode: Mode, version: Version, x: &Tensor) -> Result<Tensor> {
        let running = RunningStats { mean: &self.mean, var: &self.var };
        let settings = BatchNormSettings { mode, momentum: 0.1, eps: 1e-5 };
        forward(x, &self.weight, &self.bias, &running, &settings, version)
    }
}

pub fn cases() -> Vec<BenchCase> {
    let mut cases = Vec::new();
    for shape in SHAPES {
        for version in [Version::V1, Version::V2] {
            let bytes = shape.iter().product::<usize>() as f64 * 4.0;
            let flops = bytes / 4.0;
            let case = |entry, passes: f64, work| BenchCase {
                op: "batch_norm",
                entry,
                version: version.name(),
                case: format!("unext {shape:?}"),
                flops: flops * passes * 2.0,
                bytes: bytes * passes,
                prepare: work,
            };
            // x is read for the statistics and for y, which is written; both passes over a chunk count as one.
            cases.push(case(
                "forward train",
                3.0,
                work(shape, move |i| i.forward(Mode::Train, version, &i.x).map(drop)),
            ));
            cases.push(case("forward eval", 2.0, work(shape, move |i| i.forward(Mode::Eval, version, &i.x).map(drop))));
            // Forward is part of this figure: the gradient needs its statistics. x and gy are read twice.
            let step = move |i: &Inputs| {
                let tape = Tape::new();
                let y = i.forward(Mode::Train, version, &tape.watch_input(&i.x))?;
                tape.backward_from(&y, &i.x).map(drop)
            };
            cases.push(case("forward and backward", 8.0, work(shape, step)));
        }
    }
    cases
}

fn work(shape: [usize; 4], run: impl Fn(&Inputs) -> Result<()> + Copy + 'static) -> Prepare {
    Box::new(move |device| {
        let inputs = Inputs::new(device, shape)?;
        Ok(Box::new(move || run(&inputs)))
    })
}
