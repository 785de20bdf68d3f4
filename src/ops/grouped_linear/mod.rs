//! Many small fully connected layers at once, each on its own columns of one input.
//!
//! # Math
//! Group `s` has the columns `x_s` of `x` and its own weight: `y_s = f(x_s W_s^T + b_s)`; `f` is an [`Activation`].
//! One such op is a layer of hundreds of networks, such as one for each set of genes.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[B, I]` | any | `I` is the sum of the widths `I_s` |
//! | `groups` | `S` groups of `I` columns | | a group may be empty: its result is that of its bias |
//! | `weight` | `[O I]` | | `[O, I_s]` of each group, as PyTorch's `Linear` stores it, one after the other |
//! | `bias` | `[S, O]` | | optional |
//!
//! # Result
//! `y`, `[B S, O]`: row `b S + s` is group `s` of sample `b`. Read as `[B, S O]` it is the input of a next layer whose
//! groups are all `O` wide.
//!
//! # Gradient
//! That of a fully connected layer, group by group.
//!
//! # Numerics
//! Each group is one task, so no sum depends on the number of threads. On a device every sum is of f32 and runs through
//! its terms in order, whatever the precision of other products: memory bounds this op, and rounding would buy nothing.
//!
//! # Cost
//! Forward `2 B O I` flops, backward twice that. For `B = 1` it reads every weight once and is bound by memory.
//! Keeps `x` and `y` (for GELU the argument of the activation too). On a device it is one launch forward and three
//! backward (four for more than 32 samples), for any number of groups.
//!
//! # Deviations
//! None.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::ops::activation::Activation;
use crate::shape::Ragged;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// A layer of many small networks: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupedLinear {
    /// What is applied to each element of the result.
    pub activation: Activation,
}

/// The sizes of one call.
#[derive(Clone, Debug)]
struct Dims {
    samples: usize,
    groups: Ragged,
    outputs: usize,
}

impl GroupedLinear {
    /// `outputs` results of each group.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        x: &Var<T>,
        groups: &Ragged,
        outputs: usize,
        weight: &Var<T>,
        bias: Option<&Var<T>>,
    ) -> Result<Var<T>> {
        let dims = check(x, groups, outputs, weight, bias)?;
        let (op, device, kept_x, w) = (*self, tape.device(), x.value().clone(), weight.value().clone());
        let (y, kept_y) = match device {
            Device::Cpu => cpu::forward(op, &dims, &kept_x, &w, bias.map(Var::value)),
            Device::Cuda(gpu) => cuda::forward(gpu, op, &dims, &kept_x, &w, bias.map(Var::value))?,
        };
        let wants_x = x.wants_grad();
        let absent = Var::constant(Tensor::zeros(&[0]));
        let has_bias = bias.is_some();
        let [y] = tape.record(&[x, weight, bias.unwrap_or(&absent)], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None; 3]) };
            let (dx, dw, db) = match device {
                Device::Cpu => cpu::backward(op, &dims, &kept_x, &w, &kept_y, grad, wants_x),
                Device::Cuda(gpu) => cuda::backward(gpu, op, &dims, &kept_x, &w, &kept_y, grad, wants_x)?,
            };
            Ok(vec![dx, Some(dw), has_bias.then_some(db)])
        });
        Ok(y)
    }
}

fn check<T: Real>(x: &Var<T>, groups: &Ragged, outputs: usize, weight: &Var<T>, bias: Option<&Var<T>>) -> Result<Dims> {
    let shape =
        |arg, want: String, got: &[usize]| Err(Error::Shape { op: "grouped_linear", arg, want, got: got.to_vec() });
    let (samples, inputs) = x.value().matrix();
    if inputs != groups.rows() {
        return shape("x", format!("[B, {}], the columns of all groups", groups.rows()), x.shape());
    }
    if weight.shape() != [outputs * inputs] {
        return shape("weight", format!("[{}]", outputs * inputs), weight.shape());
    }
    if let Some(bias) = bias
        && bias.shape() != [groups.bags(), outputs]
    {
        return shape("bias", format!("[{}, {outputs}]", groups.bags()), bias.shape());
    }
    Ok(Dims { samples, groups: groups.clone(), outputs })
}
