//! Cases of clipping: norms above and below the limit, zero gradients, tiny and huge ones, a factor from before.

use shadegrad::ops::clip_norm;

use super::{Case, SUMS, by_fours, numbers};

const OP: &str = "clip_norm";

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for count in [1, 63, 10007, 300_001, 600_004] {
        for max_norm in [0.1, 1e4] {
            cases.push(case(count, 1.0, max_norm, 1.0));
        }
    }
    cases.push(case(1000, 0.0, 1.0, 1.0));
    cases.push(case(1000, 1e-12, 1.0, 1.0));
    cases.push(case(1000, 1e12, 1.0, 0.25));
    cases
}

fn case(count: usize, scale: f32, max_norm: f64, factor: f32) -> Case {
    Case::new(OP, format!("{count} times {scale}, limit {max_norm}, factor {factor}"), move |device, checks| {
        let g: Vec<f32> = numbers("g", count).iter().map(|g| g * scale).collect();
        let norm = f64::from(factor) * g.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let want = f64::from(factor) * (f64::from(max_norm as f32) / (norm + 1e-6)).min(1.0);
        for &of in by_fours(count) {
            let step = device.tensor(OP, [4], &[1.0, 2.0, 3.0, factor])?;
            let got = clip_norm::clip(max_norm, &device.tensor(OP, [count], &g)?, &step, of)?.to_vec()?[0];
            let step = step.to_vec()?;
            let version = if matches!(device, shadegrad::Device::Cpu(_)) { "plain" } else { of.name() };
            // Scaled to 1, so that the bounds mean something for tiny ones.
            let ratio = |got: f32, want: f64| if want == 0.0 { got } else { (f64::from(got) / want) as f32 };
            let unit = |want: f64| if want == 0.0 { 0.0 } else { 1.0 };
            checks.values("clip norm", version, &[ratio(got, norm)], &[unit(norm)], SUMS);
            checks.values("clip factor", version, &[ratio(step[3], want)], &[unit(want)], SUMS);
            checks.values("clip the rest of step", version, &step[..3], &[1.0, 2.0, 3.0], super::EXACT);
        }
        Ok(())
    })
}
