//! Cases of the transposed weights: convolutions of several kernels and linear layers, alone and many at once, in one
//! buffer and in different ones, asked for in the expected order and in another.

use shadegrad::ops::{self, transpose_weights::TurnedWeights};

use super::{Case, EXACT, numbers};

const OP: &str = "transpose_weights";

/// `[.., in, out]` -> `[.., out, in]`, the leading positions in reverse.
fn turned(shape: &[usize], values: &[f32]) -> Vec<f64> {
    let [.., inputs, outputs] = *shape else { panic!("a weight has inputs and outputs") };
    let taps = values.len() / (inputs * outputs);
    let mut all = Vec::new();
    for tap in (0..taps).rev() {
        for o in 0..outputs {
            all.extend((0..inputs).map(|i| f64::from(values[(tap * inputs + i) * outputs + o])));
        }
    }
    all
}

const SHAPES: [&[usize]; 7] =
    [&[3, 3, 16, 8], &[5, 7], &[1, 1, 3, 1], &[7, 7, 3, 5], &[2, 3, 4, 5], &[256, 160], &[3, 3, 64, 72]];

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = SHAPES.into_iter().map(alone).collect();
    cases.extend([2, 32, 67].map(together));
    cases
}

fn alone(shape: &'static [usize]) -> Case {
    Case::new(OP, format!("{shape:?}"), move |device, checks| {
        let values = numbers("w", shape.iter().product());
        let weight = device.tensor(OP, shadegrad::Shape::new(shape)?, &values)?;
        let found = ops::transpose_weights(&[&weight])?.remove(0);
        checks.compare("transpose", "v1", &found, &turned(shape, &values), EXACT)
    })
}

/// Weights that are parts of one tensor, and one that is not; the third is not asked for, the fourth and fifth change
/// places.
fn together(count: usize) -> Case {
    Case::new(OP, format!("{count} weights together"), move |device, checks| {
        const PLACE: usize = 49152;
        let values = numbers("all", count * PLACE);
        let all = device.tensor(OP, [count * PLACE], &values)?;
        let mut weights = Vec::new();
        for layer in 0..count {
            let shape = SHAPES[layer % SHAPES.len()];
            let len: usize = shape.iter().product();
            let own = &values[layer * PLACE..][..len];
            let shape = shadegrad::Shape::new(shape)?;
            let weight = match layer {
                1 => device.tensor(OP, shape, own)?,
                _ => all.images(&(layer * PLACE..layer * PLACE + len)).reshape(shape)?,
            };
            weights.push((weight, turned(SHAPES[layer % SHAPES.len()], own)));
        }
        let mut ahead = TurnedWeights::ahead(weights.iter().map(|(weight, _)| weight.detach()).collect());
        let mut order: Vec<usize> = (0..count).filter(|layer| *layer != 2).collect();
        if count > 5 {
            order.swap(2, 3);
        }
        for layer in order {
            let (weight, want) = &weights[layer];
            checks.compare("transpose", "v1", &ahead.take(weight)?, want, EXACT)?;
        }
        Ok(())
    })
}
