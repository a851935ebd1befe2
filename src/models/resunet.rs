//! ResUNet (Zhang, Liu, Wang, IEEE GRSL 2018, arXiv 1711.10684): a U-Net of pre-activation residual blocks, in two
//! forms. `published` has the same names, count and numbers as nikhilroxtomar/Semantic-Segmentation-Architecture,
//! `PyTorch/resunet.py`; `seed` is what the report that this project grew from describes.
//!
//! ```text
//! image [H, 3]                                         logits [H, classes]
//!   | e1                                                      ^ output 1x1
//!  e1 [H, 64] --------------------------------> concat -----> d3 [H, 64]
//!   | r2, half the size                          ^ x2
//!  e2 [H/2, 128] -------------------> concat --> d2 [H/2, 128]
//!   | r3                                ^ x2
//!  e3 [H/4, 256] ---------> concat --> d1 [H/4, 256]
//!   | r4                      ^ x2
//!  bridge [H/8, 512] ---------+
//!
//!  residual block r (in r2 to r4, and after each concat):
//!     x --> BN, ReLU, 3x3 --> BN, ReLU, 3x3 --> + -->      e1 is the same without the first BN and ReLU
//!      \--> 1x1 (seed: BN) -------------------/
//!
//!  published: half the size by stride 2 in the first 3x3 and in the 1x1; x2 is bilinear, corners on corners
//!  seed:      half the size by 2x2 max pooling before the block; x2 is a transposed convolution 2x2, stride 2
//! ```
//!
//! | stage | shape | parameters (base 64): published / seed |
//! | --- | --- | --- |
//! | e1 | `[N, H, W, 64]` | 39,104 / 39,232 |
//! | e2, e3 | `[N, H/2, W/2, 128]`, `[N, H/4, W/4, 256]` | 230,144 / 230,400, 919,040 / 919,552 |
//! | bridge | `[N, H/8, W/8, 512]` | 3,673,088 / 3,674,112 |
//! | d1, d2, d3 | `[N, H/4, W/4, 256]` to `[N, H, W, 64]` | 2,558,720 / 3,608,320, 640,384 / 903,040, 160,448 / 226,240 |
//! | logits | `[N, H, W, classes]` | 8,220,993 / 9,600,961 in all |

use super::{DefaultStart, Down, ModelConfig, Network, Stage, Up, check_images};
use crate::Result;
use crate::nn::{BatchNorm2d, Conv2d, Mode, Module, Parameters, UpConv2d, Visitor};
use crate::ops::{concat, max_pool2d, upsample_bilinear_concat};
use crate::tensor::{Device, Tensor};

/// The network.
#[derive(Debug)]
pub struct Resunet {
    config: ModelConfig,
    parameters: Option<Parameters>,
    first: First,
    /// Stages r2, r3 and r4, the bridge.
    encoders: [Residual; 3],
    decoders: [Decoder; 3],
    output: Conv2d,
}

/// The first stage: a residual block whose input, the image, is not normalised.
#[derive(Debug)]
struct First {
    c11: Conv2d,
    br1: BatchNorm2d,
    c12: Conv2d,
    c13: Conv2d,
    c13_bn: Option<BatchNorm2d>,
}

impl First {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let main = self.br1.forward_relu(&self.c11.forward_to_norm(x, mode)?, mode)?;
        end_of_block((&self.c12, &main), (&self.c13, self.c13_bn.as_ref(), x), mode, true)
    }
}

impl Module for First {
    fn visit(&mut self, _path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { c11, br1, c12, c13, c13_bn } = self;
        c11.visit("c11", v)?;
        br1.visit("br1.bn", v)?;
        c12.visit("c12", v)?;
        c13.visit("c13", v)?;
        c13_bn.as_mut().map_or(Ok(()), |bn| bn.visit("c13_bn", v))
    }
}

/// The last convolution of a block, of `main`, and the 1x1 convolution of the block's raw input `x` beside it: the sum of both.
/// `before_norm`: whether a batch norm reads it.
fn end_of_block(
    (c2, main): (&Conv2d, &Tensor),
    (s, s_bn, x): (&Conv2d, Option<&BatchNorm2d>, &Tensor),
    mode: Mode,
    before_norm: bool,
) -> Result<Tensor> {
    let before_norm = before_norm && mode == Mode::Train;
    match s_bn {
        None => s.forward_added(c2.forward(main)?, x, before_norm),
        Some(bn) => c2.forward_added(bn.forward(&s.forward_to_norm(x, mode)?, mode)?, main, before_norm),
    }
}

/// `c2(relu(b2(c1(relu(b1(x)))))) + s(x)`; nothing after the sum.
#[derive(Debug)]
struct Residual {
    b1: BatchNorm2d,
    c1: Conv2d,
    b2: BatchNorm2d,
    c2: Conv2d,
    s: Conv2d,
    s_bn: Option<BatchNorm2d>,
}

impl Residual {
    fn new(device: &Device, input: usize, output: usize, stride: usize, norm: bool) -> Result<Self> {
        Ok(Self {
            b1: BatchNorm2d::new(device, input)?,
            c1: Conv2d::new(device, input, output, 3, stride)?,
            b2: BatchNorm2d::new(device, output)?,
            c2: Conv2d::new(device, output, output, 3, 1)?,
            s: Conv2d::new(device, input, output, 1, stride)?,
            s_bn: norm.then(|| BatchNorm2d::new(device, output)).transpose()?,
        })
    }

