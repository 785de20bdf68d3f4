//! Attention pooling over bags of instances, with or without a gate.
//!
//! # Math
//! Ilse, Tomczak and Welling 2018, equations 7 to 9. For instance `i` of bag `b` and head `k`
//! `t_i = tanh(V x_i + b_V)`, `s_i = sigmoid(U x_i + b_U)`, `score_ik = w_k . (t_i * s_i) + b_wk`;
//! `weight_ik = e^score_ik / sum_j e^score_jk` over the instances `j` of the same bag;
//! `pooled_bk = sum_i weight_ik x_i`. Without a gate, `s_i = 1`.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, L]` | any | a variable, or stored features in f32, f16 or bf16 |
//! | `bags` | `B` bags of `N` rows | | a bag may be empty |
//! | `v` | `[D, L]`, bias `[D]` | | as PyTorch's `Linear` stores it; biases are optional |
//! | `u` | `[D, L]`, bias `[D]` | | the gate; optional |
//! | `w` | `[K, D]`, bias `[K]` | | `K >= 1` heads |
//!
//! # Result
//! `pooled` `[B, K, L]`, zero for an empty bag; `weights` `[N, K]`, which sum to 1 over each bag; `scores` `[N, K]`,
//! before the softmax.
//!
//! # Gradient
//! With `g_bk = dL/dpooled_bk`, `a = weights`: `dL/dweight_ik = g_bk . x_i` plus what came in on the weights, called
//! `h_ik`; `dL/dscore_ik = a_ik (h_ik - sum_j a_jk h_jk)` plus what came in on the scores; from there through the gate
//! to `v`, `u`, `w` and their biases, and to `x` (two paths: the weights and the sum). Stored features get none.
//!
//! # Numerics
//! The softmax is taken over fixed tiles of rows with their own largest score, and tiles of one bag are joined in order:
//! the bits do not depend on the number of threads, and no score overflows. Products in the type of the weights; tanh,
//! sigmoid and exp of `f32` within 5 units in the last place. A NaN in one bag reaches no other bag: not in the results,
//! and in the gradients only the sums over all bags.
//!
//!
//! On a CUDA device segments of 512 rows take the place of the tiles and begin with each bag, so that a bag has the same
//! bits whatever else is in the batch, and all sums are in a fixed order. By the precision of the device:
//!
//! | precision | factors of the products with `v`, `u` and on the way back | tanh, sigmoid | kept as |
//! |---|---|---|---|
//! | `f32` | f32: fused multiply-adds below 64 terms, else split into two tf32 numbers each (three products, two with 16-bit features, which are exact); at most eight of them are added by a tensor core before an ordinary addition rounds | accurate | f32 |
//! | `tf32` | rounded to 11 bits | accurate | f32 |
//! | `bf16`, `f16` | rounded to that type | good to 11 bits | that type |
//!
//! Scores, softmax, pooling and all sums are in f32 in each. Infinite features in `f32` with 64 columns or more give NaN.
//!
//! # Cost
//! Forward `4 N L D` flops with the gate, half without; `x` is read once. Backward as much, and `4 N L D` more where
//! `x` wants a gradient. Keeps `x`, the weights, the pooled rows and, up to 256 MiB, tanh and sigmoid (`[N, 2 D]`); beyond
//! that they are calculated again, for another `4 N L D`: the bits are the same.
//!
//! On a CUDA device gates are kept up to 2 GiB, and calculated again 256 MiB at a time. `f32` does three times the products
//! of `tf32`, twice with 16-bit features. Forward reads `x` for each 128 columns of `v` and `u` (mostly out of the L2) and
//! once more for pooling; on Hopper bf16 features with the gate, one head, `L` a multiple of 64 up to 4096 and precision
//! `bf16` are scored and pooled in one kernel that reads them from memory once, and their gates are always kept. The floor
//! of that on an H200 for a million rows, `L` 1024 and `D` 256 is 1.33 ms of tensor cores; the kernel is predicted at 1.6 to
//! 1.9 ms and has not been measured.
//!
//! # Deviations
//! None. An empty bag, which the paper does not have, pools to zero and has no gradient.

mod cpu;
mod cuda;
mod half;
mod hopper;
mod room;

pub(crate) use cuda::KERNELS;
pub(crate) use half::KERNELS as HALF_KERNELS;
pub(crate) use hopper::KERNELS as HOPPER_KERNELS;
pub(crate) use room::Room;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::features::Rows;
use crate::shape::Ragged;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// The parameters of an affine map `x W^T + b`, as PyTorch's `Linear` stores them.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a, T> {
    /// `[outputs, inputs]`.
    pub weight: &'a Var<T>,
    /// `[outputs]`; none is zero.
    pub bias: Option<&'a Var<T>>,
}

