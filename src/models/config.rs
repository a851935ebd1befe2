//! Which network: everything that has to be known to build it again, except its weights.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A network by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// [`Unext`](super::Unext).
    Unext,
    /// [`Unet`](super::Unet).
    Unet,
    /// [`Resunet`](super::Resunet).
    Resunet,
}

impl Model {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Unext, Self::Unet, Self::Resunet];

    /// As in files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unext => "unext",
            Self::Unet => "unet",
            Self::Resunet => "resunet",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.map(Self::name);
        let found = Self::ALL.into_iter().find(|model| model.name() == name);
        found.ok_or_else(|| Error::Config(format!("model {name} is not known; there are: {}", known.join(", "))))
    }
}

/// The two forms of ResUNet. Each is three settings, which can also be set one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// [`Down::Stride`], [`Up::Bilinear`], no shortcut norms: the published network.
    Published,
    /// [`Down::MaxPool`], [`Up::Transposed`], shortcut norms: as the report describes it.
    Seed,
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "published" => Ok(Self::Published),
            "seed" => Ok(Self::Seed),
            _ => Err(Error::Config(format!("preset {name} is not known; there are: published, seed"))),
        }
    }
}

/// How ResUNet halves its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Down {
    /// The first convolution of a block has stride 2.
    Stride,
    /// 2x2 max pooling in front of a block.
    MaxPool,
}

/// How ResUNet doubles its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Up {
    /// Bilinear, corners on corners.
    Bilinear,
    /// A trained 2x2 transposed convolution.
    Transposed,
}

/// The architecture of a network. Settings that its model does not have are ignored.
///
/// ```
/// use shadegrad::models::{self, Model, ModelConfig};
/// # fn main() -> shadegrad::Result<()> {
/// let config = ModelConfig { base: 8, in_channels: 4, ..ModelConfig::new(Model::Unet) };
/// let net = models::build(&shadegrad::Device::cpu(), &config, 0)?;
/// assert_eq!(config.multiple(), 16);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Which network.
    pub model: Model,
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the logits: one per class, each for a sigmoid of its own.
    pub num_classes: usize,
    /// UNeXt: channels of t1, t2, t3, t4 and the bottleneck. The published code has 16, 32, 128, 160, 256; the
    /// paper's text and the report 32, 64, 128.
    pub widths: [usize; 5],
    /// U-Net and ResUNet: channels at full resolution, doubled at each halving. Published: 64.
    pub base: usize,
    /// U-Net: biases of the 3x3 convolutions. A batch norm follows each, so they have no effect; published weights
    /// have them.
    pub conv_bias: bool,
    /// ResUNet: which form.
    pub preset: Preset,
    /// ResUNet: another way down than the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<Down>,
    /// ResUNet: another way up than the preset's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Up>,
    /// ResUNet: a batch norm on each shortcut, where that differs from the preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortcut_norm: Option<bool>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            model: Model::Unext,
            in_channels: 3,
            num_classes: 1,
            widths: [16, 32, 128, 160, 256],
            base: 64,
            conv_bias: false,
            preset: Preset::Published,
            down: None,
            up: None,
            shortcut_norm: None,
        }
    }
}

impl ModelConfig {
    /// A network at its published size, from three channels to one.
    pub fn new(model: Model) -> Self {
        Self { model, ..Self::default() }
    }

    /// UNeXt-S, the published small one: 253,561 parameters.
    pub fn unext_small() -> Self {
        Self { widths: [8, 16, 32, 64, 128], ..Self::new(Model::Unext) }
    }

    /// Height and width of an image must divide by this: 2 to the number of halvings.
    pub fn multiple(&self) -> usize {
        match self.model {
            Model::Unext => 32,
            Model::Unet => 16,
            Model::Resunet => 8,
        }
    }

    /// ResUNet's three switches, from the preset where they are not set.
    pub fn resunet_form(&self) -> (Down, Up, bool) {
        let (down, up, norm) = match self.preset {
            Preset::Published => (Down::Stride, Up::Bilinear, false),
            Preset::Seed => (Down::MaxPool, Up::Transposed, true),
        };
        (self.down.unwrap_or(down), self.up.unwrap_or(up), self.shortcut_norm.unwrap_or(norm))
    }

    /// Refuses a size of 0.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("in_channels", self.in_channels),
            ("num_classes", self.num_classes),
            ("widths", self.widths.into_iter().min().unwrap_or(0)),
            ("base", self.base),
        ];
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some((name, _)) => Err(Error::Config(format!("{name} must be at least 1"))),
            None => Ok(()),
        }
    }
}
