//! Which of its kernels an op takes: the one that `shadegrad tune` found fastest for these sizes on this device, else the
//! one that usually is.

use std::fmt;

use super::{Tile, Version, op_of, plan, shaders};
use crate::Result;
use crate::gpu::plan::PlanEvent;
use crate::gpu::shader::{BLOCK, SPLIT, TOGETHER};
use crate::gpu::{Constants, Context, Part, Question, Shader, Sizes, Tuned, WORKGROUP};
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
    /// `v2` with these constants.
    pub fn tiled(constants: Constants) -> Self {
        Self { version: Version::V2, constants }
    }

    /// `v1`, and `v2` with each combination of the shader's constants that `takes` allows, the file's own first. Neighbours share
    /// in tiles of the file's size only: compiling takes longer than timing.
    pub(super) fn all(device: &Device, shader: &Shader, takes: impl Fn(Self) -> bool) -> Vec<Self> {
        let v2 = shader.variants().into_iter().map(Self::tiled);
        let can = |kernel: &Self| !kernel.shares() || (device.has_subgroups() && kernel.constants == together());
        std::iter::once(Version::V1.into()).chain(v2.filter(can).filter(|kernel| takes(*kernel))).collect()
    }

    /// The usual one of an op with tiles: `v2` where they fit; on a GPU by blocks if it can, in software with neighbours that share.
    /// Else `v1`.
    pub(super) fn usual(device: &Device, product: Product, fits: bool) -> Self {
        if !fits {
            return Version::V1.into();
        }
        let constants = product.usual_block(device).unwrap_or_else(|| usual_lanes(device));
        Self::tiled(constants)
    }

    /// Whether tiles read through workgroup memory.
    pub(super) fn has_blocks(&self) -> bool {
        self.number(BLOCK, 1) > 1
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

/// The tiles of a block: rows, and vectors of four columns.
#[derive(Debug, Clone, Copy)]
struct Block {
    rows: u32,
    vectors: u32,
}

/// Those that there are: `TILE_M` and `TILE_N` of `shaders/lib/gemm_block.wgsl`.
const BLOCKS: [Block; 2] = [Block { rows: 4, vectors: 1 }, Block { rows: 8, vectors: 2 }];

impl Block {
    /// Numbers of the result.
    fn numbers(self) -> usize {
        (self.rows * 4 * self.vectors) as usize
    }

    /// Those that are not the file's.
    fn constants(self) -> Constants {
        let numbers = [("TILE_M", self.rows, 8), ("TILE_N", self.vectors, 2)];
        let others = numbers.into_iter().filter(|(_, number, usual)| number != usual);
        others.fold(Constants::default(), |all, (name, number, _)| all.with(name, number))
    }
}

/// A product of two matrices, as the ops see it that have tiles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    /// Of the result.
    pub(super) rows: usize,
    /// Of the result.
    pub(super) columns: usize,
    /// That each number of the result is the sum of.
    pub(super) terms: usize,
    /// How many of them stand side by side in memory; what reads four at a time needs a multiple of 4.
    pub(super) depth: usize,
}

impl Product {
    /// Blocks that fill a large GPU.
    const ENOUGH: usize = 256;
    /// Terms that are worth sharing out.
    const LONG: usize = 256;

    /// That of a linear layer.
    pub(super) fn of_layer(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self { rows, columns: outputs, terms: inputs, depth: inputs }
    }

    /// That of a weight gradient, whose terms are cut into chunks that are summed side by side, as if there were as many rows more.
    pub(super) fn of_weights(rows: usize, columns: usize, terms: usize, depth: usize) -> Self {
        let chunks = terms.div_ceil(2 * Self::LONG);
        Self { rows: rows * chunks, columns, terms: terms / chunks, depth }
    }

    /// Whether the tiles of a kernel fit the columns and, if they make blocks, the rest.
    pub(super) fn takes(self, device: &Device, kernel: Kernel) -> bool {
        let tile = Tile::of(kernel);
        let block = || {
            let Device::Gpu(context) = device else { return false };
            // Software is for checks only, and takes many seconds to compile a block: there is one of small tiles.
            let checked = !context.facts().software || (tile.rows == 4 && tile.split > 1);
            let room = tile.memory() <= context.workgroup_bytes() as usize;
            Some(tile.block) == self.side(tile) && self.depth.is_multiple_of(4) && room && checked
        };
        self.columns.is_multiple_of(tile.columns) && (!kernel.has_blocks() || block())
    }

