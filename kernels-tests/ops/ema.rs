//! Cases of the moving average: three updates with a slow, a fast and no memory.

use shadegrad::ops::ema;

use super::{Case, POINTWISE, by_fours, doubles, numbers};

const OP: &str = "ema";

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for count in [1, 63, 10004, 10007] {
        for decay in [0.999, 0.5, 0.0] {
            cases.push(case(count, decay));
        }
    }
    cases
}

fn case(count: usize, decay: f64) -> Case {
    Case::new(OP, format!("{count} decay {decay}"), move |device, checks| {
        let share = f64::from((1.0 - decay) as f32);
        let start = numbers("average", count);
        for &version in by_fours(count) {
            let mut want = doubles(&start);
            let average = device.tensor(OP, [count], &start)?;
            for t in 0..3 {
                let parameter = numbers(&format!("p{t}"), count);
                ema::update(decay, &device.tensor(OP, [count], &parameter)?, &average, version)?;
                for (want, p) in want.iter_mut().zip(&parameter) {
                    *want += share * (f64::from(*p) - *want);
                }
            }
            checks.compare("update", version.name(), &average, &want, POINTWISE)?;
        }
        Ok(())
    })
}
