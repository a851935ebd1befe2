//! `shadegrad predict`: masks for pictures, NIfTI volumes and DICOM series.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use shadegrad::data::{Format, Volume, VolumeSource, find_volumes, nifti};
use shadegrad::eval::predict::{PredictOptions, Prediction, check, predict};
use shadegrad::eval::{SliceCounts, overlay};
use shadegrad::models;
use shadegrad::models::weights::load_dict;
use shadegrad::{Error, Result};

use super::{bar, make_folder, weights};

/// Write a mask for each image or volume.
///
/// Reads 8-bit .tif and .png (RGB or grey), NIfTI-1 (.nii, .nii.gz) and DICOM series. A folder may
/// hold the slices of one patient or of many, volumes or series. The slices of a patient are
/// normalised together, as in training, so give all of them.
///
/// Slices of a NIfTI volume lie along its third axis as stored (first axis = column, second = row);
/// its mask has the same shape and affine. A fourth axis holds channels. One channel fills all that
/// the network reads. Values that are not whole numbers from 0 to 255 are mapped there from the
/// volume's percentiles 0.1 to 99.9.
///
/// Examples (each goes on with --weights best.safetensors --out masks):
///   shadegrad predict --input lgg/kaggle_3m/TCGA_CS_4944_20010208        a patient's slices
///   shadegrad predict --input slice.tif --overlay --probability          one slice, with pictures
///   shadegrad predict --input lgg/kaggle_3m --json                       all patients
///   shadegrad predict --input brain.nii.gz                               a NIfTI volume
///   shadegrad predict --input t1.nii.gz flair.nii.gz t1gd.nii.gz         three files as channels
///   shadegrad predict --input series/ --batch 2                          a DICOM series
///   shadegrad predict --input patient/ --format nifti                    slices to a volume
///   shadegrad predict --input patient/ --largest-component --tta         fewer false specks
///   shadegrad predict --input patient/ --threshold 0.7 --device cpu      a more careful mask
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct PredictArgs {
    /// A weight file: .safetensors of a run, or PyTorch's .pth
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    #[command(flatten)]
    foreign: weights::Foreign,
    /// An image, a volume, the folder of a patient or series, or a folder of such; several volumes are the channels of one
    #[arg(long, value_name = "FILE|DIR", num_args = 1.., required = true)]
    input: Vec<PathBuf>,
    /// Where the masks go: NAME_mask.png, .tif or .nii.gz
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// File format of masks and probabilities [default: the input's; nifti for DICOM]
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatName>,
    /// Also draw the outline on each slice, as PNG (and the true one in green, where there is a NAME_mask file)
    #[arg(long)]
    overlay: bool,
    /// Also write NAME_probability: grey in PNG, 32-bit floats in TIFF and NIfTI
    #[arg(long)]
    probability: bool,
    /// The mask is where the probability is above this
    #[arg(long, default_value_t = 0.5, value_name = "P")]
    threshold: f64,
    /// Keep only the largest connected piece of a patient's or volume's mask (3D, 26 neighbours), as is always done for
    /// weights that were trained with largest_component = true
    #[arg(long)]
    largest_component: bool,
    /// Average the logits over the four flips (test-time augmentation; four times the work)
    #[arg(long)]
    tta: bool,
    /// Slices computed together; less needs less memory
    #[arg(long, default_value_t = 8, value_name = "N")]
    batch: usize,
    /// auto, cpu, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
    /// One JSON line an image or volume: image, patient, mask, slices, predicted_pixels, predicted_ml, dice, mapped
    #[arg(long)]
    json: bool,
}

/// The formats that can be written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FormatName {
    /// 8-bit grey, 0 and 255, a file a slice
    Png,
    /// 8-bit grey, 0 and 255, a file a slice, as Kaggle's masks
    Tiff,
    /// Bytes 0 and 1, a compressed file a volume, with the affine of the input
    Nifti,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Png => Self::Png,
            FormatName::Tiff => Self::Tiff,
            FormatName::Nifti => Self::Nifti,
        }
    }
}

pub(crate) fn run(args: &PredictArgs) -> Result<()> {
    let weights::Weights { config, dict } = weights::open(&args.weights, Some(&args.foreign))?;
    if config.num_classes != 1 {
        let message = format!("has {} classes, but predict writes masks of one", config.num_classes);
        return Err(Error::weights(&args.weights, message));
    }
    let sources = find_volumes(&args.input)?;
    let device = super::open(&args.device)?;
    let mut net = models::build(&device, &config.network(), 0)?;
    load_dict(&mut net, &dict)?;
    let folders = output_folders(args, &sources)?;
    let options = PredictOptions {
        threshold: args.threshold,
        largest_component: args.largest_component || config.largest_component,
        flips: args.tta,
        batch: args.batch,
        size: config.size,
    };
    let progress = bar("predicting", args.json);
    let mut masks = 0;
    // One volume at a time is in memory.
    for (source, folder) in sources.iter().zip(&folders) {
        let volume = source.read()?;
        // Refused before anything is written; and a folder that cannot be written before anything is computed.
        check(net.config(), &volume, &options)?;
        make_folder(folder)?;
        progress.inc_length(volume.size[0] as u64);
        let mut done = |slices| progress.inc(slices as u64);
        let prediction = predict(&device, net.as_ref(), config.normalize, &volume, &options, &mut done)
            .map_err(|error| about(&volume.path, error))?;
        masks += write(args, source, &volume, &prediction, folder)?;
    }
    progress.finish_and_clear();
    if !args.json {
        println!("{masks} masks are in {}", args.out.display());
    }
    Ok(())
}

