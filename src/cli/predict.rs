//! `shadegrad predict`: masks for images.

use std::collections::BTreeMap;
use std::path::PathBuf;

use shadegrad::data::{ImageFile, read_images};
use shadegrad::eval::{SliceCounts, overlay};
use shadegrad::models::{self, Network, weights};
use shadegrad::ops::{Mode, Sample, Slices, load_batch};
use shadegrad::train::TrainConfig;
use shadegrad::{Device, Error, Result};

use super::{bar, eval, make_folder};

/// Write a mask for each image.
///
/// Examples:
///   shadegrad predict --weights runs/unext/best.safetensors --input lgg/kaggle_3m/TCGA_CS_4944_20010208 --out masks
///   shadegrad predict --weights best.safetensors --input slice.tif --out masks --overlay --probability
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct PredictArgs {
    /// A weight file (safetensors)
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// An image (.tif, .png), the folder of a patient, or a folder of such folders
    #[arg(long, value_name = "FILE|DIR")]
    input: PathBuf,
    /// Where the masks go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also draw the outline on the image (and the true one, where there is a _mask.tif)
    #[arg(long)]
    overlay: bool,
    /// Also write the probability as a grey picture
    #[arg(long)]
    probability: bool,
    /// auto, cpu, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
    /// One JSON line an image
    #[arg(long)]
    json: bool,
}

/// Slices computed together.
const BATCH: usize = 8;

pub(crate) fn run(args: &PredictArgs) -> Result<()> {
    let config = eval::config_of(&args.weights)?;
    if config.num_classes != 1 {
        let message = format!("has {} classes, but predict writes masks of one", config.num_classes);
        return Err(Error::weights(&args.weights, message));
    }
    let images = read_images(&args.input)?;
    let device = Device::open(&args.device)?;
    let mut net = models::build(&device, &config.network(), 0)?;
    weights::load(&mut net, &args.weights)?;
    make_folder(&args.out)?;
    // Normalisation is that of the patient's volume: images are taken patient by patient, and size by size.
    let mut volumes: BTreeMap<(&str, usize, usize), Vec<&ImageFile>> = BTreeMap::new();
    for image in &images {
        volumes.entry((&image.patient, image.height, image.width)).or_default().push(image);
    }
    let progress = bar("predicting", args.json);
    progress.set_length(images.len() as u64);
    for volume in volumes.values() {
        let logits = predict(&device, net.as_ref(), &config, volume)?;
        for (image, logits) in volume.iter().zip(logits) {
            write(args, image, &logits)?;
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    if !args.json {
        println!("{} masks are in {}", images.len(), args.out.display());
    }
    Ok(())
}

/// Logits of each image of one volume. Sides that do not divide by what the network needs are padded with black and
/// cut off again.
fn predict(device: &Device, net: &dyn Network, config: &TrainConfig, volume: &[&ImageFile]) -> Result<Vec<Vec<f32>>> {
    let (h, w) = (volume[0].height, volume[0].width);
    let multiple = net.config().multiple();
    let (full_h, full_w) = (h.next_multiple_of(multiple), w.next_multiple_of(multiple));
    let mut bytes = vec![0; volume.len() * full_h * full_w * 3];
    for (image, place) in volume.iter().zip(bytes.chunks_exact_mut(full_h * full_w * 3)) {
        for (row, place) in image.rgb.chunks_exact(3 * w).zip(place.chunks_exact_mut(3 * full_w)) {
            place[..3 * w].copy_from_slice(row);
        }
    }
    let rows = config.normalize.rescale_volume(volume.iter().map(|image| image.rgb.as_slice()), 3);
    let rescale: Vec<_> = rows.iter().map(|row| [row.low, row.high, row.scale, row.shift]).collect();
    let masks = vec![0; volume.len() * full_h * full_w];
    let order = config.normalize.channel_order();
    let slices = Slices::upload(device, [full_h, full_w], &bytes, &masks, &rescale, order)?;
    let mut out = Vec::with_capacity(volume.len());
    let all: Vec<usize> = (0..volume.len()).collect();
    for batch in all.chunks(BATCH) {
        let n = batch.len();
        let table = slices.table(n)?;
        let x = device.empty("predict", [n, full_h, full_w, 3])?;
        let target = device.empty("predict", [n, full_h, full_w, 1])?;
        let samples: Vec<_> = batch.iter().map(|slice| Sample::plain(*slice, 0)).collect();
        load_batch(&slices, &samples, &table, &x, &target)?;
        let logits = net.forward(&x, Mode::Eval)?.to_vec()?;
        out.extend(
            logits.chunks_exact(full_h * full_w).map(|image| {
                image.chunks_exact(full_w).take(h).flat_map(|row| row[..w].to_vec()).collect::<Vec<f32>>()
            }),
        );
    }
    Ok(out)
}

fn write(args: &PredictArgs, image: &ImageFile, logits: &[f32]) -> Result<()> {
    if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
        let message = format!("the network's output is {} at pixel {at} of this image", logits[at]);
        return Err(Error::data(&image.path, message));
    }
    let (h, w) = (image.height, image.width);
    let mask: Vec<u8> = logits.iter().map(|logit| u8::from(*logit > 0.0)).collect();
    overlay::write_mask(&args.out.join(format!("{}_mask.png", image.name)), &mask, h, w)?;
    if args.overlay {
        let path = args.out.join(format!("{}_overlay.png", image.name));
        overlay::write_overlay(&path, &image.rgb, h, w, image.mask.as_deref(), &mask)?;
    }
    if args.probability {
        let path = args.out.join(format!("{}_probability.png", image.name));
        let probability: Vec<f32> = logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect();
        overlay::write_probability(&path, &probability, h, w)?;
    }
    if args.json {
        let predicted = mask.iter().filter(|pixel| **pixel > 0).count();
        let dice = image.mask.as_ref().map(|truth| SliceCounts::from_masks(0, &mask, truth).dice());
        println!("{}", serde_json::json!({ "image": image.path, "predicted_pixels": predicted, "dice": dice }));
    }
    Ok(())
}
