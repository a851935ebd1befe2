//! `shadegrad eval`: honest metrics side by side.

use std::path::{Path, PathBuf};

use shadegrad::data::{Dataset, Split};
use shadegrad::eval::{Metrics, overlay};
use shadegrad::models::weights;
use shadegrad::train::{TrainConfig, Trainer};
use shadegrad::{Device, Error, Result};

use super::{make_folder, train};

/// Judge trained weights on a data set.
///
/// Examples:
///   shadegrad eval --run runs/unext --data lgg/kaggle_3m
///   shadegrad eval --weights best.safetensors --data lgg/kaggle_3m --val TCGA_CS_6665_20010817
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct EvalArgs {
    /// A run folder: its best weights, settings and split
    #[arg(long, value_name = "DIR", required_unless_present = "weights", conflicts_with = "weights")]
    run: Option<PathBuf>,
    /// A weight file (safetensors with PyTorch's names)
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Folder in Kaggle's layout
    #[arg(long, value_name = "DIR", env = "SHADEGRAD_DATA")]
    data: PathBuf,
    /// Patients to judge, separated by commas [default: the run's validation patients, else all]
    #[arg(long, value_delimiter = ',', value_name = "P1,P2")]
    val: Vec<String>,
    /// auto, cpu, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
    /// Draw true (green) and predicted (magenta) outlines into this folder
    #[arg(long, value_name = "DIR")]
    overlays: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let file = match (&args.run, &args.weights) {
        (Some(run), _) => run.join("best.safetensors"),
        (None, Some(file)) => file.clone(),
        (None, None) => return Err(Error::Config("give --run or --weights".into())),
    };
    let config = config_of(&file)?;
    let device = Device::open(&args.device)?;
    let dataset = train::read(&args.data, args.json)?;
    let kept = args.run.as_ref().map(|run| run.join("split.csv")).filter(|path| path.exists());
    let part = match (&args.val[..], kept) {
        ([], Some(kept)) => Split::read_csv(&dataset, &kept)?.val,
        ([], None) => dataset.indices().collect(),
        (names, _) => Split::by_names(&dataset, names)?.val,
    };
    let mut trainer = Trainer::new(&device, &dataset, &config)?;
    weights::load(&mut trainer.net, &file)?;
    let evaluation = trainer.evaluate(&dataset, &part, args.overlays.is_some())?;
    if let Some(folder) = &args.overlays {
        draw_overlays(&dataset, &part, &evaluation.masks, folder)?;
    }
    print(&evaluation.metrics, evaluation.loss, args.json)
}

/// The settings that a weight file carries; those of the defaults for files of others.
pub(crate) fn config_of(file: &Path) -> Result<TrainConfig> {
    match weights::about(file)?.get("config") {
        Some(text) => toml::from_str(text).map_err(|error| Error::Config(format!("{}: {error}", file.display()))),
        None => Ok(TrainConfig::default()),
    }
}

/// The metrics, for people or for machines.
pub(crate) fn print(metrics: &Metrics, loss: f64, json: bool) -> Result<()> {
    if json {
        let mut value = serde_json::to_value(metrics).map_err(|error| Error::Config(error.to_string()))?;
        value["val_loss"] = loss.into();
        println!("{value}");
        return Ok(());
    }
    println!("{} patients, {} slices, {} with tumour", metrics.patients, metrics.slices, metrics.tumour_slices);
    println!("  volume Dice, mean              {:.4}", metrics.dice_volume_mean);
    println!("  volume Dice, median            {:.4}", metrics.dice_volume_median);
    println!("  Dice of all pixels             {:.4}", metrics.dice_pooled);
    match metrics.dice_tumour_slices {
        Some(dice) => println!("  Dice of tumour slices, mean    {dice:.4}"),
        None => println!("  Dice of tumour slices          none has a tumour"),
    }
    println!("  slice Dice, empty = 1          {:.4}", metrics.dice_slices_empty_is_one);
    println!("    the same, predicting nothing {:.4}", metrics.dice_predict_nothing);
    println!("  batch IoU and Dice, as UNeXt   {:.4} {:.4}", metrics.iou_batch, metrics.dice_batch);
    println!("  empty slices with false pixels {}", metrics.empty_slices_with_false_pixels);
    println!("  loss                           {loss:.4}");
    for patient in &metrics.per_patient {
        println!(
            "    {:<28} Dice {:.4}  IoU {:.4}  {} predicted, {} true pixels",
            patient.patient, patient.dice, patient.iou, patient.predicted_pixels, patient.target_pixels
        );
    }
    if metrics.predicted_pixels == 0 {
        println!("  warning: the network predicts nothing");
    }
    Ok(())
}

/// Overlays drawn at most.
const OVERLAYS: usize = 24;

/// One PNG for each of some slices (all that hold or predict a tumour, evenly thinned), and a sheet of them.
pub(crate) fn draw_overlays(
    dataset: &Dataset,
    part: &[(usize, usize)],
    masks: &[Vec<u8>],
    folder: &Path,
) -> Result<()> {
    make_folder(folder)?;
    let shown: Vec<_> = part
        .iter()
        .zip(masks)
        .filter(|(index, mask)| dataset.slice(**index).mask.iter().chain(mask.iter()).any(|pixel| *pixel > 0))
        .collect();
    let mut tiles = Vec::new();
    let step = shown.len().div_ceil(OVERLAYS).max(1);
    for (index, mask) in shown.iter().step_by(step) {
        let slice = dataset.slice(**index);
        let (h, w) = (dataset.height, dataset.width);
        let name = format!("{}_{}.png", dataset.patients[index.0].name, slice.number);
        overlay::write_overlay(&folder.join(name), &slice.image, h, w, Some(&slice.mask), mask)?;
        tiles.push(overlay::overlay(&slice.image, h, w, Some(&slice.mask), mask)?);
    }
    if !tiles.is_empty() {
        overlay::contact_sheet(&folder.join("sheet.png"), &tiles, 4)?;
    }
    Ok(())
}
