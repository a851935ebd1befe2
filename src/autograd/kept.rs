//! What an op keeps of its input for the gradient: the numbers, or how to compute them again.

use std::fmt::Debug;
use std::sync::Arc;

use crate::Result;
use crate::tensor::{Shape, Tensor};

/// How to compute a tensor again from what is kept anyway: cheap ops on a [recomputing](super::Tape::recomputing) tape
/// give one to their result.
pub(crate) trait Recipe: Debug + Send + Sync {
    /// The same numbers, to the bit.
    ///
    /// # Errors
    /// As the op.
    fn make(&self) -> Result<Tensor>;

    /// What a kernel needs that makes the numbers itself where it reads them; `None` where none can.
    fn on_reading(&self) -> Option<OnReading> {
        None
    }
}

/// Numbers that a kernel can make where it reads them.
#[derive(Debug, Clone)]
pub(crate) enum OnReading {
    /// A batch norm, and the ReLU behind it: `(x - center) * scale + shift`, and 0 below `floor`.
    Normed {
        /// The batch norm's input.
        x: Tensor,
        /// `[4, C]`: center, scale, shift and 1 / deviation of each channel.
        table: Tensor,
        /// 0 with a ReLU, the lowest f32 without.
        floor: f32,
    },
    /// The gradient of a batch norm's input: `scale * (gv - mean(gv) - (x - center) * mean(gv * xhat) * rstd)`, where gv is
    /// what of gy comes through the ReLU.
    NormGradient {
        /// The gradient of the batch norm's result.
        gy: Tensor,
        /// Its input.
        x: Tensor,
        /// `[6, C]`: center, scale, shift, 1 / deviation, and the sums of gv and gv * xhat of each channel.
        table: Tensor,
        /// 0 with a ReLU, the lowest f32 without.
        floor: f32,
        /// 1 / pixels, or 0 in eval mode.
        inverse_count: f32,
    },
    /// Two tensors side by side: the channels of the first, then those of the second.
    Joined([Tensor; 2]),
}

/// An input kept for the gradient.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    /// Its numbers.
    Numbers(Tensor),
    /// How to compute them again, and their shape.
    Recipe(Arc<dyn Recipe>, Shape),
}

impl Kept {
    /// Keeps a tensor by its recipe if it has one, or if nobody has computed its numbers yet.
    pub(crate) fn of(tensor: &Tensor) -> Self {
        match tensor.recipe.clone().or_else(|| tensor.later()) {
            Some(recipe) => Self::Recipe(recipe, tensor.shape()),
            None => Self::Numbers(tensor.detach()),
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        match self {
            Self::Numbers(tensor) => tensor.shape(),
            Self::Recipe(_, shape) => *shape,
        }
    }

    /// The numbers, if they were kept.
    pub(crate) fn numbers(&self) -> Option<&Tensor> {
        match self {
            Self::Numbers(tensor) => Some(tensor),
            Self::Recipe(..) => None,
        }
    }

    /// How to make the numbers where they are read, if they were not kept and a kernel can.
    pub(crate) fn on_reading(&self) -> Option<OnReading> {
        match self {
            Self::Numbers(_) => None,
            Self::Recipe(recipe, _) => recipe.on_reading(),
        }
    }

    /// The numbers, computed again if need be.
    ///
    /// # Errors
    /// As the op that made them.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Numbers(tensor) => Ok(tensor.clone()),
            Self::Recipe(recipe, _) => recipe.make(),
        }
    }

    /// The tensor that is kept for this input alone, for [`Backward::saved`](super::Backward::saved).
    pub(crate) fn saved(&mut self) -> Option<&mut Tensor> {
        match self {
            Self::Numbers(tensor) => Some(tensor),
            Self::Recipe(..) => None,
        }
    }
}
