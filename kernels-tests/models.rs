//! Whole networks against CPU PyTorch in f64: `golden/<network>.json` and `.safetensors`.
//!
//! Weights, inputs and targets are rebuilt from the formula of `golden/README.md`. Per run: every stage, logits and loss
//! in both modes, running statistics, all gradients, and ten Adam steps where the file has them. Forward results are
//! held to the rule of `golden.rs`. Gradients are too in `calm` runs; elsewhere a single max pool or ReLU that rounding
//! decides the other way moves whole gradients, so there they only have to be near.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::SafeTensors;
use serde_json::Value;
use shadegrad::autograd::Operation;
use shadegrad::models::{self, Model, ModelConfig, Network, Preset, Summary};
use shadegrad::nn::{self, Module, Parameter, Visitor};
use shadegrad::ops::{self, Adam, BceDice, Mode};
use shadegrad::tensor::random::Stream;
use shadegrad::train::TrainConfig;
use shadegrad::{Device, Gradients, Result, Shape, Tape, Tensor};

use crate::devices;
use crate::golden::{Golden, Report, distance, extents, floats, folder, nhwc, numbers, permute, say, skipped};

/// Networks that the page of the goldens names. Others in the folder are found too.
const LABELS: [&str; 4] = ["unext", "unet", "resunet_published", "resunet_seed"];
/// Relative L2 of a gradient behind a decision that rounding may flip (PyTorch in f32: up to 1.1e-2).
const FLIPPED: f64 = 5e-2;
/// Losses before these steps of Adam are held tightly.
const TIGHT_STEPS: usize = 3;
/// Absolute bound of the others: three times what f32 cost PyTorch.
const LOOSE_LOSS: f64 = 3.0 * 3e-4;

/// The network of a file on a device, or why there is none.
fn build(label: &str, settings: &Value, device: &Device) -> std::result::Result<Box<dyn Network>, String> {
    // `resunet_seed` and its like are one network; their settings say which form.
    let model: Model = label.split('_').next().unwrap_or(label).parse().map_err(|_| "no such network yet")?;
    // The goldens' own default is the published U-Net, with biases.
    let mut config = ModelConfig { conv_bias: true, ..ModelConfig::new(model) };
    for (key, value) in settings.as_object().unwrap() {
        match key.as_str() {
            "in_channels" => config.in_channels = value.as_u64().unwrap() as usize,
            "num_classes" => config.num_classes = value.as_u64().unwrap() as usize,
            "widths" => config.widths = extents(value).try_into().unwrap(),
            "base" => config.base = value.as_u64().unwrap() as usize,
            "conv_bias" => config.conv_bias = value.as_bool().unwrap(),
            "down" => config.down = Some(serde_json::from_value(value.clone()).unwrap()),
            "up" => config.up = Some(serde_json::from_value(value.clone()).unwrap()),
            "shortcut_norm" => config.shortcut_norm = value.as_bool(),
            _ => return Err(format!("setting {key} is not known")),
        }
    }
    Ok(models::build(device, &config, 0).unwrap())
}

/// The formula's value of a tensor of the state dict, in PyTorch's order. f32 arithmetic, one rounding at most.
pub(crate) fn parameter(salt: &str, name: &str, shape: &[usize]) -> Vec<f32> {
    let stream = Stream::named(salt, name);
    let count = shape.iter().product::<usize>() as u64;
    let fan: usize = shape.iter().skip(1).product();
    let scale = 0.5_f32.powi(fan.ilog2() as i32 / 2);
    let leaf = name.rsplit('.').next().unwrap();
    let value = |v: f32| match leaf {
        "running_mean" => v * 0.125,
        "running_var" => 1.0 + v * 0.5,
        "bias" => v * 0.0625,
        _ if shape.len() == 1 => 1.0 + v * 0.25,
        _ => v * scale,
    };
    (0..count).map(|index| value(stream.unit(index))).collect()
}

