//! Why an op takes which version of its kernels, and an op of any sizes on its own: for `show plan` and the debug
//! ladder. Each op's file says both in its `PLAN`; here they are looked up and run.

use std::cell::{Cell, RefCell};

use super::{PLANS, op_of};
use crate::gpu::Part;
pub use crate::gpu::Sizes;
use crate::tensor::random::Stream;
use crate::tensor::{DType, Device, Shape, Tensor};
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

/// The tensors of a [`Plan`]'s run: numbers between -1 and 1, the same in every run; none where nothing is computed.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Where the op runs.
    pub device: &'a Device,
    /// What was asked for.
    pub sizes: Sizes,
    /// What records the op, and the gradients that are wanted.
    recorded: Option<(&'a Tape, Part)>,
    /// Tensors of the runs before, in the order in which an op asks for them.
    made: &'a RefCell<Vec<Tensor>>,
    next: Cell<usize>,
}

impl Inputs<'_> {
    /// A tensor of [`Sizes::shape`] whose gradient is wanted; of 16-bit floats if the sizes say so.
    ///
    /// # Errors
    /// As [`Device::empty_as`].
    pub fn x(&self) -> Result<Tensor> {
        let images = if self.sizes.half { DType::F16 } else { DType::F32 };
        self.watched(self.sizes.shape, images, Part::BackwardInput)
    }

    /// A further tensor whose gradient is wanted: a weight, a bias, the second of two inputs.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn input(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        self.watched(shape.into(), DType::F32, Part::BackwardWeight)
    }

    fn watched(&self, shape: Shape, dtype: DType, part: Part) -> Result<Tensor> {
        let tensor = self.made(shape, dtype)?;
        match self.recorded {
            Some((tape, wanted)) if wanted == part || wanted == Part::Both => Ok(tape.watch_input(&tensor)),
            _ => Ok(tensor),
        }
    }

    /// A tensor that is not differentiated.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn constant(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        self.made(shape.into(), DType::F32)
    }

    /// The next tensor: that of the runs before, or a new one.
    fn made(&self, shape: Shape, dtype: DType) -> Result<Tensor> {
        let index = self.next.replace(self.next.get() + 1);
        if let Some(made) = self.made.borrow().get(index) {
            return Ok(made.clone());
        }
        let tensor = numbers(self.device, &format!("tensor {index}"), shape, dtype)?;
        self.made.borrow_mut().push(tensor.clone());
        Ok(tensor)
    }

    /// As many numbers as [`Sizes::shape`] has, in one row: parameters, gradients, moments.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn flat(&self) -> Result<Tensor> {
        self.constant([self.sizes.shape.len()])
    }
}

/// Numbers between -1 and 1 that belong to a name; a tensor without numbers on a device that only plans.
fn numbers(device: &Device, name: &str, shape: Shape, dtype: DType) -> Result<Tensor> {
    const OP: &str = "plan";
    let tensor = device.empty_as(OP, shape, dtype)?;
    if !matches!(device, Device::Gpu(context) if context.is_planning()) {
        let stream = Stream::named(OP, name);
        let values: Vec<f32> = (0..shape.len() as u64).map(|index| stream.unit(index)).collect();
        tensor.write(&values)?;
    }
    Ok(tensor)
}

/// An op of any sizes that can be run again and again on the same tensors.
#[derive(Debug)]
pub struct Prepared {
    plan: &'static Plan,
    device: Device,
    sizes: Sizes,
    made: RefCell<Vec<Tensor>>,
}

impl Prepared {
    /// Looks the op up; its tensors are made by the first run.
    ///
    /// # Errors
    /// [`Error::Config`] for an op that does not exist.
    pub fn new(op: &str, device: &Device, sizes: Sizes) -> Result<Self> {
        let Some(plan) = PLANS.iter().find(|plan| plan.op == op) else {
            let names: Vec<&str> = PLANS.iter().map(|plan| plan.op).collect();
            return Err(Error::Config(format!("there is no op {op}; there are {}", names.join(", "))));
        };
        Ok(Self { plan, device: device.clone(), sizes, made: RefCell::default() })
    }

    /// Runs the op without recording it. Its result can be differentiated; `None` for an op without a gradient.
    ///
    /// # Errors
    /// As the op.
    pub fn forward(&self) -> Result<Option<Tensor>> {
        self.run(None)
    }

    /// Runs the op and records it for the gradients of a part: of what [`Inputs::x`] gave it, of what
    /// [`Inputs::input`] did, or of both.
    ///
    /// # Errors
    /// As the op.
    pub fn record(&self, tape: &Tape, part: Part) -> Result<Option<Tensor>> {
        self.run(Some((tape, part)))
    }

    /// A gradient for a result.
    ///
    /// # Errors
    /// As [`Device::tensor`].
    pub fn gradient_of(&self, y: &Tensor) -> Result<Tensor> {
        numbers(&self.device, "gradient", y.shape(), y.dtype())
    }

    fn run(&self, recorded: Option<(&Tape, Part)>) -> Result<Option<Tensor>> {
        let Self { plan, device, sizes, made } = self;
        (plan.run)(&Inputs { device, sizes: *sizes, recorded, made, next: Cell::new(0) })
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
    let plan = PLANS.iter().find(|plan| plan.op == op_of(shader))?;
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
    let prepared = Prepared::new(op, device, *sizes)?;
    let tape = Tape::new();
    let y = prepared.record(&tape, Part::Both)?;
    let macs = tape.operations().iter().map(|operation| operation.macs).sum();
    if let Some(y) = y {
        tape.backward_from(&y, &prepared.gradient_of(&y)?)?;
    }
    Ok(macs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::plan::PlanEvent;
    use crate::gpu::translate::Translator;
    use crate::ops::{SHADERS, shaders};

    #[test]
    fn every_version_says_when_it_is_taken() -> Result<()> {
        for plan in PLANS {
            let mut entries = Vec::new();
            for shader in shaders().filter(|shader| op_of(shader.name) == plan.op) {
                let half = shader.assemble_half(None, &[]); // which may have more
                let text = Translator::new(&half.or_else(|_| shader.assemble(None, &[]))?, true)?;
                for entry in text.entries() {
                    assert_eq!(rule(shader.name, entry).is_some(), entry.contains("_v"), "{} {entry}", shader.name);
                    entries.push(entry.to_owned());
                }
            }
            for (ending, _) in plan.rules {
                let used = entries.iter().any(|entry| entry.ends_with(ending));
                assert!(used, "{} has no entry point that ends in {ending}", plan.op);
            }
        }
        Ok(())
    }

    /// Launches of an op, as `entry`.
    fn launched(op: &str, shape: Shape, out: usize) -> Result<Vec<&'static str>> {
        let device = Device::plan(None)?;
        let Device::Gpu(context) = &device else { panic!("a plan is a GPU's") };
        run(op, &device, &Sizes { out, kernel: 3, padding: 1, ..Sizes::of(shape) })?;
        let entries = context.take_plan().into_iter().filter_map(|event| match event {
            PlanEvent::Launched(launch) if op_of(launch.shader) == op => Some(launch.entry),
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
                (0, 0) => "backward_v2", // with the gradient of x
                (_, 0) => "backward_weight_v2",
                _ => "backward_weight_v1",
            };
            assert_eq!(entries.first(), Some(&forward), "{c} -> {out}");
            assert!(entries.contains(&weight), "{c} -> {out}: {entries:?}");
        }
        Ok(())
    }
}
