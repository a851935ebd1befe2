//! Why an op takes which version of its kernels, and an op of any sizes on its own: for `show plan` and the debug
//! ladder. Each op's file says both in its `PLAN`; here they are looked up and run.

use super::PLANS;
use crate::tensor::random::Stream;
use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result, Tape};

/// What an op says about its kernels.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The op, as its files are called.
    pub op: &'static str,
    /// Entry points (all versions of what ends so), and when that version is taken. `_v1` is taken else.
    pub rules: &'static [(&'static str, &'static str)],
    /// Runs the op's forward pass; returns the result to differentiate, `None` for an op without a gradient.
    pub run: fn(&Inputs<'_>) -> Result<Option<Tensor>>,
}

/// Sizes of an op on its own.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Of x: images `[N, H, W, C]`, or what else the op takes.
    pub shape: Shape,
    /// Channels of the result, for ops with a weight; of the other tensor, for `concat`.
    pub out: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Of convolutions.
    pub stride: usize,
    /// Of convolutions.
    pub padding: usize,
}

/// Makes the tensors of a [`Plan`]'s run: numbers between -1 and 1, the same in every run; none where nothing is computed.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Where the op runs.
    pub device: &'a Device,
    /// What was asked for.
    pub sizes: Sizes,
    tape: &'a Tape,
}

impl Inputs<'_> {
    /// A tensor of [`Sizes::shape`] whose gradient is wanted.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn x(&self) -> Result<Tensor> {
        self.input(self.sizes.shape)
    }

    /// A tensor whose gradient is wanted.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn input(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        Ok(self.tape.watch_input(&self.constant(shape)?))
    }

    /// A tensor that is not differentiated.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn constant(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        const OP: &str = "plan";
        let shape = shape.into();
        if matches!(self.device, Device::Gpu(context) if context.is_planning()) {
            return self.device.empty(OP, shape);
        }
        let stream = Stream::named(OP, "numbers");
        let values: Vec<f32> = (0..shape.len() as u64).map(|index| stream.unit(index)).collect();
        self.device.tensor(OP, shape, &values)
    }

    /// As many numbers as [`Sizes::shape`] has, in one row: parameters, gradients, moments.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn flat(&self) -> Result<Tensor> {
        self.constant([self.sizes.shape.len()])
    }
}

/// When an op takes this entry point of its shader; `None` for one that has no versions.
///
/// ```
/// use shadegrad::ops::plan::rule;
/// assert_eq!(rule("relu", "forward_v2").as_deref(), Some("the elements divide by 4"));
/// assert_eq!(rule("relu", "forward_v1").as_deref(), Some("not so that: the elements divide by 4"));
/// assert_eq!(rule("max_pool2d", "forward"), None);
/// ```
pub fn rule(shader: &str, entry: &str) -> Option<String> {
    let (stem, version) = entry.rsplit_once("_v").filter(|(_, version)| version.parse::<u32>().is_ok())?;
    let plan = PLANS.iter().find(|plan| plan.op == shader)?;
    let of = |entry: &str| plan.rules.iter().find(|(ending, _)| entry.ends_with(ending)).map(|(_, rule)| *rule);
    if version != "1" {
        return of(entry).map(str::to_owned);
    }
    let better: Vec<&str> = (2..10).filter_map(|number| of(&format!("{stem}_v{number}"))).collect();
    (!better.is_empty()).then(|| format!("not so that: {}", better.join(", or ")))
}

/// Runs an op forward and, where it has a gradient, backward, on tensors of these sizes; returns its multiply-adds. On a
/// device that only plans ([`Device::plan`]) this takes no time whatever the sizes.
///
/// # Errors
/// [`Error::Config`] for an op that does not exist; else as the op.
pub fn run(op: &str, device: &Device, sizes: &Sizes) -> Result<u64> {
    let Some(plan) = PLANS.iter().find(|plan| plan.op == op) else {
        let names: Vec<&str> = PLANS.iter().map(|plan| plan.op).collect();
        return Err(Error::Config(format!("there is no op {op}; there are {}", names.join(", "))));
    };
    let tape = Tape::new();
    let inputs = Inputs { device, sizes: *sizes, tape: &tape };
    let y = (plan.run)(&inputs)?;
    let macs = tape.operations().iter().map(|operation| operation.macs).sum();
    if let Some(y) = y {
        let gy = inputs.constant(y.shape())?;
        tape.backward_from(&y, &gy)?;
    }
    Ok(macs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::plan::PlanEvent;
    use crate::gpu::translate::Translator;
    use crate::ops::SHADERS;

    #[test]
    fn every_version_says_when_it_is_taken() -> Result<()> {
        for shader in SHADERS {
            let text = Translator::new(&shader.assemble(None, &[])?, true)?;
            let entries = text.entries();
            for entry in &entries {
                assert_eq!(rule(shader.name, entry).is_some(), entry.contains("_v"), "{} {entry}", shader.name);
            }
            let plan = PLANS.iter().find(|plan| plan.op == shader.name);
            for (ending, _) in plan.map_or(&[][..], |plan| plan.rules) {
                let used = entries.iter().any(|entry| entry.ends_with(ending));
                assert!(used, "{} has no entry point that ends in {ending}", shader.name);
            }
        }
        Ok(())
    }

    /// Launches of an op, as `entry`.
    fn launched(op: &str, shape: Shape, out: usize) -> Result<Vec<&'static str>> {
        let device = Device::plan(None)?;
        let Device::Gpu(context) = &device else { panic!("a plan is a GPU's") };
        run(op, &device, &Sizes { shape, out, kernel: 3, stride: 1, padding: 1 })?;
        let entries = context.take_plan().into_iter().filter_map(|event| match event {
            PlanEvent::Launched(launch) if launch.shader == op => Some(launch.entry),
            _ => None,
        });
        Ok(entries.collect())
    }

    #[test]
    fn every_op_can_be_planned() -> Result<()> {
        for shader in SHADERS {
            assert!(!launched(shader.name, [2, 8, 8, 16].into(), 16)?.is_empty(), "{} launched nothing", shader.name);
        }
        Ok(())
    }

    #[test]
    fn the_rules_of_conv2d_hold() -> Result<()> {
        for (c, out) in [(16, 16), (3, 16), (16, 3), (3, 1)] {
            let entries = launched("conv2d", [1, 8, 8, c].into(), out)?;
            let forward = if out % 8 == 0 { "forward_v2" } else { "forward_v1" };
            let weight = match (c % 8, out % 8) {
                (0, 0) => "backward_weight_v3",
                (_, 0) => "backward_weight_v2",
                _ => "backward_weight_v1",
            };
            assert_eq!(entries.first(), Some(&forward), "{c} -> {out}");
            assert!(entries.contains(&weight), "{c} -> {out}: {entries:?}");
        }
        Ok(())
    }
}