    /// The constants of all blocks that a device has for it.
    pub(super) fn blocks(self, device: &Device) -> Vec<Constants> {
        let [small, large] = BLOCKS;
        [(small, 1), (small, 4), (large, 1)]
            .into_iter()
            .filter_map(|(tile, split)| self.block(device, tile, split))
            .collect()
    }

    /// The constants of blocks of such tiles, if it takes them.
    fn block(self, device: &Device, tile: Block, split: u32) -> Option<Constants> {
        let side = self.side(Tile::of(Kernel::tiled(tile.constants())))?;
        let mut constants = tile.constants().with(BLOCK, side as u32);
        if split > 1 {
            constants = constants.with(SPLIT, split);
        }
        self.takes(device, Kernel::tiled(constants)).then_some(constants)
    }

    /// How many tiles of a block stand side by side: as many as there are, 8 at most.
    fn side(self, tile: Tile) -> Option<usize> {
        match self.columns / tile.columns {
            8.. => Some(8),
            4.. => Some(4),
            2.. => Some(2),
            _ => None,
        }
    }

    /// On a GPU, the constants of the blocks that it takes without an answer of `tune`: of large tiles if they make enough blocks,
    /// else of small ones, whose terms four invocations share where there are many. (Measured on an H100; software has no workgroup
    /// memory: [`worth_trying`].)
    fn usual_block(self, device: &Device) -> Option<Constants> {
        if !matches!(device, Device::Gpu(context) if !context.facts().software) {
            return None;
        }
        let [small, large] = BLOCKS;
        let usual = |tile: Block, split| self.block(device, tile, split);
        let first = match self.rows * self.columns >= Self::ENOUGH * WORKGROUP * large.numbers() {
            true => usual(large, 1),
            false if self.terms >= Self::LONG => usual(small, 4),
            false => None,
        };
        first.or_else(|| usual(small, 1)).or_else(|| usual(large, 1))
    }
}

/// Those that `tune` tries: in software there is no workgroup memory, and what goes through it takes 2.5 times as long (measured).
pub(super) fn worth_trying<K>(device: &Device, kernels: Vec<K>, through_memory: impl Fn(&K) -> bool) -> Vec<K> {
    let software = matches!(device, Device::Gpu(context) if context.facts().software);
    kernels.into_iter().filter(|kernel| !(software && through_memory(kernel))).collect()
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
    // Version 5 of conv2d's weight gradient sums up by the kernels of a linear layer.
    let of_op = shaders().filter(|shader| op_of(shader.name) == op || (op == "conv2d" && shader.name == "linear"));
    let hashes: Vec<String> = of_op.map(|shader| context.text_hash(shader)).collect::<Result<_>>()?;
    Ok(hashes.join("+"))
}

/// The answer to an op's question, if there is one among `candidates`; else `usual`. On a device that only plans, the
/// question is noted. `None`: sizes that no question can name.
pub(super) fn choose<K: Copy + fmt::Display + Send + 'static>(
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
    let find = || {
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
    };
    if context.is_planning() { find() } else { context.choice(question, find) }
}

/// The constants of kernels whose neighbours share what they read: `shaders/lib/lanes_together.wgsl`.
pub fn together() -> Constants {
    Constants::from(&[(TOGETHER, 8)][..])
}

/// The constants that say whether neighbours share what they read. In software they do: it makes tiles 1.2 to 1.5 times as fast
/// (measured with Mesa's llvmpipe), because there a read costs as much as a few multiply-adds. On a GPU they do not: on an
/// H100 it takes 7 times as long.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_takes_blocks_as_large_as_fill_it() -> Result<()> {
        // A device that promises no more workgroup memory than WebGPU: wide blocks cannot share out their terms.
        let device = Device::plan(None)?;
        let usual = |rows, columns| {
            let product = Product { rows, columns, terms: 576, depth: 64 };
            Kernel::usual(&device, product, true).to_string()
        };
        assert_eq!(usual(1 << 14, 64), "v2 BLOCK=8");
        assert_eq!(usual(1 << 12, 64), "v2 TILE_M=4 TILE_N=1 BLOCK=8");
        assert_eq!(usual(1 << 16, 16), "v2 BLOCK=2");
        assert_eq!(usual(1 << 16, 8), "v2 TILE_M=4 TILE_N=1 BLOCK=2 SPLIT=4");
        // Neither one tile nor an x that cannot be read by fours makes blocks.
        let odd = Product { rows: 1 << 16, columns: 64, terms: 27, depth: 3 };
        assert_eq!(Kernel::usual(&device, odd, true).to_string(), "v2");
        assert_eq!(Kernel::usual(&Device::cpu(), odd, true).to_string(), "v2");
        Ok(())
    }
}