/// Names the volume in an error that does not.
fn about(path: &Path, error: Error) -> Error {
    match error {
        Error::NonFinite(message) => Error::data(path, message),
        other => other,
    }
}

/// Where each source's files go: all into `--out`, or one folder a patient where their names would meet.
fn output_folders(args: &PredictArgs, sources: &[VolumeSource]) -> Result<Vec<PathBuf>> {
    // A mask beside its image would take the place of the true one, and pass for it the next time.
    let canonical =
        |path: &Path| std::fs::canonicalize(if path.as_os_str().is_empty() { Path::new(".") } else { path }).ok();
    let out = canonical(&args.out);
    let beside = |file: &&Path| out.is_some() && file.parent().and_then(canonical) == out;
    if let Some(file) = sources.iter().flat_map(VolumeSource::files).find(beside) {
        let message = "lies in the folder named by --out, where masks would pass for true ones; give another --out";
        return Err(Error::data(file, message));
    }
    let mut seen = HashSet::new();
    if sources.iter().flat_map(VolumeSource::names).all(|name| seen.insert(name)) {
        return Ok(vec![args.out.clone(); sources.len()]);
    }
    let mut patients = HashSet::new();
    for source in sources {
        let mut names = HashSet::new();
        let unique = source.names().into_iter().all(|name| names.insert(name));
        if !patients.insert(&source.name) || !unique {
            let message = format!("a second input is named {}; predict the folders one by one", source.name);
            return Err(Error::data(&source.path, message));
        }
    }
    Ok(sources.iter().map(|source| args.out.join(&source.name)).collect())
}

/// Writes a volume's files and its JSON lines; returns how many masks that were.
fn write(
    args: &PredictArgs,
    source: &VolumeSource,
    volume: &Volume,
    prediction: &Prediction,
    folder: &Path,
) -> Result<usize> {
    let [depth, height, width] = volume.size;
    let plane = height * width;
    let format = args.format.map(Format::from).or(source.format()).unwrap_or(Format::Nifti);
    let probability = if args.probability { prediction.probability() } else { Vec::new() };
    let masks: Vec<&[u8]> = prediction.mask.chunks_exact(plane).collect();
    let mut written = Vec::new();
    if format == Format::Nifti {
        // An uncompressed volume stays one.
        let plain =
            source.format() == Some(Format::Nifti) && source.path.extension().is_some_and(|ending| ending == "nii");
        let ending = if plain { "nii" } else { "nii.gz" };
        let path = folder.join(format!("{}_mask.{ending}", source.name));
        nifti::write_mask(&path, &prediction.mask, volume.size, &volume.geometry)?;
        if args.probability {
            let path = folder.join(format!("{}_probability.{ending}", source.name));
            nifti::write_probability(&path, &probability, volume.size, &volume.geometry)?;
        }
        written.push(path);
    }
    for (z, (slice, mask)) in volume.slices.iter().zip(&masks).enumerate() {
        let name = &slice.name;
        if format != Format::Nifti {
            let ending = if format == Format::Tiff { "tif" } else { "png" };
            let path = folder.join(format!("{name}_mask.{ending}"));
            overlay::write_mask(&path, mask, height, width)?;
            if args.probability {
                let path = folder.join(format!("{name}_probability.{ending}"));
                overlay::write_probability(&path, &probability[z * plane..(z + 1) * plane], height, width)?;
            }
            written.push(path);
        }
        if args.overlay {
            let path = folder.join(format!("{name}_overlay.png"));
            overlay::write_overlay(&path, &volume.rgb(z), height, width, slice.truth.as_deref(), mask)?;
        }
    }
    if args.json && source.is_pictures() {
        for (z, (slice, mask)) in volume.slices.iter().zip(&masks).enumerate() {
            let file = written.get(z).unwrap_or(&written[0]);
            print_line(source, volume, &slice.path, file, mask, slice.truth.as_deref());
        }
    } else if args.json {
        let file = if written.len() == depth && format != Format::Nifti { folder } else { &written[0] };
        print_line(source, volume, &volume.path, file, &prediction.mask, volume.truth().as_deref());
    }
    Ok(written.len())
}

fn print_line(source: &VolumeSource, volume: &Volume, image: &Path, file: &Path, mask: &[u8], truth: Option<&[u8]>) {
    let predicted = mask.iter().filter(|pixel| **pixel > 0).count();
    let line = serde_json::json!({
        "image": image,
        "patient": source.name,
        "mask": file,
        "slices": mask.len() / (volume.size[1] * volume.size[2]),
        "predicted_pixels": predicted,
        "predicted_ml": volume.geometry.voxel_ml().map(|ml| ml * predicted as f64),
        "dice": truth.map(|truth| SliceCounts::from_masks(0, mask, truth).dice()),
        "mapped": volume.mapped,
    });
    println!("{line}");
}
