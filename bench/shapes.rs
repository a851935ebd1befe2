//! The shapes that are timed. A network's are not written down anywhere: its training step is recorded on a device that
//! only plans ([`Device::plan`]), and every operation on the tape is a layer. An op that the network does not have gets
//! its one natural place (an optimizer: all parameters; a loss: the logits), or a small image of 16 channels, so that a
//! new op is timed without being listed here.

use shadegrad::autograd::{Operation, Source};
use shadegrad::models::{ModelConfig, build};
use shadegrad::ops::{BceDice, Mode, bce_dice};
use shadegrad::{Device, Error, Result, Shape, Tape};

/// Channels of the small layer for an op that no network has.
const CHANNELS: usize = 16;

/// Sizes of one op.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The op.
    pub op: &'static str,
    /// Network and stage; `alone` or `given`.
    pub name: String,
    /// Of its first input: images `[N, H, W, C]`, or what else the op takes.
    pub x: Shape,
    /// Channels of the result; of the second input, for `concat` and `upsample_bilinear_concat`.
    pub out: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Of convolutions.
    pub stride: usize,
    /// Of convolutions.
    pub padding: usize,
    /// Of `upsample_bilinear` and `upsample_bilinear_concat`: corners on corners.
    pub align_corners: bool,
    /// Whether a ReLU is part of it.
    pub relu: bool,
    /// Whether the sum with a skip connection or a residual is part of it.
    pub skip: bool,
    /// Whether GELU is part of it.
    pub gelu: bool,
}

impl Layer {
    /// An op that has only an input.
    fn plain(op: &'static str, name: &str, x: Shape) -> Self {
        let (name, out) = (name.to_owned(), x.last());
        let (align_corners, relu, skip, gelu) = (false, false, false, false);
        Self { op, name, x, out, kernel: 3, stride: 1, padding: 1, align_corners, relu, skip, gelu }
    }

    /// The extents of the images.
    ///
    /// # Errors
    /// As [`Shape::nhwc`].
    pub fn nhwc(&self) -> Result<[usize; 4]> {
        self.x.nhwc(self.op)
    }

    /// Numbers of the first input.
    pub fn elements(&self) -> f64 {
        self.x.len() as f64
    }

