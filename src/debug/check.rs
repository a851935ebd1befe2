//! `SHADEGRAD_CHECK=1`: every op of a real step is also computed by the CPU reference, forward and backward.
//! `SHADEGRAD_NAN=1`: every result must be finite.
//!
//! An op's public function hands its inputs through [`On`], which is all that its author has to do:
//! `observed(OP, x.device(), |on| forward(&on.read(x)?, ..))`. Here the same function is called three times: with the
//! tensors as they are, with copies of them on the CPU device, and with copies whose numbers are changed in their last
//! bits. The second result says what is right. The third says how much rounding can matter: where it differs from the
//! second by d, the device may differ by [`NOISE`] d. So a sum that cancels to zero (the gradient of a bias in front
//! of a batch norm) is allowed its rounding noise, and a sum that does not cancel is not.
//!
//! The gradient of an op needs nothing of its author: the tape calls [`play`], which puts CPU copies in the place of
//! the tensors that the op kept. What the forward pass keeps (means, winners) is compared too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::autograd::{Backward, Tape, kept_for};
use crate::gpu::plan::PlanEvent;
use crate::tensor::{DType, Device, Shape, Tensor};
use crate::{Error, Result};

/// Times the change that last bits make, a result may differ from the reference.
const NOISE: f32 = 64.0;
/// Share of the largest number around, that a result may differ from the reference.
const RELATIVE: f32 = 1e-5;
/// The same for 16-bit floats: one rounding, and one of what an op adds to.
const HALF_RELATIVE: f32 = 1.0 / (1 << 10) as f32;
/// What rounding to 16-bit floats on the way (2^-11) is, as a multiple of [`NUDGE`].
const HALF_NOISE: f32 = 2048.0;
/// The distance of the smallest 16-bit floats.
const HALF_STEP: f32 = 1.0 / (1 << 24) as f32;
/// Relative change of each number in the third call: two to four units in the last place.
const NUDGE: f32 = 1.0 / (1 << 22) as f32;

/// What has been compared on one device.
#[derive(Debug, Default)]
pub struct Checks {
    state: Mutex<State>,
    quiet: bool,
}

#[derive(Debug, Default)]
struct State {
    compared: BTreeMap<&'static str, u64>,
    /// Largest share of what was allowed, and where.
    closest: (f32, String),
}

impl Checks {
    /// Checks that do not say at their end what they have compared.
    pub fn quiet() -> Self {
        Self { quiet: true, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counters: a panic elsewhere cannot leave them half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comparisons per op so far; all were right, since the first that is not ends in an error.
    pub fn compared(&self) -> Vec<(&'static str, u64)> {
        self.state().compared.iter().map(|(op, count)| (*op, *count)).collect()
    }

    fn count(&self) -> u64 {
        self.state().compared.values().sum()
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        let state = self.state();
        let (ops, count) = (state.compared.len(), state.compared.values().sum::<u64>());
        let (share, at) = &state.closest;
        if count > 0 && !self.quiet {
            let closest = format!("the largest used {:.0} % of what rounding may do ({at})", share * 100.0);
            super::print(&format!(
                "SHADEGRAD_CHECK: {count} comparisons of {ops} ops with the CPU reference; {closest}"
            ));
        }
    }
}

/// How an op sees its tensors: as they are, or as copies on the CPU.
pub(crate) struct On<'a> {
    copies: Option<&'a Copies>,
    /// (tensor, its copy if there is one) of everything handed through.
    seen: Option<&'a RefCell<Seen>>,
}

#[derive(Default)]
struct Seen {
    read: Vec<Tensor>,
    changed: Vec<Tensor>,
}

/// Where copies go.
struct Copies {
    cpu: Device,
    nudged: bool,
    /// Copies of watched tensors are watched too: then what the op keeps for its gradient can be compared.
    tape: Tape,
    changed: RefCell<Vec<Tensor>>,
}

impl On<'_> {
    /// A tensor that the op reads.
    pub(crate) fn read(&self, tensor: &Tensor) -> Result<Tensor> {
        if let Some(seen) = self.seen {
            seen.borrow_mut().read.push(tensor.detach());
        }
        match self.copies {
            None => Ok(tensor.clone()),
            Some(copies) => copies.of(tensor),
        }
    }

