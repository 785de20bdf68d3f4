//! Convolutions over the square grids that the tokens of each bag lie on: the positional layer of TransMIL (PPEG).
//!
//! # Math
//! A bag is `lead` tokens and then `s s` others, the cells of a grid, row by row. The first, the class token of
//! TransMIL, pass as they are. For the cell in row `p` and column `q`, with convolutions `m` of `S_m` by `S_m` weights
//! each:
//!
//! `y_pqd = x_pqd + sum over m of (b_md + sum over u and v of W_mduv x_(p + u - (S_m - 1) / 2)(q + v - (S_m - 1) / 2)d)`,
//!
//! with zeros outside of the grid: cross-correlations of each channel alone. In the code of [Shao 2021] there are three,
//! of 7, 5 and 3.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, D]` | any | |
//! | `bags` | `B` bags of `N` rows | | each is empty, or has `lead` rows and a square number of others, which may be 0 |
//! | `convolutions[m].weight` | `[D, S_m S_m]` | | `S_m` is 3, 5 or 7; `u S_m + v` counts the columns |
//! | `convolutions[m].bias` | `[D]` | | optional; none is zero |
//!
//! # Result
//! `y`, `[N, D]`; without convolutions it is `x`.
//!
//! # Gradient
//! Cells of `dL/dx` are those of `dL/dy` with the same convolutions of it added, their weights in reverse order and
//! without biases; leading rows are those of `dL/dy`. `dL/dW_mduv` is the sum over all cells of `dL/dy_pqd` times the
//! `x` that it was multiplied by, `dL/db_md` that of `dL/dy_pqd`.
//!
//! # Numerics
//! In the type of the input. Convolutions are added up first, centre on centre: they are linear, and one of the largest
//! size does for all of them. So the gradients of their biases are the same, and those of the smaller weights are cut
//! out of that of the largest. Then come the products, the bias and at last `x`, each in the same order wherever a bag
//! lies in a batch. Gradients of weights and biases are added over fixed chunks of cells, the chunks in order: the bits
//! do not depend on the number of threads. A NaN reaches the cells that the largest weights reach from it, in its bag
//! and channel; in the gradients of weights, any of its channel.
//!
//! # Cost
//! `2 S S` flops an element for the largest `S`, each for the result and for either gradient; apart, 7, 5 and 3 would
//! need 1.7 times as many, and read and write three times. Floor of memory: 8 bytes an element forward, 12 backward.
//! Keeps `x` and `S S + 1` numbers a channel. On a device a launch for each convolution and one more forward; two and
//! one for each backward, 16 bytes an element, since `x` and `dL/dy` are tiled apart. Tiles are 16 by 16 cells of 16
//! channels in shared memory with the cells around them, 1.9 times as many for `S = 7`, most of the second reading from
//! the cache; a thread has 16 cells of a row of a channel in registers, so that one read of shared memory serves four
//! additions. With 12 flops a byte cards are near the bound of arithmetic; on the CPU arithmetic takes longer than
//! memory.
//!
//! # Deviations
//! The published layer has one grid for a batch, and the class token in front of it; here each bag has its own, and any
//! number of rows in front (`bags_have_grids_of_their_own`). Values are those of the published code
//! (`the_positional_layer_is_that_of_the_published_code`).

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::{Device, Mirror};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::ops::tokens::columns;
use crate::shape::Ragged;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// The convolution of each channel alone: a square of weights, and what is added.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a, T> {
    /// `[D, S * S]`, row by row.
    pub weight: &'a Var<T>,
    /// `[D]`; none is zero.
    pub bias: Option<&'a Var<T>>,
}

/// Convolutions over the grids of bags: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridConv {
    /// The rows before the cells of each bag, which pass.
    pub lead: usize,
}

impl Default for GridConv {
    /// One class token.
    fn default() -> GridConv {
        GridConv { lead: 1 }
    }
}

/// Where the cells of a batch lie, checked when it is made.
#[derive(Clone, Debug)]
struct Grids {
    bags: Ragged,
    lead: usize,
    /// The cells of a row, and the rows, of each bag's grid.
    sides: Vec<usize>,
    /// What a device calculates in blocks of their own.
    tiles: Mirror<u32>,
}

