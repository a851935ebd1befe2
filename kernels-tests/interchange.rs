//! Weight files of PyTorch, and ONNX files of ours in the hands of another runtime.
//!
//! `weights/make_weights.py` made the `.pth` files with PyTorch. `rten` runs the exported graphs: it shares no code with us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rten::Model as Runtime;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use safetensors::SafeTensors;
use shadegrad::models::weights::{self, StateDict};
use shadegrad::models::{self, Model, ModelConfig, Network, Preset, onnx};
use shadegrad::nn;
use shadegrad::ops::Mode;
use shadegrad::tensor::random::Stream;
use shadegrad::{Device, Tensor};

use crate::devices;
use crate::golden::{distance, floats, nhwc, permute};
use crate::models::parameter;

/// Relative L2 between two programs that compute the same in f32.
const CLOSE: f64 = 1e-5;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/weights").join(name)
}

/// Every small network, at widths that have odd groups and remainders.
fn networks() -> Vec<ModelConfig> {
    vec![
        ModelConfig::unext_small(),
        ModelConfig { widths: [2, 3, 5, 7, 12], in_channels: 4, num_classes: 2, ..ModelConfig::new(Model::Unext) },
        ModelConfig { base: 8, ..ModelConfig::new(Model::Unet) },
        ModelConfig { base: 3, conv_bias: true, in_channels: 1, num_classes: 3, ..ModelConfig::new(Model::Unet) },
        ModelConfig { base: 8, ..ModelConfig::new(Model::Resunet) },
        ModelConfig { base: 5, preset: Preset::Seed, num_classes: 2, ..ModelConfig::new(Model::Resunet) },
    ]
}

/// A network with the goldens' weights.
fn filled(device: &Device, config: &ModelConfig) -> Box<dyn Network> {
    let mut net = models::build(device, config, 0).unwrap();
    nn::fill(&mut net, &mut |name, shape| Some(parameter("dev", name, shape))).unwrap();
    net
}

/// An image in PyTorch's layout and order.
fn image(shape: [usize; 4]) -> Vec<f32> {
    let stream = Stream::named("dev", "input");
    (0..shape.iter().product::<usize>() as u64).map(|at| stream.unit(at)).collect()
}

/// Our logits of an image in PyTorch's layout, in that layout.
fn logits(net: &dyn Network, device: &Device, shape: [usize; 4]) -> Vec<f32> {
    let (dims, values) = nhwc(&shape, &image(shape));
    let x: Tensor = device.tensor("image", <[usize; 4]>::try_from(dims).unwrap(), &values).unwrap();
    let y = net.forward(&x, Mode::Eval).unwrap();
    permute(y.shape().dims(), &y.to_vec().unwrap(), &[0, 3, 1, 2]).1
}

#[test]
fn onnx_files_run_elsewhere() {
    let device = Device::cpu();
    for config in networks() {
        let mut net = filled(&device, &config);
        let about = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
        let bytes = onnx::to_bytes(net.as_mut(), &about).unwrap();
        let graph = Runtime::load(bytes).unwrap();
        for name in ["image", "logits"] {
            assert!(graph.find_node(name).is_some(), "no {name}");
        }
        let side = config.multiple();
        for [n, h, w] in [[1, 2 * side, 3 * side], [2, 4 * side, side]] {
            let shape = [n, config.in_channels, h, w];
            let x = NdTensor::from_data(shape, image(shape));
            let y: NdTensor<f32, 4> = graph.run_one(x.view().into(), None).unwrap().try_into().unwrap();
            assert_eq!(y.shape(), [n, config.num_classes, h, w]);
            let (relative, _) = distance(&y.to_vec(), &logits(net.as_ref(), &device, shape));
            assert!(relative < CLOSE, "{config:?} at {h}x{w}: relative L2 {relative:.1e}");
        }
    }
}

#[test]
fn state_dict_of_pytorch_gives_its_logits() {
    let bytes = std::fs::read(file("unext_tiny.safetensors")).unwrap();
    let (shape, want) = floats(&SafeTensors::deserialize(&bytes).unwrap(), "logits").unwrap();
    let dict = StateDict::read(&file("unext_tiny.pth")).unwrap();
    let config = dict.network().unwrap();
    assert_eq!(config, ModelConfig { widths: [2, 2, 2, 3, 3], ..ModelConfig::new(Model::Unext) });
    for device in devices::all() {
        let mut net = models::build(&device, &config, 1).unwrap();
        weights::load_dict(&mut net, &dict).unwrap();
        let got = logits(net.as_ref(), &device, [shape[0], 3, shape[2], shape[3]]);
        let (relative, _) = distance(&got, &want);
        assert!(relative < CLOSE, "{device}: relative L2 {relative:.1e}");
    }
}