    /// A tensor that the op may do without.
    pub(crate) fn maybe(&self, tensor: Option<&Tensor>) -> Result<Option<Tensor>> {
        tensor.map(|tensor| self.read(tensor)).transpose()
    }

    /// A tensor that the op changes in place, or fills.
    pub(crate) fn change(&self, tensor: &Tensor) -> Result<Tensor> {
        if let Some(seen) = self.seen {
            seen.borrow_mut().changed.push(tensor.detach());
        }
        let Some(copies) = self.copies else { return Ok(tensor.clone()) };
        let copy = copies.of(tensor)?;
        copies.changed.borrow_mut().push(copy.clone());
        Ok(copy)
    }

    /// The device of the copies, for what is more than a tensor.
    pub(crate) fn cpu(&self) -> Option<&Device> {
        self.copies.map(|copies| &copies.cpu)
    }
}

impl Copies {
    fn new(cpu: &Device, nudged: bool) -> Self {
        Self { cpu: cpu.clone(), nudged, tape: Tape::new(), changed: RefCell::default() }
    }

    fn of(&self, tensor: &Tensor) -> Result<Tensor> {
        let copy = match tensor.dtype() {
            DType::U32 => self.cpu.tensor_u32("check", tensor.shape(), &tensor.to_vec_u32()?)?,
            // The reference computes with the very numbers that are stored.
            DType::F32 | DType::F16 => {
                let mut values = tensor.to_vec()?;
                if self.nudged {
                    values.iter_mut().enumerate().for_each(|(at, value)| *value += *value * nudge(at));
                }
                self.cpu.tensor("check", tensor.shape(), &values)?
            }
        };
        Ok(if tensor.slot.is_some() { self.tape.watch_input(&copy) } else { copy })
    }
}

/// Up or down, by a hash of the position.
fn nudge(at: usize) -> f32 {
    if (at as u32).wrapping_mul(0x9E37_79B1) >> 31 == 0 { NUDGE } else { -NUDGE }
}

/// The tensors of an op's result.
pub(crate) trait Outputs {
    /// In the order of the result.
    fn tensors(&self) -> Vec<&Tensor>;
}

impl Outputs for () {
    fn tensors(&self) -> Vec<&Tensor> {
        Vec::new()
    }
}

impl Outputs for Vec<Tensor> {
    fn tensors(&self) -> Vec<&Tensor> {
        self.iter().collect()
    }
}

impl Outputs for Tensor {
    fn tensors(&self) -> Vec<&Tensor> {
        vec![self]
    }
}

