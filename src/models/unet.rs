//! U-Net (Ronneberger, Fischer, Brox, MICCAI 2015, arXiv 1505.04597) with padded convolutions and batch norm: the same
//! names, count and numbers as nikhilroxtomar/Semantic-Segmentation-Architecture, `PyTorch/unet.py`.
//!
//! ```text
//! image [H, 3]                                                 logits [H, classes]
//!   | e1                                                              ^ outputs 1x1
//!  s1 [H, 64] --------------------------------------> concat -------> d4 [H, 64]
//!   | pool, e2                                           ^ up
//!  s2 [H/2, 128] ---------------------------> concat --> d3 [H/2, 128]
//!   | pool, e3                                   ^ up
//!  s3 [H/4, 256] -------------------> concat --> d2 [H/4, 256]
//!   | pool, e4                           ^ up
//!  s4 [H/8, 512] -----------> concat --> d1 [H/8, 512]
//!   | pool, b                    ^ up
//!  b  [H/16, 1024] --------------+
//!
//!  e, b, d: twice (3x3 convolution, batch norm, ReLU)    up: transposed convolution 2x2, stride 2
//!  concat: [up, skip], so twice the channels             pool: 2x2 max
//! ```
//!
//! | stage | shape | parameters (base 64, no convolution biases) |
//! | --- | --- | --- |
//! | e1, e2, e3, e4 | `[N, H, W, 64]` to `[N, H/8, W/8, 512]` | 38,848, 221,696, 885,760, 3,540,992 |
//! | b | `[N, H/16, W/16, 1024]` | 14,159,872 |
//! | d1, d2, d3, d4 | `[N, H/8, W/8, 512]` to `[N, H, W, 64]` | 9,177,600, 2,295,040, 574,080, 143,680 |
//! | logits | `[N, H, W, classes]` | 31,037,633 in all |
//!
//! Two thirds of the work is in the decoder, and half of that where the concatenation doubles the channels.

use super::{DefaultStart, ModelConfig, Network, Stage, check_images};
use crate::Result;
use crate::nn::{BatchNorm2d, Conv2d, Mode, Module, Parameters, UpConv2d, Visitor};
use crate::ops::{concat, max_pool2d};
use crate::tensor::{Device, Tensor};

/// The network.
#[derive(Debug)]
pub struct Unet {
    config: ModelConfig,
    parameters: Option<Parameters>,
    encoders: [DoubleConv; 4],
    bridge: DoubleConv,
    decoders: [Decoder; 4],
    outputs: Conv2d,
}

/// Twice (3x3 convolution, batch norm, ReLU).
#[derive(Debug)]
struct DoubleConv {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
}

impl DoubleConv {
    fn new(device: &Device, input: usize, output: usize, bias: bool) -> Result<Self> {
        let conv = if bias { Conv2d::new } else { Conv2d::without_bias };
        Ok(Self {
            conv1: conv(device, input, output, 3, 1)?,
            bn1: BatchNorm2d::new(device, output)?,
            conv2: conv(device, output, output, 3, 1)?,
            bn2: BatchNorm2d::new(device, output)?,
        })
    }

    /// Takes its input, and lets go of each tensor when the next is made: the large ones need not all live at once.
    fn forward(&self, mut x: Tensor, mode: Mode) -> Result<Tensor> {
        x = self.conv1.forward_to_norm(&x, mode)?;
        x = self.bn1.forward_relu(&x, mode)?;
        x = self.conv2.forward_to_norm(&x, mode)?;
        self.bn2.forward_relu(&x, mode)
    }
}

impl Module for DoubleConv {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { conv1, bn1, conv2, bn2 } = self;
        conv1.visit(&format!("{path}.conv1"), v)?;
        bn1.visit(&format!("{path}.bn1"), v)?;
        conv2.visit(&format!("{path}.conv2"), v)?;
        bn2.visit(&format!("{path}.bn2"), v)
    }
}

/// Up by 2, the skip beside it, and a double convolution.
#[derive(Debug)]
struct Decoder {
    up: UpConv2d,
    conv: DoubleConv,
}

impl Decoder {
    fn new(device: &Device, input: usize, output: usize, bias: bool) -> Result<Self> {
        let up = UpConv2d::new(device, input, output)?;
        Ok(Self { up, conv: DoubleConv::new(device, 2 * output, output, bias)? })
    }

    fn forward(&self, x: &Tensor, skip: Tensor, mode: Mode) -> Result<Tensor> {
        let both = concat(&self.up.forward(x)?, &skip)?;
        drop(skip);
        self.conv.forward(both, mode)
    }
}

impl Module for Decoder {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { up, conv } = self;
        up.visit(&format!("{path}.up"), v)?;
        conv.visit(&format!("{path}.conv"), v)
    }
}

impl Module for Unet {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        debug_assert!(path.is_empty(), "a network is the root of its names");
        let Self { config: _, parameters: _, encoders, bridge, decoders, outputs } = self;
        for (number, encoder) in (1..).zip(encoders) {
            encoder.visit(&format!("e{number}.conv"), v)?;
        }
        bridge.visit("b", v)?;
        for (number, decoder) in (1..).zip(decoders) {
            decoder.visit(&format!("d{number}"), v)?;
        }
        outputs.visit("outputs", v)
    }
}

impl Unet {
    /// A network on a device, initialised as PyTorch does, from a seed.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a width of 0; else as [`Device::empty`].
    pub fn new(device: &Device, config: &ModelConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let bias = config.conv_bias;
        let [w1, w2, w3, w4, w5] = [1, 2, 4, 8, 16].map(|times| config.base * times);
        let double = |input, output| DoubleConv::new(device, input, output, bias);
        let decoder = |input, output| Decoder::new(device, input, output, bias);
        let mut net = Self {
            config: config.clone(),
            parameters: None,
            encoders: [double(config.in_channels, w1)?, double(w1, w2)?, double(w2, w3)?, double(w3, w4)?],
            bridge: double(w4, w5)?,
            decoders: [decoder(w5, w4)?, decoder(w4, w3)?, decoder(w3, w2)?, decoder(w2, w1)?],
            outputs: Conv2d::new(device, w1, config.num_classes, 1, 1)?,
        };
        let mut start = DefaultStart::new(seed);
        crate::nn::fill(&mut net, &mut |name, shape| start.of(name, shape))?;
        net.parameters = Some(Parameters::gather(&mut net, device)?);
        Ok(net)
    }
}

impl Network for Unet {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn parameters(&self) -> &Parameters {
        self.parameters.as_ref().unwrap_or_else(|| unreachable!("gathered by new"))
    }

    fn source(&self) -> &'static str {
        include_str!("unet.rs")
    }

    /// Stages: e1 to e4, b, d1 to d4.
    fn forward_stages(&self, x: &Tensor, mode: Mode, stage: &mut Stage<'_>) -> Result<Tensor> {
        check_images(&self.config, x)?;
        let mut x = x.clone();
        let mut skips = Vec::with_capacity(4);
        for (number, encoder) in (1..).zip(&self.encoders) {
            let skip = encoder.forward(x, mode)?;
            stage(&format!("e{number}"), &skip)?;
            x = max_pool2d(&skip)?;
            skips.push(skip);
        }
        x = self.bridge.forward(x, mode)?;
        stage("b", &x)?;
        for (number, (decoder, skip)) in (1..).zip(self.decoders.iter().zip(skips.into_iter().rev())) {
            x = decoder.forward(&x, skip, mode)?;
            stage(&format!("d{number}"), &x)?;
        }
        self.outputs.forward(&x)
    }
}