/// The values of `make_weights.py`.
fn check_tensors(dict: &StateDict) {
    let value = |at: usize| at as f32 / 4.0 - 1.0;
    let all: Vec<f32> = (0..24).map(value).collect();
    let of = |name: &str| dict.get(name).unwrap_or_else(|| panic!("no {name}"));
    for name in ["f32", "f64", "f16", "bf16"] {
        assert_eq!((of(name).shape.as_slice(), &of(name).values), (&[2, 3, 4][..], &all), "{name}");
    }
    assert_eq!((of("i64").shape.len(), of("i64").values.as_slice()), (0, &[7.0][..]));
    let transposed: Vec<f32> = (0..24).map(|at| value(at / 6 + at % 6 * 4)).collect();
    assert_eq!((of("transposed").shape.as_slice(), &of("transposed").values), (&[4, 2, 3][..], &transposed));
    assert_eq!((of("tail").shape.as_slice(), of("tail").values.as_slice()), (&[2, 4][..], &all[16..]));
    assert_eq!(of("every_second").values, (0..12).map(|at| value(2 * at)).collect::<Vec<f32>>());
    assert_eq!(of("parameter").values, [0.5, -0.25]);
    assert_eq!((of("empty").shape.as_slice(), of("empty").values.len()), (&[0, 3][..], 0));
    assert_eq!(dict.tensors.len(), 10);
}

#[test]
fn every_kind_of_tensor_is_read() {
    for name in ["tensors.pth", "tensors_legacy.pth", "wrapped.pth"] {
        check_tensors(&StateDict::read(&file(name)).unwrap());
    }
    let notes = StateDict::read(&file("wrapped.pth")).unwrap().notes.join("; ");
    assert!(notes.contains("state_dict") && notes.contains("module."), "{notes}");
}

/// The one sentence with which a file is refused.
fn refused(path: &Path) -> String {
    let text = StateDict::read(path).unwrap_err().to_string();
    assert!(text.starts_with(&path.display().to_string()) && !text.contains('\n'), "{text}");
    text
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn a_pickle_that_would_run_something_is_refused() {
    assert_says(&refused(&file("malicious.pth")), &["posix.system", "nothing in a weight file is run", "torch.save"]);
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pth");
    for name in ["tensors.pth", "tensors_legacy.pth", "unext_tiny.pth"] {
        let whole = std::fs::read(file(name)).unwrap();
        // Cut anywhere: an error, never a panic and never a file that passes for whole.
        for length in (0..whole.len()).step_by(whole.len() / 200) {
            std::fs::write(&path, &whole[..length]).unwrap();
            refused(&path);
        }
        // A flipped byte may go unseen in the legacy format, which has no checksum; a panic may not.
        for at in (0..whole.len()).step_by(whole.len() / 600) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5a;
            std::fs::write(&path, &bytes).unwrap();
            let _ = StateDict::read(&path);
        }
    }
    std::fs::write(&path, b"hello").unwrap();
    assert_says(&refused(&path), &["neither a complete safetensors file nor a state dict of torch.save"]);
    let whole = std::fs::read(file("tensors.pth")).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    assert_says(&refused(&path), &["incomplete or damaged", "download the file again"]);
}

/// Saves a network under changed names and loads it again.
fn reload(config: &ModelConfig, change: &dyn Fn(&str) -> Option<String>) -> Result<(), String> {
    let device = Device::cpu();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let bytes = weights::to_bytes(&mut filled(&device, config), &Default::default()).unwrap();
    let held = SafeTensors::deserialize(&bytes).unwrap();
    let views: Vec<_> = held.iter().filter_map(|(name, view)| Some((change(name)?, view))).collect();
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let mut net = models::build(&device, config, 1).unwrap();
    weights::load(&mut net, &path).map_err(|error| error.to_string())
}

#[test]
fn missing_and_unexpected_names_are_named() {
    let config = ModelConfig::unext_small();
    reload(&config, &|name| (!name.ends_with("num_batches_tracked")).then(|| name.to_owned())).unwrap();
    reload(&config, &|name| Some(format!("module._orig_mod.{name}"))).unwrap();
    let text = reload(&config, &|name| (name != "norm3.weight").then(|| name.to_owned())).unwrap_err();
    assert_says(&text, &["weights.safetensors: lacks norm3.weight; ", "--model"]);
    let text = reload(&config, &|name| Some(name.replace("block1.0.mlp", "block1.0.MLP"))).unwrap_err();
    // dblock1 has the same six: of twelve, five are named.
    assert_says(
        &text,
        &["lacks block1.0.mlp.fc1.weight, ", " and 7 more, and holds ", " and 7 more, which the model has not"],
    );
    assert_eq!(text.matches("block1.0.mlp").count(), 5, "{text}");
}

