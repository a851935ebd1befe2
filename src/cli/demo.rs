//! `shadegrad demo`: the whole way on a small phantom data set.

use std::path::PathBuf;

use shadegrad::data::Split;
use shadegrad::data::phantom::{PhantomSettings, best_threshold, write_phantom};
use shadegrad::train::{TrainConfig, Trainer};
use shadegrad::{Error, Result};

use super::{bar, catch_interrupt, eval, train};

/// Make a small phantom data set, train UNeXt on it, evaluate, draw overlays.
///
/// Example: shadegrad demo --out runs/demo
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct DemoArgs {
    /// Where everything is written
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// auto, cpu, or part of an adapter's name
    #[arg(long, default_value = "auto", env = "SHADEGRAD_DEVICE")]
    device: String,
    /// Passes over the training slices
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// Seed of the phantoms and of the training
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Log lines, then the metrics, as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let run = args.out.join("run");
    if args.out.join("run/state.safetensors").exists() {
        let message = format!("{} holds a finished demo; remove it or give another --out", args.out.display());
        return Err(Error::Config(message));
    }
    let device = super::open(&args.device)?;
    let settings = PhantomSettings { patients: 10, slices: 24, size: 128, seed: args.seed };
    let folder = args.out.join("data");
    if !folder.exists() {
        let progress = bar("drawing phantoms", args.json);
        write_phantom(&folder, &settings, &|done, total| {
            progress.set_length(total as u64);
            progress.set_position(done as u64);
        })?;
        progress.finish_and_clear();
    }
    let dataset = train::read(&folder, 0, args.json)?;
    let split = Split::by_patient(&dataset, 0.3, args.seed)?;
    let config = TrainConfig { epochs: args.epochs, lr: 3e-3, seed: args.seed, ..TrainConfig::default() };
    let mut trainer = Trainer::new(&device, &dataset, &config)?;
    if !args.json {
        println!("UNeXt, {} parameters, on {device}", trainer.net.parameters().count());
        println!("{} training slices; validation on {}", split.train.len(), split.val_patients(&dataset).join(", "));
    }
    catch_interrupt();
    let (judgement, loss) = train::session(&mut trainer, &dataset, &split, &run, false, args.json)?;
    let threshold = best_threshold(&dataset, &split.val);
    if !args.json {
        println!("\nValidation patients, best weights:");
    }
    eval::print(&judgement, loss, args.json)?;
    if !args.json {
        println!("  best threshold on FLAIR        {threshold:.4}  (chosen per patient with knowledge of the mask)");
        println!("\nLook at {}", run.join("overlays/sheet.png").display());
    }
    Ok(())
}