/// All convolutions in one.
#[derive(Clone, Debug)]
struct Merged<T> {
    /// `[S * S + 1, D]`: what each channel has for each weight, then its bias.
    table: Tensor<T>,
    /// `S`.
    size: usize,
}

impl Grids {
    fn new<T: Real>(op: GridConv, x: &Var<T>, bags: &Ragged) -> Result<Grids> {
        let lead = op.lead;
        let side = |(b, rows): (usize, usize)| {
            let side = rows.saturating_sub(lead).isqrt();
            if rows == 0 || rows == lead + side * side {
                return Ok(side);
            }
            let fits = [side, side + 1].map(|side| lead + side * side);
            let fits = if rows < lead { lead.to_string() } else { format!("{} or {}", fits[0], fits[1]) };
            let want = format!("[{fits}, D] in bag {b}, {lead} leading rows and a square number of others");
            Err(Error::Shape { op: "grid_conv", arg: "x", want, got: vec![rows, x.value().matrix().1] })
        };
        let sides = bags.iter().map(|bag| bag.len()).enumerate().map(side).collect::<Result<Vec<usize>>>()?;
        let tiles = cuda::tiles(bags, &sides).into();
        Ok(Grids { bags: bags.clone(), lead, sides, tiles })
    }
}

/// The side of a square of weights, if it is one that there are kernels for.
fn side(weights: usize) -> Option<usize> {
    [3, 5, 7].into_iter().find(|side| side * side == weights)
}

impl GridConv {
    /// Adds to each cell what the convolutions make of those around it.
    ///
    /// # Errors
    /// [`Error::Shape`] for shapes that do not fit, and for a bag whose rows, but for the leading ones, are no square.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        x: &Var<T>,
        bags: &Ragged,
        convolutions: &[Depthwise<'_, T>],
    ) -> Result<Var<T>> {
        let size = check(x, bags, convolutions)?;
        let grids = Grids::new(*self, x, bags)?;
        if convolutions.is_empty() {
            return Ok(x.clone());
        }
        let (device, kept) = (tape.device(), x.value().clone());
        let merged = match device {
            Device::Cpu => cpu::merged(convolutions, size),
            Device::Cuda(gpu) => cuda::merged(gpu, convolutions, size)?,
        };
        let y = match device {
            Device::Cpu => cpu::convolved(&kept, &grids, &merged, false),
            Device::Cuda(gpu) => cuda::convolved(gpu, &kept, &grids, &merged, false)?,
        };
        let (mut inputs, mut sides) = (vec![x], Vec::new());
        for Depthwise { weight, bias } in convolutions {
            inputs.push(*weight);
            inputs.extend(bias);
            sides.push((side(weight.shape()[1]).expect("checked above"), bias.is_some()));
        }
        let absent = vec![None; inputs.len()];
        let [y] = tape.record(&inputs, [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(absent) };
            let (dx, parameters) = match device {
                Device::Cpu => {
                    (cpu::convolved(grad, &grids, &merged, true), cpu::of_parameters(&kept, &grids, size, &sides, grad))
                }
                Device::Cuda(gpu) => (
                    cuda::convolved(gpu, grad, &grids, &merged, true)?,
                    cuda::of_parameters(gpu, &kept, &grids, size, &sides, grad)?,
                ),
            };
            Ok([dx].into_iter().chain(parameters).map(Some).collect())
        });
        Ok(y)
    }
}

/// The largest side of all weights.
fn check<T: Real>(x: &Var<T>, bags: &Ragged, convolutions: &[Depthwise<'_, T>]) -> Result<usize> {
    let op = "grid_conv";
    let columns = columns(op, "x", x.value(), bags)?;
    let mut largest = 0;
    for Depthwise { weight, bias } in convolutions {
        let side = match weight.shape() {
            &[channels, weights] if channels == columns => side(weights),
            _ => None,
        };
        let Some(side) = side else {
            let want = format!("[{columns}, 9], [{columns}, 25] or [{columns}, 49]");
            return Err(Error::Shape { op, arg: "weight", want, got: weight.shape().to_vec() });
        };
        if let Some(bias) = bias
            && bias.shape() != [columns]
        {
            return Err(Error::Shape { op, arg: "bias", want: format!("[{columns}]"), got: bias.shape().to_vec() });
        }
        largest = largest.max(side);
    }
    Ok(largest)
}