/// Runs an op. With `SHADEGRAD_CHECK` its results are compared with those of the CPU reference, with `SHADEGRAD_NAN`
/// they must be finite; `SHADEGRAD_TRACE` notes when it ran. With none of them this is a call of `run`.
///
/// # Errors
/// Those of `run`; [`Error::Check`] and [`Error::NonFinite`] naming op, shape, index and values.
pub(crate) fn observed<R: Outputs>(op: &'static str, device: &Device, run: impl Fn(&On<'_>) -> Result<R>) -> Result<R> {
    let switches = device.switches();
    let _span = switches.span("op", op);
    let plain = On { copies: None, seen: None };
    if !switches.looks_at_results() {
        let result = run(&plain)?;
        finished(op, device, false, || result.tensors().first().map(|tensor| tensor.shape()));
        return Ok(result);
    }
    let twins = match (device, &switches.checks) {
        (Device::Gpu(_), Some(checks)) => {
            // First, because the op may change its inputs.
            let cpu = Device::cpu();
            let (exact, nudged) = (Copies::new(&cpu, false), Copies::new(&cpu, true));
            let wanted = run(&On { copies: Some(&exact), seen: None })?;
            let moved = run(&On { copies: Some(&nudged), seen: None })?;
            Some((checks, exact, nudged, wanted, moved))
        }
        _ => None,
    };
    let seen = RefCell::default();
    let from = device.kernels_mark();
    let result = run(&On { copies: None, seen: Some(&seen) })?;
    let seen = seen.into_inner();
    let report = Report { op, pass: "", inputs: &seen.read, kernels: &device.kernels_since(from), device };
    if let Some((checks, exact, nudged, wanted, moved)) = twins {
        let of = |outputs: &R| outputs.tensors().into_iter().cloned().collect::<Vec<_>>();
        report.compare_all(checks, "result", &of(&result), &of(&wanted), &of(&moved))?;
        let (exact, nudged) = (exact.changed.into_inner(), nudged.changed.into_inner());
        report.compare_all(checks, "changed tensor", &seen.changed, &exact, &nudged)?;
        if let [y] = result.tensors()[..] {
            let kept = [y, wanted.tensors()[0], moved.tensors()[0]].map(kept_for);
            let known =
                |tensor: &Tensor| tensor.same_place(y) || seen.read.iter().any(|input| input.same_place(tensor));
            for (index, got) in kept[0].iter().enumerate().filter(|(_, got)| !known(got)) {
                if let (Some(wanted), Some(moved)) = (kept[1].get(index), kept[2].get(index)) {
                    report.compare(checks, &format!("kept tensor {index}"), got, wanted, moved)?;
                }
            }
        }
    }
    if switches.nan {
        for (index, tensor) in result.tensors().into_iter().enumerate() {
            report.finite(&format!("result{}", numbered(index)), tensor)?;
        }
        for (index, tensor) in seen.changed.iter().enumerate() {
            report.finite(&format!("changed tensor{}", numbered(index)), tensor)?;
        }
    }
    Ok(result)
}

/// Plays the gradient of a recorded op, observed as [`observed`] does. `run` calls its `backward` on the device that
/// it is given; the op's kept tensors are replaced, so it cannot be played again.
///
/// # Errors
/// As [`observed`].
pub(crate) fn play(
    op: &mut dyn Backward,
    gy: &Tensor,
    run: impl Fn(&dyn Backward, &Tensor, bool) -> Result<Vec<Option<Tensor>>>,
) -> Result<Vec<Option<Tensor>>> {
    let (name, device) = (op.name(), gy.device());
    let switches = device.switches();
    let _span = switches.span("backward", name);
    if !switches.looks_at_results() {
        let gradients = run(op, gy, true)?;
        finished(name, device, true, || Some(gy.shape()));
        return Ok(gradients);
    }
    let from = device.kernels_mark();
    let gradients = run(op, gy, true)?;
    let kernels = device.kernels_since(from);
    let kept: Vec<Tensor> = op.saved().into_iter().map(|tensor| tensor.detach()).collect();
    let inputs: Vec<Tensor> = std::iter::once(gy.detach()).chain(kept.iter().cloned()).collect();
    let report = Report { op: name, pass: " backward", inputs: &inputs, kernels: &kernels, device };
    if let (Device::Gpu(_), Some(checks)) = (device, &switches.checks) {
        let cpu = Device::cpu();
        let mut on = |nudged| {
            let copies = Copies::new(&cpu, nudged);
            for (place, original) in op.saved().into_iter().zip(&kept) {
                *place = copies.of(original)?;
            }
            if nudged {
                op.decide_otherwise();
            }
            run(op, &copies.of(&gy.detach())?, false)
        };
        let (wanted, moved) = (on(false)?, on(true)?);
        for (index, got) in gradients.iter().enumerate() {
            let pair = (wanted.get(index).and_then(Option::as_ref), moved.get(index).and_then(Option::as_ref));
            match (got, pair) {
                (Some(got), _) if got.same_place(gy) => {} // handed on as it came
                (Some(got), (Some(wanted), Some(moved))) => {
                    report.compare(checks, &format!("gradient of input {index}"), got, wanted, moved)?;
                }
                (None, (None, None)) => {}
                _ => return Err(report.differs(&format!("gradient of input {index}"), "only one device made it")),
            }
        }
    }
    if switches.nan {
        for (index, gradient) in gradients.iter().enumerate() {
            if let Some(gradient) = gradient {
                report.finite(&format!("gradient of input {index}"), gradient)?;
            }
        }
    }
    Ok(gradients)
}

