//! The layers of the networks. Shapes are those of the ops; names are PyTorch's.

use std::sync::atomic::{AtomicU64, Ordering};

use super::visit::{Layout, Module, Parameter, Visitor, join};
use crate::Result;
use crate::ops::{self, Axis, BatchNormSettings, Mode, RunningStats};
use crate::tensor::{Device, Tensor};

/// A function of x, weight, bias, stride and padding.
type Convolution = fn(&Tensor, &Tensor, Option<&Tensor>, usize, usize) -> Result<Tensor>;

/// Convolution, with or without bias. Weight `[k, k, in, out]`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Parameter,
    bias: Option<Parameter>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// A square kernel with bias; padding keeps the size at stride 1.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn new(device: &Device, input: usize, output: usize, kernel: usize, stride: usize) -> Result<Self> {
        Ok(Self {
            bias: Some(Parameter::new(device, [output], Layout::Plain)?),
            ..Self::without_bias(device, input, output, kernel, stride)?
        })
    }

    /// As [`new`](Self::new) without a bias: before a batch norm it would have no effect.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn without_bias(device: &Device, input: usize, output: usize, kernel: usize, stride: usize) -> Result<Self> {
        let weight = Parameter::new(device, [kernel, kernel, input, output], Layout::Conv)?;
        Ok(Self { weight, bias: None, stride, padding: kernel / 2 })
    }

    /// x `[N, H, W, in]` -> `[N, H/stride, W/stride, out]`.
    ///
    /// # Errors
    /// As [`ops::conv2d()`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.by(ops::conv2d, x)
    }

    /// As [`forward`](Self::forward), for a result that goes into a [`BatchNorm2d`]: in training the convolution also
    /// gathers the statistics for it.
    ///
    /// # Errors
    /// As [`ops::conv2d()`].
    pub fn forward_to_norm(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        match mode {
            Mode::Train => self.by(ops::conv2d_with_statistics, x),
            Mode::Eval => self.forward(x),
        }
    }

    /// As [`forward`](Self::forward), added to `y`; `before_norm` as in [`ops::conv2d_added()`].
    ///
    /// # Errors
    /// As [`ops::conv2d_added()`].
    pub fn forward_added(&self, y: Tensor, x: &Tensor, before_norm: bool) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| &bias.tensor);
        ops::conv2d_added(y, x, &self.weight.tensor, bias, (self.stride, self.padding), before_norm)
    }

    fn by(&self, conv2d: Convolution, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| &bias.tensor);
        conv2d(x, &self.weight.tensor, bias, self.stride, self.padding)
    }
}

impl Module for Conv2d {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { weight, bias, stride: _, padding: _ } = self;
        v.param(&join(path, "weight"), weight)?;
        match bias {
            Some(bias) => v.param(&join(path, "bias"), bias),
            None => Ok(()),
        }
    }
}

/// Transposed convolution with bias that doubles height and width: 2x2, stride 2. Weight `[2, 2, out, in]`.
#[derive(Debug)]
pub struct UpConv2d {
    weight: Parameter,
    bias: Parameter,
}

impl UpConv2d {
    /// From `input` to `output` channels.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn new(device: &Device, input: usize, output: usize) -> Result<Self> {
        Ok(Self {
            // PyTorch's [in, out, 2, 2] is the layout of a convolution from out to in.
            weight: Parameter::new(device, [2, 2, output, input], Layout::Conv)?,
            bias: Parameter::new(device, [output], Layout::Plain)?,
        })
    }

    /// x `[N, H, W, in]` -> `[N, 2H, 2W, out]`.
    ///
    /// # Errors
    /// As [`ops::conv_transpose2d()`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv_transpose2d(x, &self.weight.tensor, Some(&self.bias.tensor), 2, 0, 0)
    }
}

impl Module for UpConv2d {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { weight, bias } = self;
        v.param(&join(path, "weight"), weight)?;
        v.param(&join(path, "bias"), bias)
    }
}

/// Depthwise 3x3 convolution with bias. Weight `[3, 3, C]`.
#[derive(Debug)]
pub struct DepthwiseConv2d {
    weight: Parameter,
    bias: Parameter,
}

impl DepthwiseConv2d {
    /// For that many channels.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn new(device: &Device, channels: usize) -> Result<Self> {
        Ok(Self {
            weight: Parameter::new(device, [3, 3, channels], Layout::Depthwise)?,
            bias: Parameter::new(device, [channels], Layout::Plain)?,
        })
    }

    /// x `[N, H, W, C]` -> the same shape.
    ///
    /// # Errors
    /// As [`ops::depthwise_conv2d()`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::depthwise_conv2d(x, &self.weight.tensor, Some(&self.bias.tensor), 1)
    }

    /// As [`forward`](Self::forward), then GELU, in one op.
    ///
    /// # Errors
    /// As [`ops::depthwise_conv2d()`].
    pub fn forward_gelu(&self, x: &Tensor) -> Result<Tensor> {
        ops::depthwise_conv2d_gelu(x, &self.weight.tensor, Some(&self.bias.tensor), 1)
    }
}

impl Module for DepthwiseConv2d {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { weight, bias } = self;
        v.param(&join(path, "weight"), weight)?;
        v.param(&join(path, "bias"), bias)
    }
}

/// Linear layer with bias over the last axis. Weight `[in, out]`.
#[derive(Debug)]
pub struct Linear {
    weight: Parameter,
    bias: Parameter,
}