/// Blocks of 8x8 pixels, a quarter of them 1, in our layout.
fn target(salt: &str, [n, h, w, classes]: [usize; 4]) -> Vec<f32> {
    let (rows, columns) = (h.div_ceil(8), w.div_ceil(8));
    let streams: Vec<Stream> = (0..classes).map(|c| Stream::named(salt, &format!("target/{c}"))).collect();
    let mut values = Vec::with_capacity(n * h * w * classes);
    for s in 0..n {
        for y in 0..h {
            for x in 0..w {
                let block = ((s * rows + y / 8) * columns + x / 8) as u64;
                values.extend(streams.iter().map(|stream| f32::from(u8::from(stream.bits24(block) < 1 << 22))));
            }
        }
    }
    values
}

/// Everything that a network holds, by name, in PyTorch's order; and its gradients, where there are some.
struct Collect<'a> {
    state: Vec<(String, Vec<usize>, Vec<f32>)>,
    counters: Vec<u64>,
    gradients: Option<&'a Gradients>,
    found: BTreeMap<String, Option<Vec<f32>>>,
}

impl Visitor for Collect<'_> {
    fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
        let (shape, layout) = (parameter.tensor.shape(), parameter.layout);
        let values = layout.to_file(shape, &parameter.tensor.to_vec()?);
        self.state.push((name.to_owned(), layout.file_shape(shape), values));
        if let Some(gradients) = self.gradients {
            let gradient = match gradients.of(&parameter.tensor) {
                Some(gradient) => Some(layout.to_file(shape, &gradient.to_vec()?)),
                None => None,
            };
            self.found.insert(name.to_owned(), gradient);
        }
        Ok(())
    }
    fn buffer(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
        self.state.push((name.to_owned(), tensor.shape().dims().to_vec(), tensor.to_vec()?));
        Ok(())
    }
    fn counter(&mut self, _name: &str, count: &AtomicU64) -> Result<()> {
        self.counters.push(count.load(Ordering::Relaxed));
        Ok(())
    }
}

fn collect<'a>(net: &mut dyn Module, gradients: Option<&'a Gradients>) -> Collect<'a> {
    let mut all = Collect { state: Vec::new(), counters: Vec::new(), gradients, found: BTreeMap::new() };
    net.visit("", &mut all).unwrap();
    all
}

/// One run of one configuration.
struct Run<'a> {
    /// `<config>/<run>`.
    path: String,
    label: &'a str,
    settings: &'a Value,
    salt: &'a str,
    about: &'a Value,
    tensors: SafeTensors<'a>,
    device: &'a Device,
    calm: bool,
    report: &'a mut Report,
    /// Stages in the file that our forward does not show.
    hidden: BTreeSet<String>,
}

