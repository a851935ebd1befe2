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
}

impl Model {
    /// All there are.
    pub const ALL: [Self; 1] = [Self::Unext];

    /// As in files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unext => "unext",
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

/// The architecture of a network. Settings that its model does not have are ignored.
///
/// ```
/// use shadegrad::models::{self, Model, ModelConfig};
/// # fn main() -> shadegrad::Result<()> {
/// let config = ModelConfig { in_channels: 4, ..ModelConfig::new(Model::Unext) };
/// let net = models::build(&shadegrad::Device::cpu(), &config, 0)?;
/// assert_eq!(config.multiple(), 32);
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
    /// Channels of the logits: one per class.
    pub num_classes: usize,
    /// UNeXt: channels of t1, t2, t3, t4 and the bottleneck. The published code has 16, 32, 128, 160, 256; the
    /// paper's text and the report 32, 64, 128.
    pub widths: [usize; 5],
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { model: Model::Unext, in_channels: 3, num_classes: 1, widths: [16, 32, 128, 160, 256] }
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

    /// Height and width of an image must divide by this.
    pub fn multiple(&self) -> usize {
        match self.model {
            Model::Unext => 32,
        }
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
        ];
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some((name, _)) => Err(Error::Config(format!("{name} must be at least 1"))),
            None => Ok(()),
        }
    }
}
