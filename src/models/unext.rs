//! UNeXt (Valanarasu and Patel, MICCAI 2022, arXiv 2203.04967), as its published code computes it
//! (jeya-maria-jose/UNeXt-pytorch, `archs.py`, class `UNext`): same names, same count, same numbers.
//!
//! ```text
//! image [H,W,3]                                                          logits [H,W,classes]
//!   | encoder1 3x3, BN, pool, ReLU                                   final 1x1 ^
//!  t1 [H/2, 16] ----------------------------- + <- ReLU, x2, BN, decoder4 | decoder5, x2, ReLU
//!   | encoder2                                ^
//!  t2 [H/4, 32] ----------------- + <- decoder3
//!   | encoder3                    ^
//!  t3 [H/8, 128] ----- + <- decoder2, then + gives tokens -> dblock2, dnorm4
//!   | patch_embed3 3x3 /2, block1, norm3
//!  t4 [H/16, 160] -- + <- decoder1, then tokens -> dblock1, dnorm3
//!   | patch_embed4 3x3 /2, block2, norm4
//!  bottleneck [H/32, 256]
//! ```
//!
//! | stage | shape | parameters |
//! | --- | --- | --- |
//! | t1, t2, t3 | `[N, H/2, W/2, 16]`, `[N, H/4, W/4, 32]`, `[N, H/8, W/8, 128]` | 448, 4,640, 36,992 |
//! | t4 | `[N, H/16, W/16, 160]` | 184,800 + 53,440 |
//! | bottleneck | `[N, H/32, W/32, 256]` | 369,408 + 134,656 |
//! | logits | `[N, H, W, classes]` | 1,471,921 in all |
//!
//! In NHWC a token tensor is the image itself: the code's flatten, transpose and view do not exist here.

use super::{ModelConfig, Network, Stage, check_images};
use crate::Result;
use crate::nn::{BatchNorm2d, Conv2d, DepthwiseConv2d, LayerNorm, Linear, Mode, Module, Parameters, Visitor};
use crate::ops::{Axis, upsample_bilinear_relu};
use crate::tensor::random::Stream;
use crate::tensor::{Device, Tensor};

/// The network.
#[derive(Debug)]
pub struct Unext {
    config: ModelConfig,
    parameters: Option<Parameters>,
    encoder1: Conv2d,
    encoder2: Conv2d,
    encoder3: Conv2d,
    ebn1: BatchNorm2d,
    ebn2: BatchNorm2d,
    ebn3: BatchNorm2d,
    norm3: LayerNorm,
    norm4: LayerNorm,
    dnorm3: LayerNorm,
    dnorm4: LayerNorm,
    block1: ShiftedBlock,
    block2: ShiftedBlock,
    dblock1: ShiftedBlock,
    dblock2: ShiftedBlock,
    patch_embed3: PatchEmbed,
    patch_embed4: PatchEmbed,
    decoder1: Conv2d,
    decoder2: Conv2d,
    decoder3: Conv2d,
    decoder4: Conv2d,
    decoder5: Conv2d,
    dbn1: BatchNorm2d,
    dbn2: BatchNorm2d,
    dbn3: BatchNorm2d,
    dbn4: BatchNorm2d,
    last: Conv2d,
}

/// Overlapping patches: a 3x3 convolution with stride 2, then a layer norm.
#[derive(Debug)]
struct PatchEmbed {
    proj: Conv2d,
    norm: LayerNorm,
}

impl PatchEmbed {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(&self.proj.forward(x)?)
    }
}

impl Module for PatchEmbed {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { proj, norm } = self;
        proj.visit(&format!("{path}.proj"), v)?;
        norm.visit(&format!("{path}.norm"), v)
    }
}

/// Tokenised MLP with shifts: `x + fc2(shift_w(gelu(dwconv(fc1(shift_h(norm2(x)))))))`.
#[derive(Debug)]
struct ShiftedBlock {
    norm2: LayerNorm,
    fc1: Linear,
    dwconv: DepthwiseConv2d,
    fc2: Linear,
}