impl Run<'_> {
    fn filled(&self) -> Box<dyn Network> {
        let mut net = build(self.label, self.settings, self.device).unwrap();
        nn::fill(&mut net, &mut |name, shape| Some(parameter(self.salt, name, shape))).unwrap();
        net
    }

    fn number(&self, key: &str) -> f64 {
        self.about[key].as_f64().unwrap()
    }

    fn images(&self) -> Tensor {
        let shape = extents(&self.about["input"]);
        let stream = Stream::named(self.salt, self.about["input_name"].as_str().unwrap());
        let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64).map(|i| stream.unit(i)).collect();
        let (shape, values) = nhwc(&shape, &values);
        self.device.tensor("golden", Shape::new(&shape).unwrap(), &values).unwrap()
    }

    /// A stored image in our layout; `None` if only its deviation is stored.
    fn stored(&self, what: &str) -> Option<Vec<f32>> {
        let (shape, values) = floats(&self.tensors, &format!("{}/{what}", self.path))?;
        Some(if shape.len() == 4 { nhwc(&shape, &values).1 } else { values })
    }

    fn compare(&mut self, group: &str, what: &str, got: &[f32]) {
        let Some(want) = self.stored(what) else { return };
        let name = format!("{} {what}", self.path);
        self.report.tensor(group, &name, got, &want, &self.about["deviation"][what]);
    }

    fn loss(&mut self, mode: &str, loss: f64) {
        let want = self.number(&format!("{mode}_loss_f64"));
        let f32_error = (self.number(&format!("{mode}_loss_f32")) - want).abs();
        self.report.check(&format!("{mode} loss"), &self.path, (loss - want).abs(), 20.0 * f32_error + 1e-6);
    }

    /// Runs the network, compares each stage, returns the logits.
    fn forward(&mut self, net: &dyn Network, x: &Tensor, mode: Mode) -> Tensor {
        let prefix = if mode == Mode::Train { "train" } else { "eval" };
        let mut stages = Vec::new();
        let mut stage = |name: &str, tensor: &Tensor| {
            stages.push((name.to_owned(), tensor.to_vec()?));
            Ok(())
        };
        let logits = net.forward_stages(x, mode, &mut stage).unwrap();
        stages.push(("logits".to_owned(), logits.to_vec().unwrap()));
        let shown: BTreeSet<String> = stages.iter().map(|(name, _)| format!("{prefix}/{name}")).collect();
        for (name, values) in &stages {
            let what = format!("{prefix}/{name}");
            let known = self.about["deviation"].get(&what).is_some();
            self.report.holds("every stage is in the file", &format!("{} {what}", self.path), known);
            let group = if name == "logits" { format!("{prefix} logits") } else { format!("{prefix} stages") };
            self.compare(&group, &what, values);
        }
        for what in self.about["deviation"].as_object().unwrap().keys() {
            let stage = what.starts_with(&format!("{prefix}/")) && what != "train/grad_input";
            if stage && !shown.contains(what) {
                self.hidden.insert(what.split('/').next_back().unwrap().to_owned());
            }
        }
        logits
    }

    fn all(&mut self) {
        let mut net = self.filled();
        let x = self.images();
        let logits = self.forward(net.as_ref(), &x, Mode::Eval);
        let dims: [usize; 4] = logits.shape().dims().try_into().unwrap();
        let masks = target(self.salt, dims);
        let sum: f64 = masks.iter().map(|value| f64::from(*value)).sum();
        self.report.holds("target_sum", &self.path, sum == self.number("target_sum"));
        let masks = self.device.tensor("golden", dims, &masks).unwrap();
        let loss = |logits: &Tensor| ops::bce_dice(logits, &masks, &BceDice::sample()).unwrap();
        let value = |loss: &Tensor| f64::from(loss.to_vec().unwrap()[0]);
        self.loss("eval", value(&loss(&logits)));

        let tape = Tape::new();
        let watched = tape.watch_input(&x);
        let logits = self.forward(net.as_ref(), &watched, Mode::Train);
        let train_loss = loss(&logits);
        self.loss("train", value(&train_loss));
        let gradients = tape.backward(&train_loss).unwrap();
        net.parameters().check(&gradients).unwrap();
        self.input_gradient(&gradients.of(&watched).unwrap().to_vec().unwrap());
        let all = collect(&mut net, Some(&gradients));
        for (name, _, values) in &all.state {
            self.compare("running statistics", &format!("after/{name}"), values);
        }
        let counted = all.counters.iter().all(|count| *count == 1);
        self.report.holds("num_batches_tracked", &self.path, counted);
        self.gradients(&all.found);
        drop(net);
        if self.about.get("adam_f64").is_some() {
            self.adam(&x, &loss);
        }
    }

    fn input_gradient(&mut self, got: &[f32]) {
        if self.calm {
            return self.compare("input gradient, calm", "train/grad_input", got);
        }
        let Some(want) = self.stored("train/grad_input") else { return };
        let (relative, _) = distance(got, &want);
        self.report.check("input gradient, loosely", &self.path, relative, FLIPPED);
    }

    fn gradients(&mut self, found: &BTreeMap<String, Option<Vec<f32>>>) {
        let entries = self.about["gradients"].as_array().unwrap();
        self.report.holds("a gradient of every parameter", &self.path, entries.len() == found.len());
        let largest = entries.iter().map(|entry| entry["l2"].as_f64().unwrap()).fold(0.0, f64::max);
        for entry in entries {
            let name = entry["name"].as_str().unwrap();
            let path = format!("{} {name}", self.path);
            let Some(Some(got)) = found.get(name) else {
                self.report.holds("a gradient of every parameter", &path, false);
                continue;
            };
            let (of, report) = (|key: &str| entry[key].as_f64().unwrap(), &mut *self.report);
            let l2 = got.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            if entry["noise"] == true {
                // The true gradient is 0: what is left is rounding.
                report.check("gradients that are 0", &path, l2, (100.0 * of("f32_l2")).max(1e-6 * largest));
                continue;
            }
            let first: Vec<f32> = numbers(&entry["first16"]).iter().map(|value| *value as f32).collect();
            report.holds("length of a gradient", &path, got.len() >= first.len());
            let stored = floats(&self.tensors, &format!("{}/grad/{name}", self.path));
            let norm_error = (l2 / of("l2") - 1.0).abs();
            if !self.calm {
                report.check("gradient norms, loosely", &path, norm_error, FLIPPED);
                if let Some((_, want)) = stored {
                    report.check("gradients, loosely", &path, distance(got, &want).0, FLIPPED);
                }
                continue;
            }
            let relative = 20.0 * of("f32_rel_l2") + 1e-6;
            report.check("gradient norms, calm", &path, norm_error, relative);
            if let Some((_, want)) = stored {
                report.tensor("gradients, calm", &path, got, &want, entry);
                continue;
            }
            // Too large to be stored whole: its first numbers and its sum.
            let (_, most) = distance(&got[..first.len()], &first);
            report.check("gradients, calm, first 16", &path, most, 20.0 * of("f32_max_abs") + 1e-6 * of("max"));
            let sum: f64 = got.iter().map(|value| f64::from(*value)).sum();
            let bound = relative * of("l2") * (got.len() as f64).sqrt();
            report.check("gradients, calm, sum", &path, (sum - of("sum")).abs(), bound);
        }
    }

    fn adam(&mut self, x: &Tensor, loss: &dyn Fn(&Tensor) -> Tensor) {
        let net = self.filled();
        let about = &self.about["adam_f64"];
        let (lr, weight_decay) = (about["lr"].as_f64().unwrap(), about["weight_decay"].as_f64().unwrap());
        let settings = Adam { weight_decay, ..Adam::default() };
        let all = net.parameters();
        let zeros = |shape: Shape| self.device.zeros("golden", shape).unwrap();
        let (m, v, step) = (zeros(all.values.shape()), zeros(all.values.shape()), zeros([4].into()));
        let value = |loss: &Tensor| f64::from(loss.to_vec().unwrap()[0]);
        let losses = numbers(&about["losses"]);
        for (t, want) in losses.iter().enumerate() {
            let tape = Tape::new();
            let now = loss(&net.forward(&tape.watch(x), Mode::Train).unwrap());
            let (group, bound) =
                if t < TIGHT_STEPS { ("Adam losses, first", 1e-5) } else { ("Adam losses, later", LOOSE_LOSS) };
            self.report.check(
                group,
                &format!("{} before step {}", self.path, t + 1),
                (value(&now) - want).abs(),
                bound,
            );
            if t + 1 == losses.len() {
                break;
            }
            let gradients = tape.backward(&now).unwrap();
            all.check(&gradients).unwrap();
            step.write(&settings.step_values(lr, t as u64 + 1)).unwrap();
            ops::adam(&settings, &all.gradients, &step, &all.values, &m, &v).unwrap();
        }
        // Includes the biases before batch norm, which Adam moves by rounding noise alone.
        let after = value(&loss(&net.forward(x, Mode::Eval).unwrap()));
        let error = (after - about["eval_loss_after"].as_f64().unwrap()).abs();
        self.report.check("eval loss after Adam", &self.path, error, 5e-3);
    }
}

