//! A network as an ONNX file (opset 17): `image` `[N, C, H, W]` -> `logits` `[N, classes, H, W]`, any N, H and W.
//!
//! The graph is the tape of an evaluation forward: each recorded op becomes its ONNX operators, so the file cannot drift
//! from what the network computes, and a new network needs nothing here. An op that ONNX is not told about is an
//! error that names it.
//!
//! Our tensors are `[N, H, W, C]`, ONNX's `[N, C, H, W]`; weights keep PyTorch's names and layouts.
//!
//! | ours | ONNX |
//! | --- | --- |
//! | conv2d, depthwise_conv2d | Conv |
//! | linear (over channels) | Unsqueeze of the weight, Conv 1x1 |
//! | shifted_linear | those of shift and linear, Add |
//! | batch_norm, batch_norm_max_pool2d, batch_norm_upsample_bilinear | BatchNormalization, and what else is part of it |
//! | layer_norm | Transpose, LayerNormalization, Transpose |
//! | max_pool2d, upsample_bilinear, upsample_bilinear_concat | MaxPool, Resize, Resize and Concat |
//! | shift | Pad by two zeros, a Slice a channel group, Concat |
//! | conv_transpose2d, concat | ConvTranspose, Concat |
//! | relu, sigmoid, softmax, add | Relu, Sigmoid, Softmax, Add |
//! | gelu | Div, Erf, Add, Mul, Mul (Gelu is opset 20) |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use prost::Message as _;

use super::onnx_messages::{
    Attribute, Dimension, Entry, Graph, Model, Node, OperatorSet, TensorShape, TensorType, Type, ValueInfo, kind,
};
use super::{Network, onnx_messages as messages};
use crate::autograd::{self, Input, Setting};
use crate::nn::{Mode, Parameter, Visitor};
use crate::tensor::Tensor;
use crate::{Error, Result, Tape};

/// Operators of this version are in every runtime since 2022.
const OPSET: i64 = 17;
/// The file format that came with it.
const IR_VERSION: i64 = 8;
/// Protobuf's limit.
const MAX_BYTES: usize = 1 << 31;

/// The file's bytes. `about` goes into its metadata: what has to be done to an image before.
///
/// # Errors
/// [`Error::Config`] naming an op that has no ONNX form, or for 2 GiB of weights; else as the forward pass.
pub fn to_bytes(net: &mut dyn Network, about: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let config = net.config().clone();
    let mut builder = Builder::new(net)?;
    let device = net.parameters().values.device().clone();
    // The sizes of this pass are in no node: each works on whatever comes.
    let side = 64;
    let image = device.zeros("onnx", [1, side, side, config.in_channels])?;
    let tape = Tape::new();
    let image = tape.watch_input(&image);
    let start = slot(&image);
    let logits = net.forward(&image, Mode::Eval)?;
    let end = slot(&logits);
    let name = |slot: usize| match Some(slot) {
        slot if slot == start => "image".to_owned(),
        slot if slot == end => "logits".to_owned(),
        _ => format!("v{slot}"),
    };
    for node in tape.into_nodes() {
        builder.node(&node, &name)?;
    }
    let side = |axis: &str| Dimension { dim_param: Some(axis.to_owned()), dim_value: None };
    let value = |name: &str, channels: usize| {
        let channels = Dimension { dim_value: Some(channels as i64), dim_param: None };
        let shape = TensorShape { dim: vec![side("batch"), channels, side("height"), side("width")] };
        let tensor_type = TensorType { elem_type: kind::TENSOR_FLOAT, shape: Some(shape) };
        ValueInfo { name: name.to_owned(), kind: Some(Type { tensor_type: Some(tensor_type) }) }
    };
    let graph = Graph {
        node: builder.nodes,
        name: "shadegrad".to_owned(),
        initializer: builder.initializers,
        input: vec![value("image", config.in_channels)],
        output: vec![value("logits", config.num_classes)],
    };
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "shadegrad".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: "image: normalised as metadata_props says; logits: a sigmoid turns them into probabilities"
            .to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props: about.iter().map(|(key, value)| Entry { key: key.clone(), value: value.clone() }).collect(),
    };
    if model.encoded_len() >= MAX_BYTES {
        return Err(Error::Config("an ONNX file holds less than 2 GiB, and these weights are more".to_owned()));
    }
    Ok(model.encode_to_vec())
}