impl ShiftedBlock {
    fn new(device: &Device, channels: usize) -> Result<Self> {
        Ok(Self {
            norm2: LayerNorm::new(device, channels)?,
            fc1: Linear::new(device, channels, channels)?,
            dwconv: DepthwiseConv2d::new(device, channels)?,
            fc2: Linear::new(device, channels, channels)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let u = self.fc1.forward_shifted(&self.norm2.forward(x)?, Axis::Height, None)?;
        let u = self.dwconv.forward_gelu(&u)?;
        self.fc2.forward_shifted(&u, Axis::Width, Some(x))
    }
}

impl Module for ShiftedBlock {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { norm2, fc1, dwconv, fc2 } = self;
        norm2.visit(&format!("{path}.0.norm2"), v)?;
        fc1.visit(&format!("{path}.0.mlp.fc1"), v)?;
        dwconv.visit(&format!("{path}.0.mlp.dwconv.dwconv"), v)?;
        fc2.visit(&format!("{path}.0.mlp.fc2"), v)
    }
}

impl Module for Unext {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        debug_assert!(path.is_empty(), "a network is the root of its names");
        let Self {
            config: _,
            parameters: _,
            encoder1,
            encoder2,
            encoder3,
            ebn1,
            ebn2,
            ebn3,
            norm3,
            norm4,
            dnorm3,
            dnorm4,
            block1,
            block2,
            dblock1,
            dblock2,
            patch_embed3,
            patch_embed4,
            decoder1,
            decoder2,
            decoder3,
            decoder4,
            decoder5,
            dbn1,
            dbn2,
            dbn3,
            dbn4,
            last,
        } = self;
        encoder1.visit("encoder1", v)?;
        encoder2.visit("encoder2", v)?;
        encoder3.visit("encoder3", v)?;
        ebn1.visit("ebn1", v)?;
        ebn2.visit("ebn2", v)?;
        ebn3.visit("ebn3", v)?;
        norm3.visit("norm3", v)?;
        norm4.visit("norm4", v)?;
        dnorm3.visit("dnorm3", v)?;
        dnorm4.visit("dnorm4", v)?;
        block1.visit("block1", v)?;
        block2.visit("block2", v)?;
        dblock1.visit("dblock1", v)?;
        dblock2.visit("dblock2", v)?;
        patch_embed3.visit("patch_embed3", v)?;
        patch_embed4.visit("patch_embed4", v)?;
        decoder1.visit("decoder1", v)?;
        decoder2.visit("decoder2", v)?;
        decoder3.visit("decoder3", v)?;
        decoder4.visit("decoder4", v)?;
        decoder5.visit("decoder5", v)?;
        dbn1.visit("dbn1", v)?;
        dbn2.visit("dbn2", v)?;
        dbn3.visit("dbn3", v)?;
        dbn4.visit("dbn4", v)?;
        last.visit("final", v)
    }
}

impl Unext {
    /// A network on a device, initialised as the published code does, from a seed.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a width of 0; else as [`Device::empty`].
    pub fn new(device: &Device, config: &ModelConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let [w1, w2, w3, w4, w5] = config.widths;
        let conv3 = |input, output| Conv2d::new(device, input, output, 3, 1);
        let bn = |channels| BatchNorm2d::new(device, channels);
        let ln = |channels| LayerNorm::new(device, channels);
        let embed = |input, output| -> Result<PatchEmbed> {
            Ok(PatchEmbed { proj: Conv2d::new(device, input, output, 3, 2)?, norm: LayerNorm::new(device, output)? })
        };
        let mut net = Self {
            config: config.clone(),
            parameters: None,
            encoder1: conv3(config.in_channels, w1)?,
            encoder2: conv3(w1, w2)?,
            encoder3: conv3(w2, w3)?,
            ebn1: bn(w1)?,
            ebn2: bn(w2)?,
            ebn3: bn(w3)?,
            norm3: ln(w4)?,
            norm4: ln(w5)?,
            dnorm3: ln(w4)?,
            dnorm4: ln(w3)?,
            block1: ShiftedBlock::new(device, w4)?,
            block2: ShiftedBlock::new(device, w5)?,
            dblock1: ShiftedBlock::new(device, w4)?,
            dblock2: ShiftedBlock::new(device, w3)?,
            patch_embed3: embed(w3, w4)?,
            patch_embed4: embed(w4, w5)?,
            decoder1: conv3(w5, w4)?,
            decoder2: conv3(w4, w3)?,
            decoder3: conv3(w3, w2)?,
            decoder4: conv3(w2, w1)?,
            decoder5: conv3(w1, w1)?,
            dbn1: bn(w4)?,
            dbn2: bn(w3)?,
            dbn3: bn(w2)?,
            dbn4: bn(w1)?,
            last: Conv2d::new(device, w1, config.num_classes, 1, 1)?,
        };
        let mut initial = Initial { seed, fan_in: 1 };
        crate::nn::fill(&mut net, &mut |name, shape| initial.of(name, shape))?;
        net.parameters = Some(Parameters::gather(&mut net, device)?);
        Ok(net)
    }
}

