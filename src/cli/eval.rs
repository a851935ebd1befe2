//! `shadegrad eval`: honest metrics side by side.

use std::path::{Path, PathBuf};

use shadegrad::data::{Dataset, Split};
use shadegrad::eval::{Headline, JudgeOptions, Judgement, Metrics, PatientMetrics, SliceCounts, overlay};
use shadegrad::models::weights::load_dict;
use shadegrad::train::{EventWriter, Trainer};
use shadegrad::{Error, Result};

use super::{make_folder, train, weights};

/// Judge trained weights on a data set.
///
/// Examples:
///   shadegrad eval --run runs/unext --data lgg/kaggle_3m
///   shadegrad eval --weights best.safetensors --data lgg/kaggle_3m --val TCGA_CS_6665_20010817
///   shadegrad eval --run runs/unext --data lgg/kaggle_3m --tta --largest-component
///   shadegrad eval --weights unext.pth --normalize unext --data lgg/kaggle_3m
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct EvalArgs {
    /// A run folder: its best weights, settings and split
    #[arg(long, value_name = "DIR", required_unless_present = "weights", conflicts_with = "weights")]
    run: Option<PathBuf>,
    /// A weight file: .safetensors of a run, or PyTorch's .pth
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    foreign: weights::Foreign,
    /// Folder in Kaggle's layout
    #[arg(long, value_name = "DIR", env = "SHADEGRAD_DATA")]
    data: PathBuf,
    /// Patients to judge, separated by commas [default: the run's validation patients, else all]
    #[arg(long, value_delimiter = ',', value_name = "P1,P2")]
    val: Vec<String>,
    /// Predict where the probability is above this, e.g. 0.4
    #[arg(long, default_value_t = 0.5, value_name = "P")]
    threshold: f64,
    /// Keep only the largest connected component of each patient's prediction (26 neighbours), as is always done for
    /// weights that were trained with largest_component = true
    #[arg(long)]
    largest_component: bool,
    /// Average the logits over the four flips (test-time augmentation; four times the work)
    #[arg(long)]
    tta: bool,
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
    let weights::Weights { config, dict } = weights::open(&file, Some(&args.foreign))?;
    let options = JudgeOptions::new(config.batch);
    let device = super::open(&args.device)?;
    let dataset = train::read(&args.data, config.size, args.json)?;
    // A network that was trained at another size is judged on the slices as the files have them.
    let native = if config.size == 0 { None } else { native(&args.data, config.size, args.json)? };
    let judged = native.as_ref().unwrap_or(&dataset);
    let kept = args.run.as_ref().map(|run| run.join("split.csv")).filter(|path| path.exists());
    let part = match (&args.val[..], kept) {
        ([], Some(kept)) => Split::read_csv(&dataset, &kept)?.val,
        ([], None) => dataset.indices().collect(),
        (names, _) => Split::by_names(&dataset, names)?.val,
    };
    let mut trainer = Trainer::new(&device, &dataset, &config)?;
    load_dict(&mut trainer.net, &dict)?;
    let largest_component = args.largest_component || config.largest_component;
    let options = JudgeOptions { largest_component, threshold: args.threshold, ..options };
    let (judgement, loss) = trainer.judge(judged, &part, options, args.tta)?;
    if let Some(folder) = &args.overlays {
        draw_overlays(judged, &part, &judgement.masks, folder)?;
    }
    print(&judgement, loss, args.json)
}

