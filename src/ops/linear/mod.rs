//! Fully connected layer with its activation.
//!
//! # Math
//! `y = f(x W^T + b)`, row by row; `f` is an [`Activation`].
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, I]` | any | a variable, or stored features in f32, f16 or bf16 |
//! | `weight` | `[O, I]` | | as PyTorch's `Linear` stores it |
//! | `bias` | `[O]` | | optional |
//!
//! # Result
//! `y`, `[N, O]`.
//!
//! # Gradient
//! With `G = dL/dy * f'`: `dL/dx = G W`, `dL/dW = G^T x`, `dL/db = sum of the rows of G`. Stored features get none.
//!
//! # Numerics
//! Sums over `I` in the type of `weight`; sums over `N` in fixed groups of rows, added in order, so the bits do not
//! depend on the number of threads. 16-bit features are widened chunk by chunk, in both passes; no widened copy is kept.
//!
//! On a device sums are of f32, in a fixed order: over `I` and `O` one after the other in steps of the tensor cores, over
//! `N` in chunks whose number depends on the shapes alone. A row has the same bits whatever other rows are with it. With
//! `Precision::F32` a factor of a sum of 128 terms and more is taken apart into three bf16 (f16 features into two, bf16
//! features are one), and of the products of parts those above 2^-24 of the largest are added: as good as f32, with two
//! exceptions. An infinity, or a number above 3.39e38, gives NaN; and what a factor has below 2^-133 is lost. Shorter sums
//! are those of f32 itself. The other precisions round each factor once (`Tf32` to 11 bits, ties away from zero; `Bf16` to
//! 8; `F16` to 11, above 65504 to infinity); the sum of the bias is of f32 in all of them.
//!
//! With `train.products = "cublaslt"` the order of a sum is the choice of that library, by all sizes of a product: the same
//! bits from run to run, but not whatever other rows there are (`docs/numerics.md`).
//!
//! # Cost
//! Forward `2 N I O` flops, backward `4 N I O` (`2 N I O` for stored features); reads `x` once each way. Keeps `x`, and
//! `y` or, for GELU, the argument of the activation; neither of them for the identity.
//!
//! On a device bias and activation ride at the end of the product; backward is one pass over `dL/dy` and `y` for `G` and
//! the sums of its columns, then a product for each gradient, that of the weight in at most 64 chunks of `4 O I` bytes.
//! For f32 factors a long sum costs six products of bf16 a term, for bf16 features three. On a Hopper (capability 9.0)
//! `Bf16` and `F16` have kernels of their own (`kernels/matmul_sm90.cuh`), which were not timed yet: their large tiles read
//! a rounded copy of `weight`, of `2 O I` bytes, that each product makes.
//!
//! # Deviations
//! None.

mod cpu;
mod cuda;

pub(crate) use cuda::{KERNELS, grad_weight_bytes, inner};

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::features::Rows;
use crate::ops::activation::Activation;
use crate::tape::{Tape, Var};

/// A fully connected layer: see the [module page](self).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Linear {
    /// What is applied to each element of the result.
    pub activation: Activation,
}

/// The sizes of one call.
#[derive(Clone, Copy, Debug)]
struct Dims {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// `f(x W^T + b)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit.
    pub fn forward<'a, T: Real>(
        &self,
        tape: &Tape<T>,
        x: impl Into<Rows<'a, T>>,
        weight: &Var<T>,
        bias: Option<&Var<T>>,
    ) -> Result<Var<T>> {
        let x = x.into();
        let dims = check(&x, weight, bias)?;
        let (op, kept_x, w) = (*self, x.kept(), weight.value().clone());
        let (y, kept_y) = match tape.device() {
            Device::Cpu => cpu::forward(op, dims, &kept_x, &w, bias.map(Var::value)),
            Device::Cuda(gpu) => cuda::forward(gpu, op, dims, &kept_x, &w, bias.map(Var::value))?,
        };
        // The gradient passes the identity as it is: nothing of the result is needed.
        let kept_y = (op.activation != Activation::Identity).then_some(kept_y);
        let x = x.var();
        let (wants_x, device) = (x.wants_grad(), tape.device());
        let inputs: Vec<&Var<T>> = [&x, weight].into_iter().chain(bias).collect();
        let has_bias = bias.is_some();
        let [y] = tape.record(&inputs, [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None; 2 + usize::from(has_bias)]) };
            let (dx, dw, db) = match device {
                Device::Cpu => cpu::backward(op, dims, &kept_x, &w, kept_y.as_ref(), grad, wants_x),
                Device::Cuda(gpu) => cuda::backward(gpu, op, dims, &kept_x, &w, kept_y.as_ref(), grad, wants_x)?,
            };
            Ok([dx, Some(dw)].into_iter().chain(has_bias.then_some(Some(db))).collect())
        });
        Ok(y)
    }
}

fn check<T: Real>(x: &Rows<'_, T>, weight: &Var<T>, bias: Option<&Var<T>>) -> Result<Dims> {
    let shape = |arg, want: String, got: &[usize]| Err(Error::Shape { op: "linear", arg, want, got: got.to_vec() });
    let (rows, inputs) = x.matrix();
    let &[outputs, i] = weight.shape() else { return shape("weight", format!("[O, {inputs}]"), weight.shape()) };
    if i != inputs {
        return shape("weight", format!("[{outputs}, {inputs}]"), weight.shape());
    }
    if let Some(bias) = bias
        && bias.shape() != [outputs]
    {
        return shape("bias", format!("[{outputs}]"), bias.shape());
    }
    Ok(Dims { rows, inputs, outputs })
}