impl Network for Unext {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn parameters(&self) -> &Parameters {
        self.parameters.as_ref().unwrap_or_else(|| unreachable!("gathered by new"))
    }

    fn source(&self) -> &'static str {
        include_str!("unext.rs")
    }

    /// Stages: t1 to t4, bottleneck, d1_sum, d1, d2_sum, d2, d3, d4, d5.
    fn forward_stages(&self, x: &Tensor, mode: Mode, stage: &mut Stage<'_>) -> Result<Tensor> {
        check_images(&self.config, x)?;
        // Encoder: relu(pool(bn(conv))). The largest of four is positive or not, so the ReLU may as well come first.
        let encode =
            |x: &Tensor, conv: &Conv2d, bn: &BatchNorm2d| bn.forward_relu_pool(&conv.forward_to_norm(x, mode)?, mode);
        let t1 = encode(x, &self.encoder1, &self.ebn1)?;
        stage("t1", &t1)?;
        let t2 = encode(&t1, &self.encoder2, &self.ebn2)?;
        stage("t2", &t2)?;
        let t3 = encode(&t2, &self.encoder3, &self.ebn3)?;
        stage("t3", &t3)?;
        // Tokens
        let t4 = self.norm3.forward(&self.block1.forward(&self.patch_embed3.forward(&t3)?)?)?;
        stage("t4", &t4)?;
        let bottleneck = self.norm4.forward(&self.block2.forward(&self.patch_embed4.forward(&t4)?)?)?;
        stage("bottleneck", &bottleneck)?;
        // Decoder: relu(upsample(bn(conv))) + skip
        let decode = |x: &Tensor, conv: &Conv2d, bn: &BatchNorm2d, skip: &Tensor| {
            bn.forward_upsample_relu(&conv.forward_to_norm(x, mode)?, skip, mode)
        };
        let sum = decode(&bottleneck, &self.decoder1, &self.dbn1, &t4)?;
        stage("d1_sum", &sum)?;
        let d1 = self.dnorm3.forward(&self.dblock1.forward(&sum)?)?;
        stage("d1", &d1)?;
        let sum = decode(&d1, &self.decoder2, &self.dbn2, &t3)?;
        stage("d2_sum", &sum)?;
        let d2 = self.dnorm4.forward(&self.dblock2.forward(&sum)?)?;
        stage("d2", &d2)?;
        let d3 = decode(&d2, &self.decoder3, &self.dbn3, &t2)?;
        stage("d3", &d3)?;
        let d4 = decode(&d3, &self.decoder4, &self.dbn4, &t1)?;
        stage("d4", &d4)?;
        let full = upsample_bilinear_relu(&self.decoder5.forward(&d4)?, false, None)?;
        stage("d5", &full)?;
        self.last.forward(&full)
    }
}

/// The published initialisation, in PyTorch's order.
struct Initial {
    seed: u64,
    /// Of the convolution visited last: its bias, which comes next, starts in the same range.
    fan_in: usize,
}

impl Initial {
    /// `None` for what keeps its start: running statistics.
    fn of(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let count: usize = shape.iter().product();
        let stream = Stream::seeded(self.seed, name);
        let uniform = |bound: f64| (0..count as u64).map(|i| stream.unit(i) * bound as f32).collect();
        let normal = |deviation: f64| (0..count as u64).map(|i| stream.normal(i) * deviation as f32).collect();
        let in_tokens = name.contains("block") || name.contains("patch_embed");
        let plain_conv = ["encoder", "decoder", "final"].iter().any(|start| name.starts_with(start));
        match (name.rsplit('.').next(), shape) {
            (Some("weight"), [_]) => Some(vec![1.0; count]),
            // trunc_normal(std 0.02), whose bounds of -2 and 2 are 100 deviations away.
            (Some("weight"), [_, _]) => Some(normal(0.02)),
            // N(0, sqrt(2 / fan_out)), fan_out = kh * kw * out / groups.
            (Some("weight"), [out, per_group, kh, kw]) if in_tokens => {
                let groups = if name.contains("dwconv") { *out / per_group } else { 1 };
                Some(normal((2.0 / (kh * kw * out / groups) as f64).sqrt()))
            }
            // PyTorch's default: U(-1, 1) / sqrt(fan_in).
            (Some("weight"), [_, per_group, kh, kw]) => {
                self.fan_in = per_group * kh * kw;
                Some(uniform(1.0 / (self.fan_in as f64).sqrt()))
            }
            (Some("bias"), _) if plain_conv => Some(uniform(1.0 / (self.fan_in as f64).sqrt())),
            (Some("bias"), _) => Some(vec![0.0; count]),
            _ => None,
        }
    }
}