/// Tells a device that only plans.
fn finished(op: &'static str, device: &Device, backward: bool, result: impl FnOnce() -> Option<Shape>) {
    if let Device::Gpu(context) = device {
        context.note(|| PlanEvent::Finished { op, backward, result: result() });
    }
}

fn numbered(index: usize) -> String {
    if index == 0 { String::new() } else { format!(" {index}") }
}

/// What a message needs to know.
struct Report<'a> {
    op: &'static str,
    /// `" backward"` or nothing.
    pass: &'static str,
    inputs: &'a [Tensor],
    kernels: &'a [String],
    device: &'a Device,
}

impl Report<'_> {
    fn compare_all(
        &self,
        checks: &Checks,
        what: &str,
        got: &[Tensor],
        wanted: &[Tensor],
        moved: &[Tensor],
    ) -> Result<()> {
        for (index, ((got, wanted), moved)) in got.iter().zip(wanted).zip(moved).enumerate() {
            self.compare(checks, &format!("{what}{}", numbered(index)), got, wanted, moved)?;
        }
        Ok(())
    }

    fn compare(&self, checks: &Checks, what: &str, got: &Tensor, wanted: &Tensor, moved: &Tensor) -> Result<()> {
        let shape = got.shape();
        let what = format!("{what} {shape}");
        let integers = |tensor: &Tensor| tensor.dtype() == DType::U32;
        if wanted.len() != got.len() || integers(wanted) != integers(got) {
            return Err(self.differs(&what, &format!("the reference makes {}", wanted.shape())));
        }
        let wrong = |at: usize, got: String, wanted: String, allowed: f32| {
            let element = place(at, shape);
            let before = checks.count();
            self.differs(
                &what,
                &format!(
                    "element {element} is {got} on {}, but {wanted} by the CPU reference (rounding may make {allowed:.1e}); {before} comparisons before it were right",
                    self.device
                ),
            )
        };
        let share = match got.dtype() {
            DType::U32 => {
                let (got, wanted) = (got.to_vec_u32()?, wanted.to_vec_u32()?);
                if let Some(at) = (0..got.len()).find(|at| got[*at] != wanted[*at]) {
                    return Err(wrong(at, got[at].to_string(), wanted[at].to_string(), 0.0));
                }
                0.0
            }
            dtype @ (DType::F32 | DType::F16) => {
                let (got, wanted, moved) = (got.to_vec()?, wanted.to_vec()?, moved.to_vec()?);
                let groups = Groups::of(shape);
                let allowed = groups.allowed(dtype, &wanted, &moved);
                let mut share = 0.0_f32;
                for (at, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                    // What is too large for 16-bit floats is infinite.
                    let too_large =
                        dtype == DType::F16 && got.is_infinite() && half::f16::from_f32(*wanted).is_infinite();
                    if got == wanted || too_large || (got.is_nan() && wanted.is_nan()) {
                        continue;
                    }
                    let (difference, allowed) = ((got - wanted).abs(), allowed[groups.at(at)]);
                    if difference.is_nan() || difference > allowed {
                        return Err(wrong(at, got.to_string(), wanted.to_string(), allowed));
                    }
                    share = share.max(difference / allowed);
                }
                share
            }
        };
        let mut state = checks.state();
        *state.compared.entry(self.op).or_default() += 1;
        if share > state.closest.0 {
            state.closest = (share, format!("{}{}: {what}", self.op, self.pass));
        }
        Ok(())
    }

    fn differs(&self, what: &str, message: &str) -> Error {
        let shapes: Vec<String> = self.inputs.iter().map(|input| input.shape().to_string()).collect();
        let message = format!(
            "{what}: {message}; inputs {}; kernels {}; a kernel's cases: shadegrad check {}",
            shapes.join(" "),
            self.kernels.join(", "),
            self.op
        );
        Error::Check { op: format!("{}{}", self.op, self.pass), message }
    }

    fn finite(&self, what: &str, tensor: &Tensor) -> Result<()> {
        let Some((at, value)) = first_non_finite(tensor)? else { return Ok(()) };
        let mut origin = "all its inputs are finite".to_owned();
        for (index, input) in self.inputs.iter().enumerate() {
            if let Some((at, value)) = first_non_finite(input)? {
                origin = format!("its input {index} {} is {value} at {}", input.shape(), place(at, input.shape()));
                break;
            }
        }
        let (op, pass, shape) = (self.op, self.pass, tensor.shape());
        let kernels =
            if self.kernels.is_empty() { String::new() } else { format!("; kernels {}", self.kernels.join(", ")) };
        Err(Error::NonFinite(format!(
            "SHADEGRAD_NAN: {op}{pass}: {what} {shape}: element {} is {value}; {origin}{kernels}",
            place(at, shape)
        )))
    }
}

