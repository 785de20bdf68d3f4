//! What landmarks take from landmarks: the middle of Nyström attention, an inverse of their softmax that is iterated.
//!
//! # Math
//! The softmax between landmarks of [Xiong 2021] (Nyströmformer) and its iterated pseudo-inverse, of one bag and head with `m` landmarks:
//!
//! - `A = softmax over j of <q_i, k_j> / sqrt d`, `[m, m]`;
//! - `Z_0 = A' / c`, where `c` is the largest sum of a row of `A`, which is 1, times the largest sum of a column;
//! - `Z_t+1 = Z_t (13 I - A Z_t (15 I - A Z_t (7 I - A Z_t))) / 4`, some times over;
//! - `y = Z v`.
//!
//! `Z` goes towards the pseudo-inverse of `A`. The attention of all tokens is then taken by way of the landmarks: their means
//! attend to all tokens, this op follows, and all tokens attend to the landmarks, with `y` as values.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `queries` | `[M, E]` | any | means of queries; head `h` has the columns from `h d` on |
//! | `keys` | `[M, E]` | any | means of keys |
//! | `values` | `[M, E]` | any | what the landmarks took from all tokens |
//! | `bags` | `B` bags of `M` landmarks | | a bag may be empty, and has at most 1024 |
//! | `heads` | | | divides `E` |
//! | `iterations` | | | at most 64; published 6 |
//! | `together` | | | whether `c` is the largest of all bags and heads, as published |
//!
//! # Result
//! `y`, `[M, E]`, the heads side by side.
//!
//! # Gradient
//! With `P = A Z`, `U = 15 I - 7 P + P P`, `W = 13 I - P U` and `Z_t+1 = Z W / 4`, from `G = dL/dZ_t+1` back:
//! `dW = Z' G / 4`, `dU = -P' dW`, `dP = -dW U' + dU P' + P' dU - 7 dU`, `dL/dA += dP Z'`, `dL/dZ_t = G W' / 4 + A' dP`. `Z_0`
//! passes `dL/dA += (dL/dZ_0)' / c` and `dL/dc = -<dL/dZ_0, Z_0> / c`, which goes to the first column whose sum is largest;
//! the sum of a row is 1 and passes nothing. `dL/dv = Z' dL/dy`, and the softmax goes back as ever.
//!
//! # Numerics
//! All products in f32, on a device without tensor cores; sums in order. With six iterations `Z` is not yet an inverse: small
//! singular values of `A` are still on their way, which keeps rounding from being blown up by them. The bits depend neither on
//! the number of threads nor, unless `together` is set, on the other bags, and a NaN stays in its bag.
//!
//! # Cost
//! `8 m^3` flops an iteration, bag and head forward, `22 m^3` backward: with 256 landmarks, 8 heads and 6 iterations 6.4 Gflop a
//! bag forward. Keeps `(iterations + 2) m^2` numbers a bag and head. On a device four launches an iteration forward, of
//! all bags and heads at once, and eleven back.
//!
//! # Deviations
//! None of the formula where `together` is set. The published code calculates `c` over all heads and bags of a batch, so that
//! what a patient gets depends on who is in it; without `together` each bag and head has its own
//! (`a_bag_gives_the_same_bits_in_any_batch_unless_they_go_together`).

mod cpu;
mod cuda;

use std::ops::Range;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::shape::Ragged;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// The most landmarks of a bag, and iterations.
const MOST: [usize; 2] = [1024, 64];

/// The inverse between landmarks, applied: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LandmarkInverse {
    /// Heads that `E` is divided into.
    pub heads: usize,
    /// Iterations towards the inverse.
    pub iterations: usize,
    /// Whether all bags and heads start from the largest sum of a column of them all, as published.
    pub together: bool,
}

/// The landmarks of one bag in one head, whose squares lie at `at` of those of all.
#[derive(Clone, Debug)]
struct Task {
    rows: Range<usize>,
    head: usize,
    at: usize,
}

impl Task {
    fn landmarks(&self) -> usize {
        self.rows.len()
    }
}

/// Every bag with landmarks, every head.
fn tasks(bags: &Ragged, heads: usize) -> Vec<Task> {
    let mut at = 0;
    let each = bags.iter().filter(|rows| !rows.is_empty()).flat_map(|rows| (0..heads).map(move |h| (rows.clone(), h)));
    let task = each.map(|(rows, head)| {
        let task = Task { at, head, rows };
        at += task.landmarks() * task.landmarks();
        task
    });
    task.collect()
}

/// Elements of one square of each task.
fn squares(tasks: &[Task]) -> usize {
    tasks.last().map_or(0, |last| last.at + last.landmarks() * last.landmarks())
}

/// Columns of a row, and what scores are multiplied with.
#[derive(Clone, Copy, Debug)]
struct Dims<T> {
    /// Columns of a row, `E`, and of a head, `d`.
    width: usize,
    d: usize,
    scale: T,
}

/// What backward needs besides the arguments: of each task the softmax, all that the inverse was, the largest sum of a column,
/// and which column has it.
struct Kept<T> {
    softmax: Tensor<T>,
    inverse: Vec<Tensor<T>>,
    largest: Tensor<T>,
    column: Tensor<u32>,
}

impl LandmarkInverse {
    /// What landmarks take of `values`, those of the other two being queries and keys.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows or columns do not fit or a bag has too many landmarks, [`Error::Setting`] for heads that do not
    /// divide the columns and for too many iterations.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        queries: &Var<T>,
        keys: &Var<T>,
        values: &Var<T>,
        bags: &Ragged,
    ) -> Result<Var<T>> {
        let op = *self;
        let dims = op.check([queries, keys, values], bags)?;
        let (device, all) = (tape.device(), tasks(bags, op.heads));
        let args = [queries, keys, values].map(|x| x.value().clone());
        let (y, kept) = match device {
            Device::Cpu => cpu::forward(&op, dims, &all, &args),
            Device::Cuda(gpu) => cuda::forward(&op, gpu, dims, &all, &args)?,
        };
        let [y] = tape.record(&[queries, keys, values], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None; 3]) };
            let grads = match device {
                Device::Cpu => cpu::backward(&op, dims, &all, &args, &kept, grad),
                Device::Cuda(gpu) => cuda::backward(&op, gpu, dims, &all, &args, &kept, grad)?,
            };
            Ok(grads.map(Some).into())
        });
        Ok(y)
    }

    fn check<T: Real>(&self, args: [&Var<T>; 3], bags: &Ragged) -> Result<Dims<T>> {
        let op = "landmark_inverse";
        let width = args[0].value().matrix().1;
        if self.heads == 0 || !width.is_multiple_of(self.heads) {
            let want = "a divisor of the width";
            return Err(Error::Setting { name: "landmark_inverse.heads", want, value: self.heads.to_string() });
        }
        if self.iterations > MOST[1] {
            let value = self.iterations.to_string();
            return Err(Error::Setting { name: "landmark_inverse.iterations", want: "at most 64", value });
        }
        for (arg, x) in ["queries", "keys", "values"].into_iter().zip(args) {
            if x.value().matrix() != (bags.rows(), width) {
                let want = format!("[{}, {width}], the landmarks of all bags", bags.rows());
                return Err(Error::Shape { op, arg, want, got: x.shape().to_vec() });
            }
        }
        if bags.longest() > MOST[0] {
            let want = format!("at most {} landmarks a bag", MOST[0]);
            return Err(Error::Shape { op, arg: "bags", want, got: vec![bags.longest()] });
        }
        let d = width / self.heads;
        Ok(Dims { width, d, scale: T::of((d.max(1) as f64).sqrt().recip()) })
    }
}