/// Names, shapes, count and bits of the filled state.
fn state(report: &mut Report, label: &str, salt: &str, config: &Value, device: &Device) {
    let name = config["name"].as_str().unwrap();
    let mut net = build(label, &config["settings"], device).unwrap();
    report.holds("parameters", name, config["parameters"] == net.parameters().count());
    nn::fill(&mut net, &mut |name, shape| Some(parameter(salt, name, shape))).unwrap();
    let ours = collect(&mut net, None).state;
    let theirs = config["state"].as_array().unwrap();
    report.holds("entries of the state", name, ours.len() == theirs.len());
    for ((ours, shape, values), theirs) in ours.iter().zip(theirs) {
        let path = format!("{name} {ours}");
        report.holds("names, in order", &path, theirs["name"] == **ours);
        report.holds("shapes", &path, extents(&theirs["shape"]) == *shape);
        let bits: u64 = values.iter().map(|value| u64::from(value.to_bits())).sum();
        report.holds("bits_sum", &path, theirs["bits_sum"] == bits);
        // serde_json may miss the last bit of an f64; as f32 the numbers are exact.
        let first = numbers(&theirs["first"]);
        report.holds("first", &path, first.iter().zip(values).all(|(want, got)| *want as f32 == *got));
    }
}

/// The labels of the networks in the folder.
fn labels() -> BTreeSet<String> {
    let mut labels: BTreeSet<String> = LABELS.map(str::to_owned).into();
    for entry in std::fs::read_dir(folder()).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            if json.get("network").is_some() && json.get("configs").is_some() {
                labels.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    labels
}

fn golden_networks(device: &Device) {
    let mut report = Report::default();
    for label in labels() {
        let Some(golden) = Golden::open(&label) else { continue };
        for config in golden.json["configs"].as_array().unwrap() {
            let (name, settings) = (config["name"].as_str().unwrap(), &config["settings"]);
            if let Err(why) = build(&label, settings, device) {
                skipped(&format!("network {name}"), &why);
                continue;
            }
            state(&mut report, &label, golden.salt(), config, device);
            for (run, about) in config["runs"].as_object().unwrap() {
                let mut run = Run {
                    path: format!("{name}/{run}"),
                    label: &label,
                    settings,
                    salt: golden.salt(),
                    about,
                    tensors: golden.tensors(),
                    device,
                    calm: run.starts_with("calm"),
                    report: &mut report,
                    hidden: BTreeSet::new(),
                };
                run.all();
                if !run.hidden.is_empty() {
                    let hidden: Vec<&str> = run.hidden.iter().map(String::as_str).collect();
                    skipped(&format!("{} {}", run.path, hidden.join(", ")), "stages that forward does not show");
                }
                say(&format!("golden: {} done on {device}", run.path));
            }
        }
    }
    report.finish(&format!("networks on {device}"));
}

#[test]
fn golden_networks_cpu() {
    golden_networks(&Device::cpu());
}

#[test]
fn golden_networks_gpu() {
    if let Some(device) = devices::gpu() {
        golden_networks(device);
    }
}

/// The layouts of parameters are PyTorch's axes in another order.
#[test]
fn golden_layouts() {
    use shadegrad::nn::Layout;
    let values: Vec<f32> = (0..4 * 3 * 2 * 5).map(|value| value as f32).collect();
    for (layout, file, order) in [
        (Layout::Conv, vec![4, 3, 2, 5], vec![2, 3, 1, 0]),
        (Layout::Depthwise, vec![12, 1, 2, 5], vec![2, 3, 0, 1]),
        (Layout::Linear, vec![12, 10], vec![1, 0]),
    ] {
        assert_eq!(file.iter().product::<usize>(), values.len(), "{layout:?}");
        let (shape, moved) = permute(&file, &values, &order);
        let memory = Shape::new(if layout == Layout::Depthwise { &shape[..3] } else { &shape }).unwrap();
        assert_eq!(layout.file_shape(memory), file, "{layout:?}");
        assert_eq!(layout.from_file(memory, &values), moved, "{layout:?}");
        assert_eq!(layout.to_file(memory, &moved), values, "{layout:?}");
    }
}

/// The table of the networks' page: parameters, entries of the state dict, multiply-adds (G) of a 256x256 image and the
/// digits behind the point to which they are known.
#[test]
fn networks_have_the_published_sizes() {
    let unext = |widths| ModelConfig { widths, ..ModelConfig::new(Model::Unext) };
    let unet = |base, conv_bias| ModelConfig { base, conv_bias, ..ModelConfig::new(Model::Unet) };
    let resunet = |base, preset| ModelConfig { base, preset, ..ModelConfig::new(Model::Resunet) };
    let (published, seed) = (Preset::Published, Preset::Seed);
    let table = [
        (unext([16, 32, 128, 160, 256]), 1_471_921, 101, 0.562, 3),
        (ModelConfig::unext_small(), 253_561, 101, 0.0992, 4),
        (unext([32, 64, 128, 160, 256]), 1_580_961, 101, 1.176, 3),
        (unet(64, true), 31_043_521, 136, 48.17, 2),
        (unet(64, false), 31_037_633, 118, 48.17, 2),
        (unet(32, true), 7_765_985, 136, 12.07, 2),
        (unet(32, false), 7_763_041, 118, 12.07, 2), // Buda's, trained on LGG
        (unet(16, true), 1_944_049, 136, 3.03, 2),
        (unet(8, true), 487_289, 136, 0.765, 3),
        (resunet(64, published), 8_220_993, 109, 45.23, 2),
        (resunet(32, published), 2_058_401, 109, 11.34, 2),
        (resunet(16, published), 516_177, 109, 2.85, 2),
        (resunet(8, published), 129_833, 109, 0.721, 3),
        (resunet(64, seed), 9_600_961, 150, 48.45, 2),
        (resunet(32, seed), 2_404_321, 150, 12.14, 2),
        (resunet(16, seed), 603_121, 150, 3.05, 2),
        (resunet(8, seed), 151_801, 150, 0.771, 3),
    ];
    for (config, parameters, entries, giga, digits) in table {
        let summary = Summary::new(&config, 256).unwrap();
        assert_eq!(summary.parameters, parameters, "{config:?}");
        let by_stage: usize = summary.stages.iter().map(|stage| stage.parameters).sum();
        assert_eq!(by_stage, parameters, "{config:?}: stages");
        let half = 0.5 * 0.1_f64.powi(digits) + 1e-9;
        assert!((summary.macs as f64 * 1e-9 - giga).abs() <= half, "{config:?}: {} MACs, not {giga} G", summary.macs);
        let mut net = models::build(&Device::cpu(), &config, 0).unwrap();
        assert_eq!(nn::names(&mut net).unwrap().len(), entries, "{config:?}");
    }
}

/// Stages of the tables in the model files.
#[test]
fn stages_have_the_published_sizes() {
    let of = |config: ModelConfig| {
        let stages = Summary::new(&config, 256).unwrap().stages;
        stages.into_iter().map(|stage| (stage.name, stage.shape, stage.parameters)).collect::<Vec<_>>()
    };
    let want = |rows: &[(&str, usize, usize, usize)]| -> Vec<_> {
        rows.iter().map(|(name, side, c, parameters)| ((*name).to_owned(), [*side, *side, *c], *parameters)).collect()
    };
    let unet = want(&[
        ("e1", 256, 64, 38_848),
        ("e2", 128, 128, 221_696),
        ("e3", 64, 256, 885_760),
        ("e4", 32, 512, 3_540_992),
        ("b", 16, 1024, 14_159_872),
        ("d1", 32, 512, 9_177_600),
        ("d2", 64, 256, 2_295_040),
        ("d3", 128, 128, 574_080),
        ("d4", 256, 64, 143_680),
        ("logits", 256, 1, 65),
    ]);
    assert_eq!(of(ModelConfig::new(Model::Unet)), unet);
    let resunet = want(&[
        ("e1", 256, 64, 39_232),
        ("e2", 128, 128, 230_400),
        ("e3", 64, 256, 919_552),
        ("bridge", 32, 512, 3_674_112),
        ("d1", 64, 256, 3_608_320),
        ("d2", 128, 128, 903_040),
        ("d3", 256, 64, 226_240),
        ("logits", 256, 1, 65),
    ]);
    assert_eq!(of(ModelConfig { preset: Preset::Seed, ..ModelConfig::new(Model::Resunet) }), resunet);
}

/// What the summary scales up from the smallest image is what a large one has.
#[test]
fn summaries_grow_with_the_area() {
    for model in Model::ALL {
        let config = ModelConfig { base: 4, widths: [4, 6, 8, 10, 12], num_classes: 3, ..ModelConfig::new(model) };
        let size = 2 * config.multiple();
        let net = models::build(&Device::cpu(), &config, 0).unwrap();
        let tape = Tape::new();
        let image = Device::cpu().zeros("test", [1, size, size, 3]).unwrap();
        let logits = net.forward(&tape.watch_input(&image), Mode::Eval).unwrap();
        assert_eq!(logits.shape().dims(), [1, size, size, 3], "{model}");
        let summary = Summary::new(&config, size).unwrap();
        let sum = |of: fn(&Operation) -> u64| tape.operations().iter().map(of).sum::<u64>();
        assert_eq!(summary.macs, sum(|operation| operation.macs), "{model}");
        assert_eq!(summary.activation_bytes, sum(|operation| operation.output.len() as u64 * 4), "{model}");
        assert_eq!(summary.parameters as u64, sum(|operation| operation.parameters as u64), "{model}");
        assert!(net.diagram().lines().count() > 8, "{model} has no diagram");
        let wrong = Summary::new(&config, size + 1).unwrap_err().to_string();
        assert!(wrong.contains(&config.multiple().to_string()), "{wrong}");
        let wrong = net.forward(&image.images(&(0..1)).reshape([1, size / 2, 2 * size, 3]).unwrap(), Mode::Eval);
        assert!(wrong.is_ok(), "{model}: half the height still divides");
        let wrong = net.forward(&Device::cpu().zeros("test", [1, size + 1, size, 3]).unwrap(), Mode::Eval);
        assert!(wrong.unwrap_err().to_string().contains("divide by"), "{model}");
    }
}

/// PyTorch's default start: the bound of a transposed convolution counts its output channels.
#[test]
fn networks_start_as_pytorch_does() {
    struct Largest(BTreeMap<String, f32>);
    impl Visitor for Largest {
        fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
            let values = parameter.tensor.to_vec()?;
            self.0.insert(name.to_owned(), values.iter().fold(0.0, |most, value| most.max(value.abs())));
            Ok(())
        }
    }
    let of = |config: ModelConfig| {
        let mut net = models::build(&Device::cpu(), &config, 5).unwrap();
        let mut largest = Largest(BTreeMap::new());
        net.visit("", &mut largest).unwrap();
        largest.0
    };
    let near = |largest: f32, fan_in: usize, name: &str| {
        let bound = 1.0 / (fan_in as f32).sqrt();
        assert!(largest <= bound && largest > 0.6 * bound, "{name}: up to {largest}, bound {bound}");
    };
    let unet = of(ModelConfig { base: 8, conv_bias: true, ..ModelConfig::new(Model::Unet) });
    near(unet["e1.conv.conv1.weight"], 27, "e1.conv.conv1.weight");
    near(unet["e1.conv.conv2.bias"], 72, "e1.conv.conv2.bias");
    near(unet["d1.up.weight"], 64 * 4, "d1.up.weight");
    near(unet["d1.up.bias"], 64 * 4, "d1.up.bias");
    near(unet["d1.conv.conv1.weight"], 128 * 9, "d1.conv.conv1.weight");
    assert_eq!((unet["d1.conv.bn1.weight"], unet["d1.conv.bn1.bias"]), (1.0, 0.0));
    let resunet = of(ModelConfig { base: 8, preset: Preset::Seed, ..ModelConfig::new(Model::Resunet) });
    near(resunet["c13.weight"], 3, "c13.weight");
    near(resunet["r2.s.bias"], 8, "r2.s.bias");
    near(resunet["d3.upsample.weight"], 16 * 4, "d3.upsample.weight");
    assert_eq!((resunet["r2.s_bn.weight"], resunet["br1.bn.bias"]), (1.0, 0.0));
}

/// A configuration survives its file, and a wrong key is named with its line.
#[test]
fn configurations_survive_their_file() {
    let network = ModelConfig {
        base: 24,
        preset: Preset::Seed,
        up: Some(models::Up::Bilinear),
        in_channels: 4,
        ..ModelConfig::new(Model::Resunet)
    };
    let mut config = TrainConfig::default();
    config.set_network(&network);
    let text = toml::to_string(&config).unwrap();
    let read: TrainConfig = toml::from_str(&text).unwrap();
    assert_eq!((read.network(), &read), (network, &config));
    let old: TrainConfig = toml::from_str("model = \"unext\"\nwidths = [8, 16, 32, 64, 128]\n").unwrap();
    assert_eq!(old.network(), ModelConfig::unext_small());
    let wrong = toml::from_str::<TrainConfig>("model = \"unet\"\nbsae = 8\n").unwrap_err().to_string();
    assert!(wrong.contains("bsae") && wrong.contains("line 2"), "{wrong}");
    let wrong = toml::from_str::<TrainConfig>("model = \"vnet\"\n").unwrap_err().to_string();
    assert!(wrong.contains("vnet") && wrong.contains("resunet"), "{wrong}");
}
