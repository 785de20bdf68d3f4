//! Layer normalisation.
//!
//! # Math
//! Ba, Kiros and Hinton 2016, equations 3 and 4, over the columns of each row:
//! `y = (x - mean) / sqrt(var + eps) * weight + bias` with the variance divided by `D`.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, D]` | any | |
//! | `weight` | `[D]` | | optional; none is one |
//! | `bias` | `[D]` | | optional; none is zero |
//!
//! # Result
//! `y`, `[N, D]`.
//!
//! # Gradient
//! With `z = (x - mean) / sd`, `sd = sqrt(var + eps)`, `g = dL/dy * weight`:
//! `dL/dx = (g - mean(g) - z mean(g z)) / sd`; `dL/dweight` is the sum over the rows of `dL/dy z`, `dL/dbias` of `dL/dy`.
//!
//! # Numerics
//! Two passes over a row: the variance is a mean of squared differences, which does not cancel. A NaN stays in its row.
//! Sums over the rows in fixed groups. On a device the same two passes, over registers; groups of rows that depend on the
//! shape alone, so every card gives the same sums.
//!
//! # Cost
//! About `8 N D` flops forward and `14 N D` backward: bound by memory, one pass each way. Keeps `x`. On a device one launch
//! forward and two backward, 8 and 12 bytes an element; above 1024 columns rows are read again, from the cache forward and
//! for the sums of weight and bias from memory (20 bytes backward, three launches).
//!
//! # Deviations
//! None. As in PyTorch, `eps` is under the root.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Layer normalisation: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
}

impl Default for LayerNorm {
    fn default() -> LayerNorm {
        LayerNorm { eps: 1e-5 }
    }
}

impl LayerNorm {
    /// Normalises each row.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not fit, [`Error::Setting`] if `eps` is not a positive number.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        x: &Var<T>,
        weight: Option<&Var<T>>,
        bias: Option<&Var<T>>,
    ) -> Result<Var<T>> {
        self.check(x, weight, bias)?;
        let (op, device, kept) = (*self, tape.device(), x.value().clone());
        let value = |v: Option<&Var<T>>| v.map(|v| v.value().clone());
        let (w, b) = (value(weight), value(bias));
        let y = match device {
            Device::Cpu => cpu::forward(op, &kept, w.as_ref(), b.as_ref()),
            Device::Cuda(gpu) => cuda::forward(gpu, op, &kept, w.as_ref(), b.as_ref())?,
        };
        let absent = Var::constant(Tensor::zeros(&[0]));
        let [y] = tape.record(&[x, weight.unwrap_or(&absent), bias.unwrap_or(&absent)], [y], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None; 3]) };
            let (dx, dw, db) = match device {
                Device::Cpu => cpu::backward(op, &kept, w.as_ref(), grad),
                Device::Cuda(gpu) => cuda::backward(gpu, op, &kept, w.as_ref(), grad)?,
            };
            Ok(vec![Some(dx), w.map(|_| dw), b.map(|_| db)])
        });
        Ok(y)
    }

    fn check<T: Real>(&self, x: &Var<T>, weight: Option<&Var<T>>, bias: Option<&Var<T>>) -> Result<()> {
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            let value = self.eps.to_string();
            return Err(Error::Setting { name: "layer_norm.eps", want: "positive and finite", value });
        }
        let (_, columns) = x.value().matrix();
        for (arg, given) in [("weight", weight), ("bias", bias)] {
            if let Some(given) = given
                && given.shape() != [columns]
            {
                let (want, got) = (format!("[{columns}]"), given.shape().to_vec());
                return Err(Error::Shape { op: "layer_norm", arg, want, got });
            }
        }
        Ok(())
    }
}