fn first_non_finite(tensor: &Tensor) -> Result<Option<(usize, f32)>> {
    if tensor.dtype() == DType::U32 {
        return Ok(None);
    }
    Ok(tensor.to_vec()?.into_iter().enumerate().find(|(_, value)| !value.is_finite()))
}

/// `[n, y, x, c]` and the flat index.
fn place(at: usize, shape: Shape) -> String {
    let mut rest = at;
    let mut axes: Vec<usize> = shape
        .dims()
        .iter()
        .rev()
        .map(|extent| {
            let index = rest % extent;
            rest /= extent;
            index
        })
        .collect();
    axes.reverse();
    format!("{axes:?} (number {at})")
}

/// Numbers that share their tolerance: those of a channel, or 64 neighbours where there are few per channel.
struct Groups {
    channels: usize,
    len: usize,
}

impl Groups {
    fn of(shape: Shape) -> Self {
        let (channels, len) = (shape.last(), shape.len());
        Self { channels: if len / channels.max(1) >= 8 { channels } else { 0 }, len }
    }

    fn at(&self, index: usize) -> usize {
        if self.channels == 0 { index / 64 } else { index % self.channels }
    }

    /// The largest difference that rounding explains, per group.
    fn allowed(&self, dtype: DType, wanted: &[f32], moved: &[f32]) -> Vec<f32> {
        let (relative, times, least) = match dtype {
            DType::F16 => (HALF_RELATIVE, HALF_NOISE, HALF_STEP),
            DType::F32 | DType::U32 => (RELATIVE, NOISE, f32::MIN_POSITIVE),
        };
        let count = if self.channels == 0 { self.len.div_ceil(64) } else { self.channels };
        let (mut scale, mut noise) = (vec![0.0_f32; count], vec![0.0_f32; count]);
        for (at, (wanted, moved)) in wanted.iter().zip(moved).enumerate() {
            let group = self.at(at);
            if wanted.is_finite() && moved.is_finite() {
                scale[group] = scale[group].max(wanted.abs());
                noise[group] = noise[group].max((wanted - moved).abs());
            }
        }
        scale.iter().zip(&noise).map(|(scale, noise)| (relative * scale + times * noise).max(least)).collect()
    }
}
