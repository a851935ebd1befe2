//! Which network a weight file belongs to, told by its names and shapes: a `.pth` carries no settings.

use super::state_dict::{StateDict, list};
use crate::models::{Model, ModelConfig};
use crate::{Error, Result};

impl StateDict {
    /// The network that these are the weights of, with its widths, channels and classes.
    ///
    /// # Errors
    /// [`Error::Weights`] naming some tensors, if they are those of no network that is known.
    pub fn network(&self) -> Result<ModelConfig> {
        let found = if self.get("block1.0.mlp.fc1.weight").is_some() { self.unext() } else { None };
        found.ok_or_else(|| {
            let names = list(self.tensors.iter().map(|(name, _)| name.as_str()));
            let message = format!("holds {names}: the names of no network that is known (unext, U-Net, ResUNet)");
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
}
