//! Dropout, and the form of it that keeps mean and variance behind ELU-like activations.
//!
//! # Math
//! Each element is kept with probability `1 - p`, `m = 1` if kept:
//! - [`Plain`](DropoutKind::Plain) (Srivastava et al. 2014): `y = m x / (1 - p)`.
//! - [`Alpha`](DropoutKind::Alpha) (Klambauer et al. 2017): `y = A (m x + (1 - m) a') + C` with
//!   `a' = -lambda alpha = -1.7580993...` of SELU, `A = ((1 - p)(1 + p a'^2))^(-1/2)`, `C = -A a' p`.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `x` | `[N, D]` | any | |
//! | `bags` | `B` bags of `N` rows | | one patient a bag |
//! | `draws` | `B` patients | | `None`: evaluation |
//!
//! Element `(i, d)` of a bag, `i` counted inside the bag, is kept if and only if word `i D + d` of the patient's
//! stream, as a number in `[0, 1)`, is at least `p`.
//!
//! # Result
//! `y`, `[N, D]`. In evaluation and for `p = 0` it is `x`.
//!
//! # Gradient
//! `dL/dx = m dL/dy` times `1 / (1 - p)` or `A`. The mask is drawn again; nothing is kept.
//!
//! # Numerics
//! One multiplication an element (and one addition for `Alpha`), exact up to its rounding. An element that is dropped
//! does not contribute at all: a NaN or infinity there does not spread.
//!
//! # Cost
//! One word of Philox an element each way (a quarter of a call; twice that on a device where a bag does not start at a
//! multiple of four elements), one read and one write. On a device one launch each way.
//!
//! # Deviations
//! None in the formulas. PyTorch draws other numbers.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::element::Real;
use crate::error::Result;
use crate::ops::tokens::{BagDraws, check_drop_probability, columns};
use crate::shape::Ragged;
use crate::tape::{Tape, Var};

/// What becomes of a dropped element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropoutKind {
    /// It becomes 0, and kept ones grow by `1 / (1 - p)`.
    #[default]
    Plain,
    /// It becomes the value that SELU saturates at, and an affine map restores mean and variance.
    Alpha,
}

/// Dropout: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropout {
    /// The probability of dropping an element, in `[0, 1)`.
    pub p: f64,
    /// What becomes of a dropped element.
    pub kind: DropoutKind,
}

/// `y = scale x + shift` where kept, `dropped` elsewhere.
#[derive(Clone, Copy, Debug)]
struct Affine<T> {
    scale: T,
    shift: T,
    dropped: T,
}

impl Dropout {
    /// Refuses a `p` outside `[0, 1)`.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting).
    pub fn check(&self) -> Result<()> {
        check_drop_probability("dropout.p", self.p)
    }

    /// Drops elements of `x` in training; gives `x` itself in evaluation.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for `p`, [`Error::Shape`](crate::Error::Shape) if the bags do not fit.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        x: &Var<T>,
        bags: &Ragged,
        draws: Option<&BagDraws>,
    ) -> Result<Var<T>> {
        self.check()?;
        columns("dropout", "x", x.value(), bags)?;
        let Some(draws) = draws else { return Ok(x.clone()) };
        draws.check("dropout", bags)?;
        if self.p == 0.0 {
            return Ok(x.clone());
        }
        let (op, bags, draws, device) = (*self, bags.clone(), draws.clone(), tape.device());
        let map = op.affine();
        let y = match device {
            Device::Cpu => cpu::map(op.p, map, x.value(), &bags, &draws),
            Device::Cuda(gpu) => cuda::map(gpu, op.p, map, x.value(), &bags, &draws)?,
        };
        let [y] = tape.record(&[x], [y], move |grads| {
            // The derivative of the map, applied with the same mask.
            let slope = Affine { shift: T::zero(), dropped: T::zero(), ..map };
            let back = |grad| match device {
                Device::Cpu => Ok(cpu::map(op.p, slope, grad, &bags, &draws)),
                Device::Cuda(gpu) => cuda::map(gpu, op.p, slope, grad, &bags, &draws),
            };
            Ok(vec![grads[0].as_ref().map(back).transpose()?])
        });
        Ok(y)
    }

    fn affine<T: Real>(&self) -> Affine<T> {
        let p = self.p;
        match self.kind {
            DropoutKind::Plain => Affine { scale: T::of(1.0 / (1.0 - p)), shift: T::zero(), dropped: T::zero() },
            DropoutKind::Alpha => {
                // lambda and alpha of SELU.
                let limit = -1.050_700_987_355_480_5 * 1.673_263_242_354_377_2;
                let scale = ((1.0 - p) * (1.0 + p * limit * limit)).powf(-0.5);
                let shift = -scale * limit * p;
                Affine { scale: T::of(scale), shift: T::of(shift), dropped: T::of(scale * limit + shift) }
            }
        }
    }
}
