//! Which of its kernels an op takes: the one that `shadegrad tune` found fastest for these sizes on this device, else the
//! one that usually is.

use std::fmt;

use super::{Version, op_of, plan, shaders};
use crate::Result;
use crate::gpu::plan::PlanEvent;
use crate::gpu::shader::TOGETHER;
use crate::gpu::{Constants, Context, Part, Question, Shader, Sizes, Tuned};
use crate::tensor::Device;

/// A kernel: its version, and the numbers of `// @tune` constants that are not those of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Which one.
    pub version: Version,
    /// Its constants.
    pub constants: Constants,
}

impl From<Version> for Kernel {
    fn from(version: Version) -> Self {
        Self { version, constants: Constants::default() }
    }
}

impl fmt::Display for Kernel {
    /// `v2`, `v2 TILE_M=4`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.version.name())?;
        if self.constants == Constants::default() { Ok(()) } else { write!(out, " {}", self.constants) }
    }
}

impl Kernel {
    /// `v1`, and `v2` with each combination of the shader's constants that `takes` allows, the file's own first. Neighbours share
    /// in tiles of the file's size only: compiling takes longer than timing.
    pub(super) fn all(device: &Device, shader: &Shader, takes: impl Fn(Self) -> bool) -> Vec<Self> {
        let v2 = shader.variants().into_iter().map(|constants| Self { version: Version::V2, constants });
        let can = |kernel: &Self| !kernel.shares() || (device.has_subgroups() && kernel.constants == together());
        std::iter::once(Version::V1.into()).chain(v2.filter(can).filter(|kernel| takes(*kernel))).collect()
    }

    /// The usual one of an op with tiles: `v2` where they fit, in software with neighbours that share; else `v1`.
    pub(super) fn usual(device: &Device, fits: bool) -> Self {
        if fits { Self { version: Version::V2, constants: usual_lanes(device) } } else { Version::V1.into() }
    }

    /// Whether neighbours share what they read.
    pub(super) fn shares(self) -> bool {
        self.number(TOGETHER, 1) > 1
    }

    /// The number of a constant that is `usual` in the file.
    pub(super) fn number(self, name: &str, usual: usize) -> usize {
        self.constants.number(name, usual)
    }
}

/// Lets ops take the kernels that `shadegrad tune` found fastest on a device's adapter, with its driver and our shaders'
/// text. Nothing happens on the CPU, with `SHADEGRAD_TUNE=0`, or where nothing was tuned.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) or [`Error::Io`](crate::Error::Io) for a cache file that cannot be used; then
/// the usual kernels are taken.
pub fn use_tuned(device: &Device) -> Result<()> {
    let Device::Gpu(context) = device else { return Ok(()) };
    let file = match Tuned::file(context.switches.cache.as_deref(), context.facts()) {
        Ok(file) if !context.switches.usual_kernels => file,
        _ => return Ok(()), // a user without a cache folder has tuned nothing
    };
    context.use_tuned(Tuned::read(&file, context.facts())?.current(|op| text_hash(context, op).ok()));
    Ok(())
}

/// A short name of the text of an op's kernels; of all its shaders, joined by `+`.
///
/// # Errors
/// A shader that cannot be read.
pub fn text_hash(context: &Context, op: &str) -> Result<String> {
    let of_op = shaders().filter(|shader| op_of(shader.name) == op);
    let hashes: Vec<String> = of_op.map(|shader| context.text_hash(shader)).collect::<Result<_>>()?;
    Ok(hashes.join("+"))
}

/// The answer to an op's question, if there is one among `candidates`; else `usual`. On a device that only plans, the
/// question is noted. `None`: sizes that no question can name.
pub(super) fn choose<K: Copy + fmt::Display>(
    device: &Device,
    question: impl FnOnce() -> Option<Question>,
    usual: K,
    candidates: impl FnOnce() -> Vec<K>,
) -> K {
    let Device::Gpu(context) = device else { return usual };
    if !context.hears_questions() {
        return usual;
    }
    let Some(question) = question() else { return usual };
    let candidates = candidates();
    if candidates.len() > 1 {
        context.note(|| PlanEvent::Asked {
            question,
            usual: usual.to_string(),
            candidates: candidates.iter().map(ToString::to_string).collect(),
        });
    }
    let tuned =
        context.tuned(&question).and_then(|name| candidates.into_iter().find(|kernel| kernel.to_string() == name));
    let kernel = tuned.unwrap_or(usual);
    context.say_once(3, || {
        let reason = if tuned.is_some() { Some("tuned".to_owned()) } else { rule(&question, &kernel.to_string()) };
        Some(format!("{question}: {kernel}, {}; first of its sizes", reason?))
    });
    kernel
}

/// The constants of kernels whose neighbours share what they read: `shaders/lib/lanes_together.wgsl`.
pub fn together() -> Constants {
    Constants::from(&[(TOGETHER, 8)][..])
}

/// The constants that say whether neighbours share what they read. In software they do: it makes tiles 1.2 to 1.5 times as fast
/// (measured with Mesa's llvmpipe), because there a read costs as much as a few multiply-adds. On a GPU nobody has measured it:
/// `tune` may find out.
pub(super) fn usual_lanes(device: &Device) -> Constants {
    match device {
        Device::Gpu(context) if context.facts().software && context.has_subgroups() => together(),
        _ => Constants::default(),
    }
}

/// All of those for a device.
pub(super) fn all_lanes(device: &Device) -> impl Iterator<Item = Constants> + use<> {
    let together = device.has_subgroups().then(together);
    std::iter::once(Constants::default()).chain(together)
}

/// [`choose`] between versions 1 and 2 of an op that has one version for both directions.
pub(super) fn version(device: &Device, op: &'static str, sizes: impl FnOnce() -> Sizes, usual: Version) -> Version {
    let question = || Some(Question { op, part: Part::Both, sizes: sizes() });
    choose(device, question, usual, || match usual {
        Version::V1 => vec![Version::V1],
        Version::V2 => vec![Version::V1, Version::V2],
    })
}

/// When the op takes this kernel without an answer.
fn rule(question: &Question, kernel: &str) -> Option<String> {
    let version = kernel.split(' ').next()?;
    let stem = if question.part == Part::BackwardWeight { "backward_weight" } else { "forward" };
    plan::rule(question.op, &format!("{stem}_{version}"))
}
