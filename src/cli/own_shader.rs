//! The flags `--shader` and `--entry`: somebody's own text in the place of a kernel of ours.

use std::path::PathBuf;
use std::sync::Arc;

use shadegrad::gpu::{Context, Replacement, Shader};
use shadegrad::ops::SHADERS;
use shadegrad::{Device, Error, Result};

/// Which text stands in for ours.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct OwnShader {
    /// A WGSL file whose entry points stand in for those of the op's shader with the same names
    #[arg(long, value_name = "FILE")]
    shader: Option<PathBuf>,
    /// Only this entry point of the file, e.g. forward_v2
    #[arg(long, value_name = "NAME", requires = "shader")]
    entry: Option<String>,
}

impl OwnShader {
    /// Whether a file is named.
    pub(crate) fn given(&self) -> bool {
        self.shader.is_some()
    }

    /// Reads the file, if one is named, and lets it stand in on a device for the one op of `ops`. Returns ` of FILE`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is not one op, or if the device is the CPU; else as [`Replacement::of_user`].
    pub(crate) fn stand_in(
        &self,
        device: &Device,
        ops: &[String],
        mut say: impl FnMut(String),
    ) -> Result<Option<String>> {
        let Some(file) = &self.shader else { return Ok(None) };
        let shader = match ops {
            [op] => shader_of(op)?,
            _ => {
                return Err(Error::Config("--shader needs one op: it says whose kernels the file replaces".to_owned()));
            }
        };
        let context = gpu_of(device, "--shader")?;
        let pieces = context.switches.shaders.as_deref();
        let own = Replacement::of_user(shader, file, self.entry.as_deref(), pieces)?;
        let name = file.display();
        say(format!("{} of {name} in the place of ours, with every check that wgpu makes", own.entries().join(", ")));
        if !own.ignored().is_empty() {
            say(format!("not used: {}", own.ignored().join(", ")));
        }
        own.notes().iter().for_each(|note| say(format!("note: {note}")));
        context.replace(shader.name, Some(Arc::new(own)));
        Ok(Some(format!(" of {name}")))
    }
}

/// The shader of an op.
///
/// # Errors
/// [`Error::Config`] for a name that is no op.
pub(crate) fn shader_of(op: &str) -> Result<&'static Shader> {
    let found = SHADERS.iter().find(|shader| shader.name == op);
    found.ok_or_else(|| Error::Config(format!("{op} is no op with a shader")))
}

/// The GPU of a command that is about kernels.
///
/// # Errors
/// [`Error::Config`] on the CPU device.
pub(crate) fn gpu_of<'a>(device: &'a Device, what: &str) -> Result<&'a Arc<Context>> {
    match device {
        Device::Gpu(context) => Ok(context),
        Device::Cpu(_) => Err(Error::Config(format!(
            "{what} needs a GPU, and this is the CPU device; name one with --device (`shadegrad devices` lists them, lavapipe is software)"
        ))),
    }
}
