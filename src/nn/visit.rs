//! Walking over a module's parameters by name.

use std::sync::atomic::AtomicU64;

use crate::tensor::{Device, Shape, Tensor};
use crate::{Error, Result};

/// How a tensor in memory relates to PyTorch's, which files keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The same.
    Plain,
    /// Memory `[kh, kw, in, out]`, files `[out, in, kh, kw]`.
    Conv,
    /// Memory `[kh, kw, channels]`, files `[channels, 1, kh, kw]`.
    Depthwise,
    /// Memory `[in, out]`, files `[out, in]`.
    Linear,
}

impl Layout {
    /// PyTorch's shape of a tensor with this shape in memory.
    pub fn file_shape(self, memory: Shape) -> Vec<usize> {
        match (self, memory.dims()) {
            (Self::Conv, [kh, kw, i, o]) => vec![*o, *i, *kh, *kw],
            (Self::Depthwise, [kh, kw, c]) => vec![*c, 1, *kh, *kw],
            (Self::Linear, [i, o]) => vec![*o, *i],
            (_, dims) => dims.to_vec(),
        }
    }

    /// For each element in memory order, its index in the file.
    pub fn file_indices(self, memory: Shape) -> Vec<usize> {
        let dims = memory.dims().to_vec();
        let index = |at: usize| match (self, dims.as_slice()) {
            (Self::Conv, [kh, kw, i, o]) => {
                let (co, ci, tap) = (at % o, at / o % i, at / (o * i));
                (co * i + ci) * kh * kw + tap
            }
            (Self::Depthwise, [kh, kw, c]) => at % c * kh * kw + at / c,
            (Self::Linear, [i, o]) => at % o * i + at / o,
            _ => at,
        };
        (0..memory.len()).map(index).collect()
    }

    /// Values in PyTorch's order, brought into memory order.
    pub fn from_file(self, memory: Shape, values: &[f32]) -> Vec<f32> {
        self.file_indices(memory).into_iter().map(|index| values[index]).collect()
    }

    /// Values in memory order, brought into PyTorch's order.
    pub fn to_file(self, memory: Shape, values: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        for (value, index) in values.iter().zip(self.file_indices(memory)) {
            out[index] = *value;
        }
        out
    }
}

/// A trained tensor.
#[derive(Debug)]
pub struct Parameter {
    /// The numbers, in memory layout.
    pub tensor: Tensor,
    /// How files hold it.
    pub layout: Layout,
}

impl Parameter {
    /// A parameter that starts at zero on `device`.
    ///
    /// # Errors
    /// As [`Device::zeros`].
    pub fn new(device: &Device, shape: impl Into<Shape>, layout: Layout) -> Result<Self> {
        Ok(Self { tensor: device.zeros("parameter", shape)?, layout })
    }
}

/// What a walk does at each stop. `name` is the full path, as in PyTorch's state dict.
pub trait Visitor {
    /// A trained tensor.
    ///
    /// # Errors
    /// The visitor's own.
    fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()>;

    /// A tensor that is kept but not trained (running statistics).
    ///
    /// # Errors
    /// The visitor's own.
    fn buffer(&mut self, _name: &str, _tensor: &mut Tensor) -> Result<()> {
        Ok(())
    }

    /// A count that is kept (`num_batches_tracked`).
    ///
    /// # Errors
    /// The visitor's own.
    fn counter(&mut self, _name: &str, _count: &AtomicU64) -> Result<()> {
        Ok(())
    }
}

/// Something with parameters.
pub trait Module {
    /// Calls the visitor for each parameter, buffer and counter, in PyTorch's order.
    ///
    /// # Errors
    /// The visitor's first.
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor) -> Result<()>;
}

/// `path.name`, or `name` at the top.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Names and file shapes of everything that a state dict of the module holds, in order.
///
/// # Errors
/// None of its own.
pub fn names(module: &mut dyn Module) -> Result<Vec<(String, Vec<usize>)>> {
    struct Names(Vec<(String, Vec<usize>)>);
    impl Visitor for Names {
        fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
            self.0.push((name.to_owned(), parameter.layout.file_shape(parameter.tensor.shape())));
            Ok(())
        }
        fn buffer(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
            self.0.push((name.to_owned(), tensor.shape().dims().to_vec()));
            Ok(())
        }
        fn counter(&mut self, name: &str, _count: &AtomicU64) -> Result<()> {
            self.0.push((name.to_owned(), Vec::new()));
            Ok(())
        }
    }
    let mut names = Names(Vec::new());
    module.visit("", &mut names)?;
    Ok(names.0)
}

/// Values for a name and PyTorch's shape, in PyTorch's order; `None` leaves what is there.
pub type Values<'a> = dyn FnMut(&str, &[usize]) -> Option<Vec<f32>> + 'a;

/// Sets every parameter from a function of its name and PyTorch's shape, which returns values in PyTorch's order;
/// `None` leaves it.
///
/// # Errors
/// [`Error::Shape`] if the number of values does not fit.
pub fn fill(module: &mut dyn Module, values: &mut Values<'_>) -> Result<()> {
    struct Fill<'a, 'b>(&'a mut Values<'b>);
    impl Visitor for Fill<'_, '_> {
        fn param(&mut self, name: &str, parameter: &mut Parameter) -> Result<()> {
            let shape = parameter.tensor.shape();
            let Some(values) = (self.0)(name, &parameter.layout.file_shape(shape)) else { return Ok(()) };
            if values.len() != shape.len() {
                return Err(Error::shape("fill", format!("{name} {shape} does not take {} values", values.len())));
            }
            parameter.tensor.write(&parameter.layout.from_file(shape, &values))
        }
        fn buffer(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
            match (self.0)(name, tensor.shape().dims()) {
                Some(values) => tensor.write(&values),
                None => Ok(()),
            }
        }
    }
    module.visit("", &mut Fill(values))
}