/// A tensor's place on its tape.
fn slot(tensor: &Tensor) -> Option<usize> {
    tensor.slot.as_ref().map(|slot| slot.index)
}

/// Writes the file.
///
/// # Errors
/// As [`to_bytes`], and [`Error::Io`]; the previous file stays.
pub fn save(net: &mut dyn Network, path: &Path, about: &BTreeMap<String, String>) -> Result<()> {
    crate::data::write_atomically(path, &to_bytes(net, about)?)
}

/// Parameters in the order of their stable numbers, and buffers.
#[derive(Default)]
struct Collect {
    parameters: Vec<messages::Tensor>,
    buffers: Vec<(Tensor, messages::Tensor)>,
}

impl Visitor for Collect {
    fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
        let (shape, layout) = (parameter.tensor.shape(), parameter.layout);
        let values = layout.to_file(shape, &parameter.tensor.to_vec()?);
        self.parameters.push(floats(name, &layout.file_shape(shape), &values));
        Ok(())
    }
    fn buffer(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
        self.buffers.push((tensor.detach(), floats(name, tensor.shape().dims(), &tensor.to_vec()?)));
        Ok(())
    }
}

fn floats(name: &str, shape: &[usize], values: &[f32]) -> messages::Tensor {
    messages::Tensor {
        dims: shape.iter().map(|extent| *extent as i64).collect(),
        data_type: kind::TENSOR_FLOAT,
        name: name.to_owned(),
        raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// An operator of a chain: its name, its inputs after the first, its attributes.
type Step = (&'static str, Vec<String>, Vec<Attribute>);

/// The graph so far.
struct Builder {
    weights: Collect,
    nodes: Vec<Node>,
    initializers: Vec<messages::Tensor>,
    /// Names of the initializers.
    written: HashSet<String>,
    /// How often each kind of node occurred: its names end in this.
    counts: HashMap<String, usize>,
}

impl Builder {
    fn new(net: &mut dyn Network) -> Result<Self> {
        let mut weights = Collect::default();
        net.visit("", &mut weights)?;
        let (nodes, initializers) = (Vec::new(), Vec::new());
        Ok(Self { weights, nodes, initializers, written: HashSet::new(), counts: HashMap::new() })
    }

    /// Adds a recorded op.
    fn node(&mut self, node: &autograd::Node, name: &dyn Fn(usize) -> String) -> Result<()> {
        let op = node.op.name();
        let settings: HashMap<&str, Setting<'_>> = node.op.settings().into_iter().collect();
        let number = |key: &str| match settings.get(key) {
            Some(Setting::Number(value)) => Ok(*value),
            _ => Err(Error::Config(format!("{op} does not say its {key}, which ONNX needs"))),
        };
        let mut inputs = Vec::new();
        for input in &node.inputs {
            match input {
                Input::Value(slot) => inputs.push(name(*slot)),
                Input::Leaf(leaf) => inputs.push(self.parameter(leaf.id)?),
                Input::Constant => {}
            }
        }
        let y = name(node.output);
        let shape = |this: &Self, name: &str| -> Result<Vec<i64>> {
            let found = this.initializers.iter().find(|tensor| tensor.name == name);
            found.map(|tensor| tensor.dims.clone()).ok_or_else(|| Error::Config(format!("{op} has no weight")))
        };
        match op {
            "conv2d" => {
                let weight = shape(self, &inputs[1])?;
                let (stride, padding) = (number("stride")? as i64, number("padding")? as i64);
                if settings.contains_key("added") {
                    let sum = format!("{y}_conv");
                    let there = inputs.pop().ok_or_else(|| no_form(op))?;
                    self.conv(inputs, sum.clone(), &weight, 1, stride, padding);
                    self.add("Add", vec![there, sum], y, vec![]);
                } else {
                    self.conv(inputs, y, &weight, 1, stride, padding);
                }
            }
            "depthwise_conv2d" => {
                let weight = shape(self, &inputs[1])?;
                let gelu = number("gelu")? != 0.0;
                let conv = if gelu { format!("{y}_conv") } else { y.clone() };
                self.conv(inputs, conv.clone(), &weight, weight[0], 1, number("padding")? as i64);
                if gelu {
                    self.gelu(conv, y);
                }
            }
            "linear" => {
                let weight = shape(self, &inputs[1])?;
                self.linear(inputs, y, &weight)?;
            }
            "shifted_linear" => {
                let weight = shape(self, &inputs[1])?;
                let residual = if number("residual")? != 0.0 { inputs.pop() } else { None };
                let (shifted, product) = (format!("{y}_shifted"), format!("{y}_product"));
                let x = std::mem::replace(&mut inputs[0], shifted.clone());
                self.shift(&x, shifted, number("axis")? as usize, weight[1]);
                match residual {
                    Some(residual) => {
                        self.linear(inputs, product.clone(), &weight)?;
                        self.add("Add", vec![residual, product], y, vec![]);
                    }
                    None => self.linear(inputs, y, &weight)?,
                }
            }
            "batch_norm" | "batch_norm_max_pool2d" | "batch_norm_upsample_bilinear" => {
                let skip = inputs.split_off(3);
                for key in ["mean", "variance"] {
                    let Some(Setting::Tensor(tensor)) = settings.get(key) else { return Err(no_form(op)) };
                    inputs.push(self.buffer(tensor)?);
                }
                let x = inputs.remove(0);
                let mut steps = vec![("BatchNormalization", inputs, vec![float("epsilon", number("eps")? as f32)])];
                if op == "batch_norm_upsample_bilinear" {
                    steps.push(self.doubling("half_pixel"));
                }
                if number("relu")? != 0.0 {
                    steps.push(("Relu", vec![], vec![]));
                }
                if op == "batch_norm_max_pool2d" {
                    steps.push(("MaxPool", vec![], halving()));
                }
                if !skip.is_empty() {
                    steps.push(("Add", skip, vec![]));
                }
                self.chain(x, steps, y);
            }
            "layer_norm" => {
                let (last, normed) = (format!("{y}_channels_last"), format!("{y}_normed"));
                let x = std::mem::replace(&mut inputs[0], last.clone());
                self.add("Transpose", vec![x], last, vec![ints("perm", &[0, 2, 3, 1])]);
                let attributes = vec![int("axis", -1), float("epsilon", number("eps")? as f32)];
                self.add("LayerNormalization", inputs, normed.clone(), attributes);
                self.add("Transpose", vec![normed], y, vec![ints("perm", &[0, 3, 1, 2])]);
            }
            "max_pool2d" => {
                self.add("MaxPool", inputs, y, halving());
            }
            "upsample_bilinear" => {
                let rule = if number("align_corners")? == 0.0 { "half_pixel" } else { "align_corners" };
                let x = inputs.remove(0);
                let mut steps = vec![self.doubling(rule)];
                if number("relu")? != 0.0 {
                    steps.push(("Relu", vec![], vec![]));
                }
                if !inputs.is_empty() {
                    steps.push(("Add", inputs, vec![])); // the skip connection
                }
                self.chain(x, steps, y);
            }
            "upsample_bilinear_concat" => {
                let rule = if number("align_corners")? == 0.0 { "half_pixel" } else { "align_corners" };
                let up = format!("{y}_up");
                let x = inputs.remove(0);
                let steps = vec![self.doubling(rule)];
                self.chain(x, steps, up.clone());
                inputs.insert(0, up);
                self.add("Concat", inputs, y, vec![int("axis", 1)]);
            }
            "shift" => self.shift(&inputs[0], y, number("axis")? as usize, node.channels() as i64),
            "gelu" => self.gelu(inputs.remove(0), y),
            "conv_transpose2d" => {
                let weight = shape(self, &inputs[1])?;
                let [stride, padding, output_padding] =
                    [number("stride")? as i64, number("padding")? as i64, number("output_padding")? as i64];
                let attributes = vec![
                    ints("kernel_shape", &weight[2..]),
                    ints("strides", &[stride, stride]),
                    ints("pads", &[padding; 4]),
                    ints("output_padding", &[output_padding; 2]),
                ];
                self.add("ConvTranspose", inputs, y, attributes);
            }
            "concat" if inputs.len() == 2 => self.add("Concat", inputs, y, vec![int("axis", 1)]),
            "softmax" => self.add("Softmax", inputs, y, vec![int("axis", 1)]),
            "relu" => self.add("Relu", inputs, y, vec![]),
            "sigmoid" => self.add("Sigmoid", inputs, y, vec![]),
            "add" if inputs.len() == 2 => self.add("Add", inputs, y, vec![]),
            _ => return Err(no_form(op)),
        }
        Ok(())
    }

    fn add(&mut self, op: &str, input: Vec<String>, output: String, attribute: Vec<Attribute>) {
        let count = self.counts.entry(op.to_owned()).or_default();
        *count += 1;
        let name = format!("{op}_{count}");
        self.nodes.push(Node { input, output: vec![output], name, op_type: op.to_owned(), attribute });
    }

    /// Bilinear upsampling by 2, by a rule for coordinates.
    fn doubling(&mut self, rule: &str) -> Step {
        // An empty name: no region of interest.
        let twice = vec![String::new(), self.constant(floats("twice", &[4], &[1.0, 1.0, 2.0, 2.0]))];
        ("Resize", twice, vec![string("mode", "linear"), string("coordinate_transformation_mode", rule)])
    }

    /// Operators one after the other: each takes what the one before it made.
    fn chain(&mut self, mut x: String, steps: Vec<Step>, y: String) {
        let last = steps.len() - 1;
        for (at, (op, further, attributes)) in steps.into_iter().enumerate() {
            let result = if at == last { y.clone() } else { format!("{y}_{}", op.to_lowercase()) };
            let inputs = std::iter::once(x).chain(further).collect();
            self.add(op, inputs, result.clone(), attributes);
            x = result;
        }
    }

    /// A square-padded convolution.
    fn conv(&mut self, inputs: Vec<String>, y: String, weight: &[i64], group: i64, stride: i64, padding: i64) {
        let attributes = vec![
            ints("kernel_shape", &weight[2..]),
            ints("strides", &[stride, stride]),
            ints("pads", &[padding; 4]),
            int("group", group),
        ];
        self.add("Conv", inputs, y, attributes);
    }

    /// GELU by the error function.
    fn gelu(&mut self, x: String, y: String) {
        let [scaled, erf, sum, half] = ["scaled", "erf", "sum", "half"].map(|part| format!("{y}_{part}"));
        let root = self.constant(floats("sqrt_2", &[], &[std::f32::consts::SQRT_2]));
        let one = self.constant(floats("one", &[], &[1.0]));
        let point_five = self.constant(floats("one_half", &[], &[0.5]));
        self.add("Div", vec![x.clone(), root], scaled.clone(), vec![]);
        self.add("Erf", vec![scaled], erf.clone(), vec![]);
        self.add("Add", vec![erf, one], sum.clone(), vec![]);
        self.add("Mul", vec![x, point_five], half.clone(), vec![]);
        self.add("Mul", vec![half, sum], y, vec![]);
    }

    /// A linear layer over the channels, with PyTorch's weight `[out, in]`.
    fn linear(&mut self, mut inputs: Vec<String>, y: String, weight: &[i64]) -> Result<()> {
        let &[output, input] = weight else { return Err(no_form("linear")) };
        let axes = self.integers("axes_2_3", &[2, 3]);
        let kernel = format!("{}_1x1", inputs[1]);
        self.add("Unsqueeze", vec![std::mem::replace(&mut inputs[1], kernel.clone()), axes], kernel, vec![]);
        self.conv(inputs, y, &[output, input, 1, 1], 1, 1, 0);
        Ok(())
    }

    /// `out[c, i] = in[c, i - s]`, s = -2..2 by the channel's group, zeros from outside; axis 0 is H, 1 is W.
    fn shift(&mut self, x: &str, y: String, axis: usize, channels: i64) {
        let (axis, other) = (axis as i64 + 2, "padded");
        let padded = format!("{y}_{other}");
        let mut amounts = [0; 8]; // two zeros before and behind
        amounts[axis as usize] = 2;
        amounts[axis as usize + 4] = 2;
        let amounts = self.integers(&format!("pad_axis_{axis}"), &amounts);
        self.add("Pad", vec![x.to_owned(), amounts], padded.clone(), vec![]);
        let axes = self.integers(&format!("axes_1_{axis}"), &[1, axis]);
        let chunk = (channels + 4) / 5;
        let mut parts = Vec::new();
        for (group, first) in (0..channels).step_by(chunk as usize).enumerate() {
            let s = group as i64 - 2;
            // In the padded tensor position i - s is i - s + 2; a negative end counts from behind.
            let end = if s == -2 { i64::MAX } else { -(2 + s) };
            let last = (first + chunk).min(channels);
            let starts = self.integers(&format!("from_{first}_{}", 2 - s), &[first, 2 - s]);
            let ends = self.integers(&format!("to_{last}_{}", 2 + s), &[last, end]);
            let part = format!("{y}_group_{group}");
            self.add("Slice", vec![padded.clone(), starts, ends, axes.clone()], part.clone(), vec![]);
            parts.push(part);
        }
        self.add("Concat", parts, y, vec![int("axis", 1)]);
    }

    fn parameter(&mut self, id: usize) -> Result<String> {
        let tensor = self.weights.parameters.get(id).cloned();
        let tensor = tensor.ok_or_else(|| Error::Config(format!("the network has no parameter {id}")))?;
        Ok(self.constant(tensor))
    }

    /// A running statistic, found by its place in memory.
    fn buffer(&mut self, tensor: &Tensor) -> Result<String> {
        let found = self.weights.buffers.iter().find(|(own, _)| own.same_place(tensor));
        let found = found.map(|(_, message)| message.clone());
        Ok(self.constant(found.ok_or_else(|| Error::Config("a running statistic is not the network's".to_owned()))?))
    }

    fn constant(&mut self, tensor: messages::Tensor) -> String {
        let name = tensor.name.clone();
        if self.written.insert(name.clone()) {
            self.initializers.push(tensor);
        }
        name
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.constant(messages::Tensor {
            dims: vec![values.len() as i64],
            data_type: kind::TENSOR_INT64,
            name: name.to_owned(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        })
    }
}

/// Of a pooling.
fn halving() -> Vec<Attribute> {
    vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])]
}

fn no_form(op: &str) -> Error {
    Error::Config(format!("the op {op} has no ONNX form yet: add it to src/models/onnx.rs"))
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.to_owned(), i: Some(value), kind: kind::ATTRIBUTE_INT, ..Attribute::default() }
}

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.to_owned(), ints: values.to_vec(), kind: kind::ATTRIBUTE_INTS, ..Attribute::default() }
}

fn float(name: &str, value: f32) -> Attribute {
    Attribute { name: name.to_owned(), f: Some(value), kind: kind::ATTRIBUTE_FLOAT, ..Attribute::default() }
}

fn string(name: &str, value: &str) -> Attribute {
    let s = Some(value.as_bytes().to_vec());
    Attribute { name: name.to_owned(), s, kind: kind::ATTRIBUTE_STRING, ..Attribute::default() }
}