/// The slices at their own size; `None`, with a note on stderr, if that differs from file to file.
fn native(folder: &Path, size: usize, quiet: bool) -> Result<Option<Dataset>> {
    match train::read(folder, 0, quiet) {
        Ok(dataset) => Ok(Some(dataset)),
        Err(error @ Error::Data { .. }) => {
            eprintln!("note: judged at {size}x{size}, the size of the training: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What `eval --json` prints: the metrics, and the losses.
pub(crate) fn to_json(judgement: &Judgement, loss: f64) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(&judgement.metrics).map_err(|error| Error::Config(error.to_string()))?;
    let [loss_sample, loss_batch] = judgement.losses;
    for (key, loss) in [("val_loss", loss), ("loss_sample", loss_sample), ("loss_batch", loss_batch)] {
        value[key] = loss.into();
    }
    Ok(value)
}

/// The metrics, for people or for machines.
pub(crate) fn print(judgement: &Judgement, loss: f64, json: bool) -> Result<()> {
    let metrics = &judgement.metrics;
    if json {
        println!("{}", to_json(judgement, loss)?);
        return Ok(());
    }
    println!("{} patients, {} slices, {} with tumour", metrics.patients, metrics.slices, metrics.tumour_slices);
    print_scores(metrics);
    let [sample, batch] = judgement.losses;
    println!("  loss                                    {loss:>9.6}");
    println!("  loss as UNeXt: Dice per slice           {sample:>9.6}");
    println!("  loss pooled: Dice per batch, smooth 1   {batch:>9.6}");
    let share = metrics.share_of_empty_slices_with_false_pixels.map_or(String::new(), percent);
    println!(
        "  empty slices with false pixels          {:>9}  of {} {share}",
        metrics.empty_slices_with_false_pixels, metrics.empty_slices
    );
    println!(
        "  tumour slices missed altogether         {:>9}  of {}",
        metrics.tumour_slices_missed, metrics.tumour_slices
    );
    println!("  predicted pixels                        {:>9}", metrics.predicted_pixels);
    print_patients(&metrics.per_patient);
    if metrics.predicted_pixels == 0 {
        println!("warning: the network predicts nothing");
    }
    Ok(())
}

/// The scores, each beside that of an empty prediction.
fn print_scores(metrics: &Metrics) {
    let Headline { dice_volume_mean, dice_volume_median, iou_volume_mean, dice_pooled, .. } = metrics.predict_nothing;
    let Headline { dice_tumour_slices, dice_slices_empty_is_one, iou_batch, dice_batch, .. } = metrics.predict_nothing;
    let rows = [
        ("volume Dice, mean over patients", Some(metrics.dice_volume_mean), Some(dice_volume_mean)),
        ("volume Dice, median", Some(metrics.dice_volume_median), Some(dice_volume_median)),
        ("volume IoU, mean", Some(metrics.iou_volume_mean), Some(iou_volume_mean)),
        ("Dice of all pixels", Some(metrics.dice_pooled), Some(dice_pooled)),
        ("Dice of tumour slices, mean", metrics.dice_tumour_slices, dice_tumour_slices),
        ("slice Dice, empty and empty = 1", Some(metrics.dice_slices_empty_is_one), Some(dice_slices_empty_is_one)),
        ("IoU pooled by batch (UNeXt)", Some(metrics.iou_batch), Some(iou_batch)),
        ("Dice pooled by batch (UNeXt)", Some(metrics.dice_batch), Some(dice_batch)),
        ("Hausdorff-95, volume, voxels", metrics.hausdorff_95_mean, None),
        ("Hausdorff-95, in plane, pixels", metrics.hausdorff_95_in_plane_mean, None),
    ];
    println!("                                           network  predicts nothing");
    for (name, score, nothing) in rows {
        println!("  {name:<38}  {}  {:>16}", number(score, 9, 6), number(nothing, 9, 6));
    }
}

/// One line a patient.
fn print_patients(patients: &[PatientMetrics]) {
    let width = patients.iter().map(|patient| patient.patient.len()).max().unwrap_or(0).max(7);
    println!(
        "\n{:<width$}    Dice     IoU   HD95  HD95 in plane   predicted        true  difference  false slices  missed",
        "patient"
    );
    for patient in patients {
        let difference = patient.volume_difference_percent.map_or("-".to_owned(), |percent| format!("{percent:+.1} %"));
        println!(
            "{:<width$}  {:>6.4}  {:>6.4}  {}  {}  {:>10}  {:>10}  {difference:>10}  {:>12}  {:>6}",
            patient.patient,
            patient.dice,
            patient.iou,
            number(patient.hausdorff_95, 5, 1),
            number(patient.hausdorff_95_in_plane, 13, 1),
            patient.predicted_pixels,
            patient.target_pixels,
            patient.empty_slices_with_false_pixels,
            patient.tumour_slices_missed,
        );
    }
    println!(
        "HD95: 95th percentile of the surface distance, in voxels with spacing 1 on all axes; in plane: mean over the slices\n\
         where both are drawn. Sizes in pixels. False slices: empty, but something is predicted. Missed: tumour, nothing of it found."
    );
}

/// A number of this width, or a dash.
fn number(value: Option<f64>, width: usize, digits: usize) -> String {
    value.map_or_else(|| format!("{:>width$}", "-"), |value| format!("{value:>width$.digits$}"))
}

fn percent(share: f64) -> String {
    format!("({:.1} %)", 100.0 * share)
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
    for (&index, mask) in shown.into_iter().step_by(step) {
        let tile = picture(dataset, index, mask)?;
        let name = format!("{}_{}.png", dataset.patients[index.0].name, dataset.slice(index).number);
        overlay::contact_sheet(&folder.join(name), std::slice::from_ref(&tile), 1)?;
        tiles.push(tile);
    }
    if !tiles.is_empty() {
        overlay::contact_sheet(&folder.join("sheet.png"), &tiles, 4)?;
    }
    Ok(())
}

/// One slice with both outlines, its name, its score and the legend.
fn picture(dataset: &Dataset, index: (usize, usize), mask: &[u8]) -> Result<overlay::Tile> {
    let slice = dataset.slice(index);
    let tile = overlay::overlay(&slice.image, dataset.height, dataset.width, Some(&slice.mask), mask)?;
    let name = format!("{} {}", dataset.patients[index.0].name, slice.number);
    let counts = SliceCounts::from_masks(index.0, mask, &slice.mask);
    let score = match counts.target {
        0 => format!("  {} false px", counts.predicted),
        _ => format!("  Dice {:.3}", counts.dice()),
    };
    let legend = [("true ", overlay::TRUTH), ("predicted", overlay::PREDICTED), (&score, overlay::TEXT)];
    Ok(tile.captioned(&[&[(&name, overlay::TEXT)], &legend]))
}

/// Validation slices that TensorBoard shows.
const PICTURES: usize = 4;

/// Puts a few validation slices with tumour, as they are predicted now, into the event file: about ten times a run.
pub(crate) fn log_pictures(
    events: &mut EventWriter,
    trainer: &Trainer,
    dataset: &Dataset,
    part: &[(usize, usize)],
) -> Result<()> {
    if !trainer.progress.epoch.is_multiple_of((trainer.config.epochs / 10).max(1)) {
        return Ok(());
    }
    let tumour: Vec<_> = part.iter().copied().filter(|index| dataset.slice(*index).mask.contains(&1)).collect();
    let step = tumour.len().div_ceil(PICTURES).max(1);
    let shown: Vec<_> = tumour.into_iter().skip(step / 2).step_by(step).collect();
    if shown.is_empty() {
        return Ok(());
    }
    let (judgement, _) = trainer.judge(dataset, &shown, JudgeOptions::new(trainer.config.batch), false)?;
    for (&index, mask) in shown.iter().zip(&judgement.masks) {
        let tile = picture(dataset, index, mask)?;
        let tag = format!("validation/{}_{}", dataset.patients[index.0].name, dataset.slice(index).number);
        events.image(trainer.progress.step, &tag, tile.png()?, tile.height, tile.width)?;
    }
    Ok(())
}
