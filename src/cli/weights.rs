//! What `train`, `eval`, `predict`, `import` and `export` share: opening a weight file of any format, and knowing its
//! network and normalisation.

use std::path::Path;

use shadegrad::data::Normalization;
use shadegrad::models::weights::StateDict;
use shadegrad::models::{Model, ModelConfig};
use shadegrad::train::TrainConfig;
use shadegrad::{Error, Result};

// Flags for weight files that carry no settings, as those of PyTorch. Not a doc comment: clap would show it as the help of
// the command.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Foreign {
    /// Network of the weights, e.g. unext; a .pth file of another is refused [default: told by names and shapes]
    #[arg(long, env = "SHADEGRAD_MODEL")]
    model: Option<Model>,
    /// per_volume, foreground, imagenet or unext: how the weights' training scaled its images [default: as the file says, else a guess that is printed]
    #[arg(long, value_name = "NAME")]
    normalize: Option<Normalization>,
}

/// A weight file and the settings of the network that it belongs to.
pub(crate) struct Weights {
    pub(crate) config: TrainConfig,
    pub(crate) dict: StateDict,
}

/// Reads a weight file. Says on stderr what was inferred. Without `foreign` only the network matters (training has its own
/// normalisation).
pub(crate) fn open(file: &Path, foreign: Option<&Foreign>) -> Result<Weights> {
    let dict = StateDict::read(file)?;
    let mut config = match dict.about.get("config") {
        Some(text) => toml::from_str(text).map_err(|error| Error::Config(format!("{}: {error}", file.display())))?,
        None => guess(&dict, foreign)?,
    };
    let Some(foreign) = foreign else { return Ok(Weights { config, dict }) };
    if let Some(model) = foreign.model.filter(|model| *model != config.model) {
        let message = format!("these are the weights of {}, not {model}; leave out --model", config.model);
        return Err(Error::weights(file, message));
    }
    config.normalize = foreign.normalize.unwrap_or(config.normalize);
    Ok(Weights { config, dict })
}

/// Settings for a file that has none.
fn guess(dict: &StateDict, foreign: Option<&Foreign>) -> Result<TrainConfig> {
    let file = dict.path.display();
    for note in &dict.notes {
        eprintln!("{file}: {note}");
    }
    let network = dict.network()?;
    eprintln!("{file}: by names and shapes this is {}", describe(&network));
    let mut config = TrainConfig::default();
    if network.model == Model::Unext {
        // Weights of UNeXt in PyTorch's format come from the data path of its published code.
        config.normalize = Normalization::Unext;
    }
    config.set_network(&network);
    if foreign.is_some_and(|foreign| foreign.normalize.is_none()) {
        eprintln!(
            "{file}: it does not say how its images were scaled; assuming {}, change it with --normalize",
            config.normalize
        );
    }
    Ok(config)
}

/// A network in words.
fn describe(network: &ModelConfig) -> String {
    let size = match network.model {
        Model::Unext => format!("widths {}", network.widths.map(|width| width.to_string()).join(",")),
        Model::Unet if network.conv_bias => format!("base {} and convolution biases", network.base),
        Model::Unet => format!("base {}", network.base),
        Model::Resunet => {
            let (down, up, norm) = network.resunet_form();
            let norm = if norm { "with" } else { "without" };
            format!(
                "base {}, {up:?} up, {norm} shortcut norms, and {down:?} down (which shapes do not show)",
                network.base
            )
        }
    };
    let ModelConfig { model, in_channels, num_classes, .. } = network;
    format!("{model} with {size}, {in_channels} channels in, {num_classes} out")
}