    /// `before_norm`: whether a batch norm reads the sum.
    fn forward(&self, x: &Tensor, mode: Mode, before_norm: bool) -> Result<Tensor> {
        let main = self.c1.forward_to_norm(&self.b1.forward_relu(x, mode)?, mode)?;
        let main = self.b2.forward_relu(&main, mode)?;
        end_of_block((&self.c2, &main), (&self.s, self.s_bn.as_ref(), x), mode, before_norm)
    }
}

impl Module for Residual {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { b1, c1, b2, c2, s, s_bn } = self;
        b1.visit(&format!("{path}.b1.bn"), v)?;
        c1.visit(&format!("{path}.c1"), v)?;
        b2.visit(&format!("{path}.b2.bn"), v)?;
        c2.visit(&format!("{path}.c2"), v)?;
        s.visit(&format!("{path}.s"), v)?;
        s_bn.as_mut().map_or(Ok(()), |bn| bn.visit(&format!("{path}.s_bn"), v))
    }
}

/// Up by 2 with the same channels, the skip beside it, and a residual block.
#[derive(Debug)]
struct Decoder {
    upsample: Option<UpConv2d>,
    r: Residual,
}

impl Decoder {
    fn new(device: &Device, input: usize, output: usize, up: Up, norm: bool) -> Result<Self> {
        let upsample = match up {
            Up::Bilinear => None,
            Up::Transposed => Some(UpConv2d::new(device, input, input)?),
        };
        Ok(Self { upsample, r: Residual::new(device, input + output, output, 1, norm)? })
    }

    /// Takes the skip, which is not needed beside the large tensor that it goes into.
    fn forward(&self, x: &Tensor, skip: Tensor, mode: Mode) -> Result<Tensor> {
        let both = match &self.upsample {
            Some(conv) => concat(&conv.forward(x)?, &skip)?,
            None => upsample_bilinear_concat(x, &skip, true, mode == Mode::Train)?,
        };
        drop(skip);
        self.r.forward(&both, mode, false)
    }
}

impl Module for Decoder {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { upsample, r } = self;
        if let Some(upsample) = upsample {
            upsample.visit(&format!("{path}.upsample"), v)?;
        }
        r.visit(&format!("{path}.r"), v)
    }
}

impl Module for Resunet {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        debug_assert!(path.is_empty(), "a network is the root of its names");
        let Self { config: _, parameters: _, first, encoders, decoders, output } = self;
        first.visit("", v)?;
        for (number, encoder) in (2..).zip(encoders) {
            encoder.visit(&format!("r{number}"), v)?;
        }
        for (number, decoder) in (1..).zip(decoders) {
            decoder.visit(&format!("d{number}"), v)?;
        }
        output.visit("output", v)
    }
}

impl Resunet {
    /// A network on a device, initialised as PyTorch does, from a seed.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a width of 0; else as [`Device::empty`].
    pub fn new(device: &Device, config: &ModelConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let (down, up, norm) = config.resunet_form();
        let stride = if down == Down::Stride { 2 } else { 1 };
        let [w1, w2, w3, w4] = [1, 2, 4, 8].map(|times| config.base * times);
        let residual = |input, output| Residual::new(device, input, output, stride, norm);
        let decoder = |input, output| Decoder::new(device, input, output, up, norm);
        let mut net = Self {
            config: config.clone(),
            parameters: None,
            first: First {
                c11: Conv2d::new(device, config.in_channels, w1, 3, 1)?,
                br1: BatchNorm2d::new(device, w1)?,
                c12: Conv2d::new(device, w1, w1, 3, 1)?,
                c13: Conv2d::new(device, config.in_channels, w1, 1, 1)?,
                c13_bn: norm.then(|| BatchNorm2d::new(device, w1)).transpose()?,
            },
            encoders: [residual(w1, w2)?, residual(w2, w3)?, residual(w3, w4)?],
            decoders: [decoder(w4, w3)?, decoder(w3, w2)?, decoder(w2, w1)?],
            output: Conv2d::new(device, w1, config.num_classes, 1, 1)?,
        };
        let mut start = DefaultStart::new(seed);
        crate::nn::fill(&mut net, &mut |name, shape| start.of(name, shape))?;
        net.parameters = Some(Parameters::gather(&mut net, device)?);
        Ok(net)
    }
}

impl Network for Resunet {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn parameters(&self) -> &Parameters {
        self.parameters.as_ref().unwrap_or_else(|| unreachable!("gathered by new"))
    }

    fn source(&self) -> &'static str {
        include_str!("resunet.rs")
    }

    /// Stages: e1, e2, e3, bridge, d1 to d3.
    fn forward_stages(&self, x: &Tensor, mode: Mode, stage: &mut Stage<'_>) -> Result<Tensor> {
        check_images(&self.config, x)?;
        let (down, ..) = self.config.resunet_form();
        let mut x = self.first.forward(x, mode)?;
        stage("e1", &x)?;
        let mut skips = Vec::with_capacity(3);
        for (name, encoder) in ["e2", "e3", "bridge"].into_iter().zip(&self.encoders) {
            skips.push(x.clone());
            x = match down {
                Down::Stride => encoder.forward(&x, mode, name != "bridge")?,
                Down::MaxPool => encoder.forward(&max_pool2d(&x)?, mode, false)?,
            };
            stage(name, &x)?;
        }
        for (number, (decoder, skip)) in (1..).zip(self.decoders.iter().zip(skips.into_iter().rev())) {
            x = decoder.forward(&x, skip, mode)?;
            stage(&format!("d{number}"), &x)?;
        }
        self.output.forward(&x)
    }
}
