//! Which network a weight file belongs to, told by its names and shapes: a `.pth` carries no settings.

use super::state_dict::{StateDict, list};
use crate::models::{Model, ModelConfig, Preset, Up};
use crate::{Error, Result};

impl StateDict {
    /// The network that these are the weights of, with its widths, channels and classes.
    ///
    /// # Errors
    /// [`Error::Weights`] naming some tensors, if they are those of no network that is known.
    pub fn network(&self) -> Result<ModelConfig> {
        let found = match () {
            () if self.get("block1.0.mlp.fc1.weight").is_some() => self.unext(),
            () if self.get("e1.conv.conv1.weight").is_some() => self.unet(),
            () if self.get("c11.weight").is_some() => self.resunet(),
            () => None,
        };
        found.ok_or_else(|| {
            let names = list(self.tensors.iter().map(|(name, _)| name.as_str()));
            let message = format!("holds {names}: the names of no network that is known (unext, unet, resunet)");
            Error::weights(&self.path, message)
        })
    }

    fn unext(&self) -> Option<ModelConfig> {
        let stages = ["encoder1", "encoder2", "encoder3", "patch_embed3.proj", "patch_embed4.proj"];
        let mut widths = [0; 5];
        for (width, stage) in widths.iter_mut().zip(stages) {
            *width = self.extent(&format!("{stage}.weight"), 0)?;
        }
        let in_channels = self.extent("encoder1.weight", 1)?;
        let num_classes = self.extent("final.weight", 0)?;
        Some(ModelConfig { in_channels, num_classes, widths, ..ModelConfig::new(Model::Unext) })
    }

    fn unet(&self) -> Option<ModelConfig> {
        Some(ModelConfig {
            in_channels: self.extent("e1.conv.conv1.weight", 1)?,
            num_classes: self.extent("outputs.weight", 0)?,
            base: self.extent("e1.conv.conv1.weight", 0)?,
            conv_bias: self.get("e1.conv.conv1.bias").is_some(),
            ..ModelConfig::new(Model::Unet)
        })
    }

    /// A strided convolution has the shape of one behind a pooling: which of both follows from the nearer form.
    fn resunet(&self) -> Option<ModelConfig> {
        let shortcut_norm = self.get("c13_bn.weight").is_some();
        let up = if self.get("d1.upsample.weight").is_some() { Up::Transposed } else { Up::Bilinear };
        let (preset, up, shortcut_norm) = match (up, shortcut_norm) {
            (Up::Bilinear, false) => (Preset::Published, None, None),
            (Up::Transposed, true) => (Preset::Seed, None, None),
            _ => (Preset::Published, Some(up), Some(shortcut_norm)),
        };
        Some(ModelConfig {
            in_channels: self.extent("c11.weight", 1)?,
            num_classes: self.extent("output.weight", 0)?,
            base: self.extent("c11.weight", 0)?,
            preset,
            up,
            shortcut_norm,
            ..ModelConfig::new(Model::Resunet)
        })
    }
}