/// A U-Net's names in two published forms, by the tables of their authors' code.
fn published(name: &str, milesial: bool) -> String {
    let stage = |rest: &str| match rest {
        "conv1.weight" => "0.weight".to_owned(),
        "conv2.weight" => "3.weight".to_owned(),
        _ => rest.replace("bn1", "1").replace("bn2", "4"),
    };
    let digit = |name: &str| name[1..2].parse::<u8>().unwrap();
    let (head, rest) = name.split_once('.').unwrap();
    let double = rest.strip_prefix("conv.").unwrap_or(rest);
    match (head.as_bytes()[0], milesial) {
        (b'o', false) => format!("conv.{rest}"),
        (b'o', true) => format!("outc.conv.{rest}"),
        (b'b', false) => format!("bottleneck.bottleneck{}", double.replace("bn", "norm")),
        (b'b', true) => format!("down4.maxpool_conv.1.double_conv.{}", stage(double)),
        (b'e', false) => format!("encoder{0}.enc{0}{1}", digit(head), double.replace("bn", "norm")),
        (b'e', true) if head == "e1" => format!("inc.double_conv.{}", stage(double)),
        (b'e', true) => format!("down{}.maxpool_conv.1.double_conv.{}", digit(head) - 1, stage(double)),
        (b'd', false) if rest.starts_with("up.") => format!("upconv{}.{}", 5 - digit(head), &rest[3..]),
        (b'd', false) => format!("decoder{0}.dec{0}{1}", 5 - digit(head), double.replace("bn", "norm")),
        (b'd', true) if rest.starts_with("up.") => format!("up{}.{rest}", digit(head)),
        _ => format!("up{}.conv.double_conv.{}", digit(head), stage(double)),
    }
}

#[test]
fn published_unets_are_renamed() {
    let config = ModelConfig { base: 2, ..ModelConfig::new(Model::Unet) };
    let device = Device::cpu();
    let ours = weights::to_bytes(&mut filled(&device, &config), &Default::default()).unwrap();
    let ours = SafeTensors::deserialize(&ours).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for milesial in [false, true] {
        let path = folder.path().join("theirs.safetensors");
        let views = ours.iter().map(|(name, view)| (published(name, milesial), view));
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        let dict = StateDict::read(&path).unwrap();
        assert_eq!(dict.network().unwrap(), config);
        for (name, view) in ours.iter().filter(|(_, view)| !view.shape().is_empty()) {
            let array = dict.get(name).unwrap_or_else(|| panic!("{name} is not there"));
            let (shape, mut values) = floats(&ours, name).unwrap();
            // milesial concatenates [skip, up]: their first half is our second.
            if milesial && name.starts_with('d') && name.ends_with("conv.conv1.weight") {
                let taps = view.shape()[1] / 2 * 9;
                for pair in values.chunks_exact_mut(2 * taps) {
                    let (first, second) = pair.split_at_mut(taps);
                    first.swap_with_slice(second);
                }
            }
            assert_eq!((&array.shape, &array.values), (&shape, &values), "{name}");
        }
        let mut net = models::build(&device, &config, 1).unwrap();
        weights::load_dict(&mut net, &dict).unwrap();
    }
}

#[test]
fn networks_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for config in networks() {
        weights::save(&mut filled(&Device::cpu(), &config), &path, &Default::default()).unwrap();
        assert_eq!(StateDict::read(&path).unwrap().network().unwrap(), config);
    }
}

#[test]
fn wrong_shapes_are_named() {
    let device = Device::cpu();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.safetensors");
    weights::save(&mut filled(&device, &ModelConfig::unext_small()), &path, &Default::default()).unwrap();
    let mut net = models::build(&device, &ModelConfig::new(Model::Unext), 0).unwrap();
    let before = logits(net.as_ref(), &device, [1, 3, 32, 32]);
    let text = weights::load(&mut net, &path).unwrap_err().to_string();
    assert_says(&text, &["small.safetensors: ", "but the model needs", "--model"]);
    assert_eq!(logits(net.as_ref(), &device, [1, 3, 32, 32]), before, "a refused file changes nothing");
    let text = StateDict::read(&file("tensors.pth")).unwrap().network().unwrap_err().to_string();
    assert_says(&text, &["f32, f64, f16, bf16, i64 and 5 more", "no network that is known"]);
}
