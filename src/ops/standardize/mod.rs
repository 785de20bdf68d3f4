//! Standardisation of a layer's inputs, folded into its weights.
//!
//! # Math
//! `W' = W diag(1 / s)`, `b' = b - W' m`, so that `x W'^T + b' = ((x - m) / s) W^T + b`.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `weight` | `[O, I]` | | for standardised inputs |
//! | `bias` | `[O]` | | |
//! | `mean` | `[I]` | of the inputs | a constant, fitted on the training patients |
//! | `deviation` | `[I]` | of the inputs | a constant, positive |
//!
//! # Result
//! `W'`, `[O, I]`, and `b'`, `[O]`: for the inputs as they are stored.
//!
//! # Gradient
//! `dL/dW = (dL/dW' - dL/db' m^T) diag(1 / s)`, `dL/db = dL/db'`.
//!
//! # Numerics
//! `b'` is summed in f64, on every device. A deviation that is not positive is refused, but one that lies on a device is
//! not read back: there it gives NaN. Where `|m| / s` is large, `x W'` and `b'` cancel: about log10(|m| / s) digits are lost, as in
//! any layer that sees raw features.
//!
//! # Cost
//! `3 O I` flops, on a device one launch each way, and no pass over the patches: a slide of 200,000 patches is never copied to be standardised.
//!
//! # Deviations
//! Ours; published pipelines feed raw encoder features.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Folds a standardisation into weights: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standardize;

impl Standardize {
    /// The weight and bias for inputs that are not standardised.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit; [`Error::Value`] if a deviation is not positive.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        weight: &Var<T>,
        bias: &Var<T>,
        mean: &Tensor<T>,
        deviation: &Tensor<T>,
    ) -> Result<(Var<T>, Var<T>)> {
        check(weight, bias, mean, deviation)?;
        let (w, b) = match tape.device() {
            Device::Cpu => cpu::forward(weight.value(), bias.value(), mean, deviation),
            Device::Cuda(gpu) => cuda::forward(gpu, weight.value(), bias.value(), mean, deviation)?,
        };
        let (mean, deviation, device) = (mean.clone(), deviation.clone(), tape.device());
        let shape = weight.shape().to_vec();
        let [w, b] = tape.record(&[weight, bias], [w, b], move |grads| {
            let or_zeros = |grad: &Option<Tensor<T>>, shape: &[usize]| match (grad, device) {
                (Some(grad), _) => Ok(grad.clone()),
                (None, Device::Cpu) => Ok(Tensor::zeros(shape)),
                (None, Device::Cuda(gpu)) => gpu.zeros(shape),
            };
            let (gw, gb) = (or_zeros(&grads[0], &shape)?, or_zeros(&grads[1], &shape[..1])?);
            let dw = match device {
                Device::Cpu => cpu::backward(&gw, &gb, &mean, &deviation),
                Device::Cuda(gpu) => cuda::backward(gpu, &gw, &gb, &mean, &deviation)?,
            };
            Ok(vec![Some(dw), Some(gb)])
        });
        Ok((w, b))
    }
}

fn check<T: Real>(weight: &Var<T>, bias: &Var<T>, mean: &Tensor<T>, deviation: &Tensor<T>) -> Result<()> {
    let shape =
        |arg, want: String, got: &[usize]| Err(Error::Shape { op: "standardize", arg, want, got: got.to_vec() });
    let &[outputs, inputs] = weight.shape() else { return shape("weight", "[O, I]".into(), weight.shape()) };
    for (arg, got, want) in
        [("bias", bias.shape(), outputs), ("mean", mean.shape(), inputs), ("deviation", deviation.shape(), inputs)]
    {
        if got != [want] {
            return shape(arg, format!("[{want}]"), got);
        }
    }
    if deviation.device() != Device::Cpu {
        return Ok(()); // not read back: there such a deviation gives NaN
    }
    match deviation.host().iter().position(|s| s.is_nan() || *s <= T::zero()) {
        Some(index) => Err(Error::Value {
            op: "standardize",
            arg: "deviation",
            want: "positive",
            index,
            value: deviation.host()[index].f64(),
        }),
        None => Ok(()),
    }
}