/// Attention pooling with its parameters: see the [module page](self).
#[derive(Clone, Copy, Debug)]
pub struct AttentionMil<'a, T> {
    /// `[D, L]`, under the tanh.
    pub v: Affine<'a, T>,
    /// `[D, L]`, under the sigmoid; without it there is no gate.
    pub u: Option<Affine<'a, T>>,
    /// `[K, D]`, one row a head.
    pub w: Affine<'a, T>,
}

/// What attention pooling gives.
#[derive(Clone, Debug)]
pub struct Pooling<T> {
    /// `[B, K, L]`: the weighted mean of each bag, by head.
    pub pooled: Var<T>,
    /// `[N, K]`: what each instance counts in its bag.
    pub weights: Var<T>,
    /// `[N, K]`: the scores that the weights are the softmax of.
    pub scores: Var<T>,
}

/// The most memory that tanh and sigmoid of all instances are kept in for the backward pass.
const KEPT_BYTES: usize = 256 << 20;

/// The gradients that came in.
#[derive(Clone, Copy)]
struct Given<'a, T> {
    pooled: Option<&'a Tensor<T>>,
    weights: Option<&'a Tensor<T>>,
    scores: Option<&'a Tensor<T>>,
}

/// What a device keeps of a forward pass: from the gradients of the outputs to those of the inputs.
type Backward<T> = Box<dyn FnOnce(Given<'_, T>) -> Result<Vec<Option<Tensor<T>>>>>;

/// The sizes of one call, in the letters of the page.
#[derive(Clone, Copy, Debug)]
struct Dims {
    n: usize,
    l: usize,
    d: usize,
    k: usize,
}

impl<T: Real> AttentionMil<'_, T> {
    /// Pools each bag.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit.
    pub fn forward<'x>(&self, tape: &Tape<T>, x: impl Into<Rows<'x, T>>, bags: &Ragged) -> Result<Pooling<T>> {
        let x = x.into();
        let dims = self.check(&x, bags)?;
        let (kept, bags) = (x.kept(), bags.clone());
        let x = x.var();
        let wants_x = x.wants_grad();
        let absent = Var::constant(Tensor::zeros(&[0]));
        let maps = [Some(self.v), self.u, Some(self.w)];
        let inputs: Vec<&Var<T>> = [&x]
            .into_iter()
            .chain(
                maps.iter().flat_map(|m| [m.map(|m| m.weight), m.and_then(|m| m.bias)]).map(|v| v.unwrap_or(&absent)),
            )
            .collect();
        let wants_grad = inputs.iter().any(|v| v.wants_grad());
        let (outputs, backward): (_, Backward<T>) = match tape.device() {
            Device::Cpu => {
                let layer = cpu::Layer::new(dims, self);
                let keep = wants_grad && dims.n * layer.width() * size_of::<T>() <= KEPT_BYTES;
                let (outputs, gates) = cpu::forward(&layer, &kept, &bags, keep);
                let [pooled, weights, _] = outputs.clone();
                let saved = cpu::Saved { pooled, weights, gates };
                (outputs, Box::new(move |given| Ok(cpu::backward(&layer, &kept, &bags, &saved, given, wants_x))))
            }
            Device::Cuda(gpu) => cuda::forward(gpu, dims, self, &kept, &bags, wants_grad, wants_x)?,
        };
        let [pooled, weights, scores] = tape.record(&inputs, outputs, move |grads| {
            let [pooled, weights, scores] = grads else { unreachable!("three outputs were recorded") };
            backward(Given { pooled: pooled.as_ref(), weights: weights.as_ref(), scores: scores.as_ref() })
        });
        Ok(Pooling { pooled, weights, scores })
    }

    fn check(&self, x: &Rows<'_, T>, bags: &Ragged) -> Result<Dims> {
        let shape =
            |arg, want: String, got: &[usize]| Err(Error::Shape { op: "attention_mil", arg, want, got: got.to_vec() });
        let (n, l) = x.matrix();
        if n != bags.rows() {
            return shape("x", format!("[{}, L], the rows of all bags", bags.rows()), &x.shape());
        }
        let &[d, columns] = self.v.weight.shape() else {
            return shape("v", format!("[D, {l}]"), self.v.weight.shape());
        };
        if columns != l {
            return shape("v", format!("[{d}, {l}]"), self.v.weight.shape());
        }
        if let Some(u) = self.u
            && u.weight.shape() != [d, l]
        {
            return shape("u", format!("[{d}, {l}]"), u.weight.shape());
        }
        let k = match *self.w.weight.shape() {
            [k, columns] if k > 0 && columns == d => k,
            _ => return shape("w", format!("[K, {d}] with K at least 1"), self.w.weight.shape()),
        };
        let biases =
            [("v.bias", self.v.bias, d), ("u.bias", self.u.and_then(|u| u.bias), d), ("w.bias", self.w.bias, k)];
        for (arg, bias, len) in biases {
            if let Some(bias) = bias
                && bias.shape() != [len]
            {
                return shape(arg, format!("[{len}]"), bias.shape());
            }
        }
        Ok(Dims { n, l, d, k })
    }
}