impl Linear {
    /// From `input` to `output` channels.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn new(device: &Device, input: usize, output: usize) -> Result<Self> {
        Ok(Self {
            weight: Parameter::new(device, [input, output], Layout::Linear)?,
            bias: Parameter::new(device, [output], Layout::Plain)?,
        })
    }

    /// x `[.., in]` -> `[.., out]`.
    ///
    /// # Errors
    /// As [`ops::linear()`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight.tensor, Some(&self.bias.tensor))
    }

    /// Over shifted tokens: x `[N, H, W, in]` -> `[N, H, W, out]`, plus a residual of the result's shape.
    ///
    /// # Errors
    /// As [`ops::shifted_linear()`].
    pub fn forward_shifted(&self, x: &Tensor, axis: Axis, residual: Option<&Tensor>) -> Result<Tensor> {
        ops::shifted_linear(x, &self.weight.tensor, Some(&self.bias.tensor), axis, residual)
    }
}

impl Module for Linear {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { weight, bias } = self;
        v.param(&join(path, "weight"), weight)?;
        v.param(&join(path, "bias"), bias)
    }
}

/// Batch norm with running statistics. Scale and shift `[C]`.
#[derive(Debug)]
pub struct BatchNorm2d {
    weight: Parameter,
    bias: Parameter,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: AtomicU64,
}

impl BatchNorm2d {
    /// For that many channels; running variance starts at 1.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn new(device: &Device, channels: usize) -> Result<Self> {
        Ok(Self {
            weight: Parameter::new(device, [channels], Layout::Plain)?,
            bias: Parameter::new(device, [channels], Layout::Plain)?,
            running_mean: device.zeros("batch_norm", [channels])?,
            running_var: device.tensor("batch_norm", [channels], &vec![1.0; channels])?,
            num_batches_tracked: AtomicU64::new(0),
        })
    }

    /// x `[N, H, W, C]` -> the same shape. `Mode::Train` normalises by the batch and updates the running statistics.
    ///
    /// # Errors
    /// As [`ops::batch_norm()`].
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let [weight, bias] = self.affine();
        ops::batch_norm(x, weight, bias, &self.running(mode), &BatchNormSettings::new(mode))
    }

    /// As [`forward`](Self::forward), then a ReLU, in one op.
    ///
    /// # Errors
    /// As [`ops::batch_norm()`].
    pub fn forward_relu(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let [weight, bias] = self.affine();
        ops::batch_norm(x, weight, bias, &self.running(mode), &with_relu(mode))
    }

    /// As [`forward_relu`](Self::forward_relu), then max pooling, in one op: x `[N, H, W, C]` -> `[N, H/2, W/2, C]`.
    ///
    /// # Errors
    /// As [`ops::batch_norm_max_pool2d()`].
    pub fn forward_relu_pool(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let [weight, bias] = self.affine();
        ops::batch_norm_max_pool2d(x, weight, bias, &self.running(mode), &with_relu(mode))
    }

    /// As [`forward`](Self::forward), then bilinear upsampling, a ReLU and the sum with skip, in one op: x `[N, H, W, C]`
    /// -> `[N, 2H, 2W, C]`.
    ///
    /// # Errors
    /// As [`ops::batch_norm_upsample_bilinear()`].
    pub fn forward_upsample_relu(&self, x: &Tensor, skip: &Tensor, mode: Mode) -> Result<Tensor> {
        ops::batch_norm_upsample_bilinear(x, self.affine(), &self.running(mode), &with_relu(mode), skip)
    }

    /// Weight and bias.
    fn affine(&self) -> [&Tensor; 2] {
        [&self.weight.tensor, &self.bias.tensor]
    }

    /// The running statistics for a forward pass, which is counted if it changes them.
    fn running(&self, mode: Mode) -> RunningStats<'_> {
        if mode == Mode::Train {
            self.num_batches_tracked.fetch_add(1, Ordering::Relaxed);
        }
        RunningStats { mean: &self.running_mean, var: &self.running_var }
    }
}

fn with_relu(mode: Mode) -> BatchNormSettings {
    BatchNormSettings { relu: true, ..BatchNormSettings::new(mode) }
}

impl Module for BatchNorm2d {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { weight, bias, running_mean, running_var, num_batches_tracked } = self;
        v.param(&join(path, "weight"), weight)?;
        v.param(&join(path, "bias"), bias)?;
        v.buffer(&join(path, "running_mean"), running_mean)?;
        v.buffer(&join(path, "running_var"), running_var)?;
        v.counter(&join(path, "num_batches_tracked"), num_batches_tracked)
    }
}

/// Layer norm over the last axis. Scale and shift `[C]`.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Parameter,
    bias: Parameter,
}

impl LayerNorm {
    /// For that many channels.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn new(device: &Device, channels: usize) -> Result<Self> {
        Ok(Self {
            weight: Parameter::new(device, [channels], Layout::Plain)?,
            bias: Parameter::new(device, [channels], Layout::Plain)?,
        })
    }

    /// x `[.., C]` -> the same shape.
    ///
    /// # Errors
    /// As [`ops::layer_norm()`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(x, &self.weight.tensor, &self.bias.tensor, 1e-5)
    }
}

impl Module for LayerNorm {
    fn visit(&mut self, path: &str, v: &mut dyn Visitor) -> Result<()> {
        let Self { weight, bias } = self;
        v.param(&join(path, "weight"), weight)?;
        v.param(&join(path, "bias"), bias)
    }
}