    /// Its sizes as `--shape` takes them, by the form of its op.
    pub fn text(&self, form: &str) -> String {
        let extents = || self.x.dims().iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let words = form.split(' ').map(|word| match word {
            KERNEL => format!("{0}x{0}", self.kernel),
            OUT | OTHER => self.out.to_string(),
            STRIDE => format!("s{}", self.stride),
            PADDING => format!("p{}", self.padding),
            _ => extents(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Sizes from text, by the form of the op: the words of the form in their order, those in brackets may be left out.
    ///
    /// # Errors
    /// [`Error::Config`] with the form and an example.
    pub fn parse(op: &'static str, form: &str, text: &str) -> Result<Self> {
        let wrong = || {
            let example = Self { name: String::new(), ..Self::plain(op, "", example_of(form)) }.text(form);
            Error::Config(format!("--shape \"{text}\" is no shape of {op}: it takes \"{form}\", such as \"{example}\""))
        };
        let mut given = text.split_whitespace().peekable();
        let mut layer = Self::plain(op, "given", [1].into());
        let (mut stride, mut padding) = (None, None);
        for word in form.split(' ') {
            let optional = |letter: char, given: &str| given.strip_prefix(letter).and_then(number);
            match word {
                STRIDE | PADDING => {
                    let (letter, place) = if word == STRIDE { ('s', &mut stride) } else { ('p', &mut padding) };
                    if let Some(found) = given.peek().and_then(|given| optional(letter, given)) {
                        *place = Some(found);
                        given.next();
                    }
                }
                KERNEL => match extents(given.next().ok_or_else(wrong)?).as_deref() {
                    Some([rows, columns]) if rows == columns => layer.kernel = *rows,
                    _ => return Err(wrong()),
                },
                OUT | OTHER => layer.out = given.next().and_then(number).filter(|out| *out > 0).ok_or_else(wrong)?,
                image => {
                    let dims = given.next().and_then(extents).ok_or_else(wrong)?;
                    if dims.len() != image.split('x').count() {
                        return Err(wrong());
                    }
                    layer.x = Shape::new(&dims)?;
                    layer.out = layer.x.last();
                }
            }
        }
        if given.next().is_some() || stride == Some(0) {
            return Err(wrong());
        }
        layer.stride = stride.unwrap_or(1);
        layer.padding = padding.unwrap_or(if form.contains(PADDING) { layer.kernel / 2 } else { layer.padding });
        Ok(layer)
    }
}

/// Words of a form. Any other word is the shape of the first input, such as `NxHxWxC`.
const KERNEL: &str = "KxK";
const OUT: &str = "OUT";
const OTHER: &str = "OTHER";
const STRIDE: &str = "[sSTRIDE]";
const PADDING: &str = "[pPADDING]";

/// A shape with as many extents as the first word of a form.
fn example_of(form: &str) -> Shape {
    match form.split(' ').next().map_or(0, |image| image.split('x').count()) {
        3 => [2, 64, 64].into(),
        4 => [2, 64, 64, 32].into(),
        _ => [4096].into(),
    }
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn extents(text: &str) -> Option<Vec<usize>> {
    let extents: Option<Vec<usize>> = text.split('x').map(number).collect();
    extents.filter(|extents| extents.len() <= 4 && !extents.contains(&0))
}

/// The layers of a network's training step with `batch` square images, each size of an op once, and one of each op of
/// `ops` that the network does not have.
///
/// # Errors
/// [`Error::Config`] for a size that the network does not take; [`Error::Limit`] where not even one image fits what
/// WebGPU promises everywhere.
pub fn of_network(config: &ModelConfig, batch: usize, size: usize, ops: &[&'static str]) -> Result<Vec<Layer>> {
    let multiple = config.multiple();
    if batch == 0 || size == 0 || !size.is_multiple_of(multiple) {
        let message = format!("{} needs a batch above 0 and a size that divides by {multiple}", config.model);
        return Err(Error::Config(format!("{message}, got --batch {batch} --size {size}")));
    }
    let device = Device::plan(None)?;
    let net = build(&device, config, 0)?;
    let images = Shape::from([batch, size, size, config.in_channels]);
    let tape = Tape::new();
    let mut ends = Vec::new();
    let logits = net.forward_stages(&tape.watch(&device.empty("bench", images)?), Mode::Train, &mut |stage, _| {
        ends.push((stage.to_owned(), tape.len()));
        Ok(())
    })?;
    ends.push(("logits".to_owned(), tape.len()));
    bce_dice(&logits, &device.empty("bench", logits.shape())?, &BceDice::batch())?;
    let (operations, logits) = (tape.operations(), logits.shape());

    let mut layers: Vec<Layer> = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let stage = ends.iter().find(|(_, end)| index < *end).map_or("loss", |(stage, _)| stage.as_str());
        let layer = layer_of(operation, &operations, images, format!("{} {stage}", config.model));
        let same = |known: &Layer| Layer { name: layer.name.clone(), ..known.clone() } == layer;
        if !layers.iter().any(same) {
            layers.push(layer);
        }
    }
    for op in ops {
        if layers.iter().any(|layer| layer.op == *op) {
            continue;
        }
        let (name, x) = match *op {
            "adam" | "sgd" | "ema" | "clip_norm" | "unscale" => ("update", net.parameters().values.shape()),
            "load_batch" => ("batch", Shape::from([batch, size, size])),
            "metric_counts" | "sigmoid" => ("logits", logits),
            _ => {
                let side = (size / 4).max(1);
                layers.push(Layer::plain(op, "alone", [batch, side, side, CHANNELS].into()));
                continue;
            }
        };
        layers.push(Layer::plain(op, &format!("{} {name}", config.model), x));
    }
    Ok(layers)
}

/// What the tape tells about an operation.
fn layer_of(operation: &Operation, all: &[Operation], images: Shape, name: String) -> Layer {
    let made = |value: usize| all.iter().find(|other| other.value == value).map_or(images, |other| other.output);
    let input = operation.inputs.iter().find_map(|input| match input {
        Source::Value(value) => Some(made(*value)),
        Source::Constant | Source::Parameter(_) => None,
    });
    let x = input.unwrap_or(images);
    let setting = |wanted: &str| operation.settings.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let count = |name: &str| setting(name).map(|value| value as usize);
    let (relu, gelu, residual) = (count("relu") == Some(1), count("gelu") == Some(1), count("residual") == Some(1));
    // The ops that add a skip connection take it as their second value.
    let values = operation.inputs.iter().filter(|input| matches!(input, Source::Value(_))).count();
    let skip = residual || operation.op.ends_with("upsample_bilinear") && values == 2;
    let parts = [(relu, " relu"), (gelu, " gelu"), (skip, if residual { " residual" } else { " skip" })];
    let name = parts.into_iter().filter(|(is_part, _)| *is_part).fold(name, |name, (_, part)| name + part);
    let plain = Layer::plain(operation.op, &name, x);
    Layer {
        out: operation.output.last() - if operation.op.ends_with("concat") { x.last() } else { 0 },
        // The ops with a kernel keep the weight, whose first extent it is, and x or what it can be made of.
        kernel: operation
            .kept
            .iter()
            .find(|kept| **kept != x)
            .filter(|_| count("padding").is_some())
            .map_or(plain.kernel, |w| w.dims()[0]),
        stride: count("stride").unwrap_or(plain.stride),
        padding: count("padding").unwrap_or(plain.padding),
        align_corners: count("align_corners") == Some(1),
        relu,
        skip,
        gelu,
        ..plain
    }
}

#[cfg(test)]
mod tests {
    use shadegrad::models::Model;

    use super::*;

    const CONV: &str = "NxHxWxC KxK OUT [sSTRIDE] [pPADDING]";

    #[test]
    fn a_shape_is_read_and_written() -> Result<()> {
        let layer = Layer::parse("conv2d", CONV, "2x128x96x64  3x3 32 s2")?;
        assert_eq!((layer.x, layer.out, layer.kernel), (Shape::from([2, 128, 96, 64]), 32, 3));
        assert_eq!((layer.stride, layer.padding), (2, 1));
        assert_eq!(layer.text(CONV), "2x128x96x64 3x3 32 s2 p1");
        assert_eq!(Layer::parse("conv2d", CONV, &layer.text(CONV))?, layer);
        assert_eq!(Layer::parse("conv2d", CONV, "1x8x8x4 5x5 8 p0")?.padding, 0);
        assert_eq!(Layer::parse("relu", "NxHxWxC", "1x8x8x4")?.out, 4);
        assert_eq!(Layer::parse("adam", "COUNT", "1000")?.x, Shape::from([1000]));
        Ok(())
    }

    #[test]
    fn what_is_no_shape_is_answered_with_the_form() {
        let wrong = ["", "2x128x128", "2x8x8x4", "2x8x8x4 3x3", "2x8x8x4 3x5 8", "2x8x8x4 3x3 8 s0", "2x0x8x4 3x3 8"];
        for text in wrong.iter().chain(&["2x8x8x4 3x3 8 s1 p1 more", "axb 3x3 8", "2x8x8x4 3x3 8 p1 s1"]) {
            let Err(error) = Layer::parse("conv2d", CONV, text) else { panic!("{text} was taken") };
            let message = error.to_string();
            assert!(message.contains(CONV) && message.contains("\"2x64x64x32 3x3 32 s1 p1\""), "{message}");
        }
        let Err(error) = Layer::parse("adam", "COUNT", "a") else { panic!("taken") };
        assert!(error.to_string().ends_with("such as \"4096\""), "{error}");
    }

    #[test]
    fn the_layers_of_unext_are_those_of_its_paper() -> Result<()> {
        let layers = of_network(&ModelConfig::new(Model::Unext), 2, 64, &["conv2d", "adam", "softmax", "new_op"])?;
        let texts = |op: &str| -> Vec<String> {
            layers
                .iter()
                .filter(|layer| layer.op == op)
                .map(|layer| layer.name.clone() + ": " + &layer.text(CONV))
                .collect()
        };
        let convolutions = texts("conv2d");
        assert_eq!(convolutions.len(), 11, "{convolutions:?}");
        assert_eq!(convolutions[0], "unext t1: 2x64x64x3 3x3 16 s1 p1");
        assert!(convolutions.contains(&"unext logits: 2x64x64x16 1x1 1 s1 p0".to_owned()), "{convolutions:?}");
        assert!(convolutions.iter().any(|text| text.contains(" s2 p1")), "{convolutions:?}");
        assert_eq!(layers.iter().filter(|layer| layer.op == "adam").map(|l| l.x.rank()).collect::<Vec<_>>(), [1]);
        for op in ["softmax", "new_op"] {
            let alone: Vec<_> = layers.iter().filter(|layer| layer.op == op).collect();
            assert_eq!(alone.len(), 1);
            assert_eq!((alone[0].name.as_str(), alone[0].x), ("alone", [2, 16, 16, 16].into()));
        }
        assert!(of_network(&ModelConfig::new(Model::Unext), 2, 40, &[]).is_err());
        Ok(())
    }

    #[test]
    fn concat_and_upsampling_keep_what_matters() -> Result<()> {
        let base = |model| ModelConfig { base: 4, ..ModelConfig::new(model) };
        let unet = of_network(&base(Model::Unet), 1, 32, &[])?;
        let concat = unet.iter().find(|layer| layer.op == "concat").map(|layer| (layer.x, layer.out));
        assert_eq!(concat, Some(([1, 4, 4, 32].into(), 32)));
        let up = unet.iter().find(|layer| layer.op == "conv_transpose2d").map(|l| (l.x, l.kernel, l.stride, l.out));
        assert_eq!(up, Some(([1, 2, 2, 64].into(), 2, 2, 32)));
        let resunet = of_network(&base(Model::Resunet), 1, 32, &[])?;
        assert!(
            resunet
                .iter()
                .any(|layer| layer.op == "upsample_bilinear_concat" && layer.align_corners && layer.out == 16)
        );
        Ok(())
    }

    #[test]
    fn what_is_part_of_an_op_is_part_of_its_layer() -> Result<()> {
        let layers = of_network(&ModelConfig::new(Model::Unext), 2, 32, &[])?;
        let of = |op| layers.iter().filter(move |layer| layer.op == op);
        // A ReLU follows in the encoder at once, in the decoder after the upsampling.
        assert_eq!(of("batch_norm_max_pool2d").filter(|layer| layer.relu).count(), 3);
        let decoder = of("batch_norm_upsample_bilinear");
        assert_eq!(decoder.filter(|l| l.relu && l.skip && l.name.ends_with(" relu skip")).count(), 4);
        assert!(of("upsample_bilinear").any(|layer| layer.relu && !layer.skip && layer.name.ends_with(" relu")));
        Ok(())
    }
}
