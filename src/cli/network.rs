//! The flags that say which network.

use shadegrad::models::{Model, ModelConfig, Preset};
use shadegrad::{Error, Result};

/// Settings of a network, shared by the commands that make one.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NetworkFlags {
    /// UNeXt: channels of the five stages, e.g. 32,64,128,160,256
    #[arg(long, value_delimiter = ',', num_args = 1, value_name = "W1,..,W5")]
    widths: Option<Vec<usize>>,
    /// U-Net and ResUNet: channels at full size, doubled at each halving, e.g. 16 [default: 64]
    #[arg(long, value_name = "N")]
    base: Option<usize>,
    /// U-Net: biases before batch norms, which published weights have, e.g. --conv-bias true
    #[arg(long, value_name = "BOOL")]
    conv_bias: Option<bool>,
    /// ResUNet: published (stride, bilinear) or seed (max pooling, transposed convolution, shortcut norms)
    #[arg(long, value_name = "FORM")]
    preset: Option<Preset>,
}

impl NetworkFlags {
    /// Changes what the flags name.
    ///
    /// # Errors
    /// [`Error::Config`] naming a flag that the model does not have, or a wrong value.
    pub(crate) fn apply(&self, config: &mut ModelConfig) -> Result<()> {
        let Self { widths, base, conv_bias, preset } = self;
        let own: [(&str, bool, &[Model]); 4] = [
            ("--widths", widths.is_some(), &[Model::Unext]),
            ("--base", base.is_some(), &[Model::Unet, Model::Resunet]),
            ("--conv-bias", conv_bias.is_some(), &[Model::Unet]),
            ("--preset", preset.is_some(), &[Model::Resunet]),
        ];
        for (flag, given, models) in own {
            if given && !models.contains(&config.model) {
                let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
                let message = format!("{flag} is for {}; leave it out for {}", names.join(" and "), config.model);
                return Err(Error::Config(message));
            }
        }
        if let Some(widths) = widths {
            let five = widths.as_slice().try_into();
            config.widths = five.map_err(|_| Error::Config(format!("--widths needs five numbers, got {widths:?}")))?;
        }
        config.base = base.unwrap_or(config.base);
        config.conv_bias = conv_bias.unwrap_or(config.conv_bias);
        if let Some(preset) = preset {
            *config = ModelConfig { preset: *preset, down: None, up: None, shortcut_norm: None, ..config.clone() };
        }
        config.check()
    }
}
