//! Patches taken to gene tokens by unbalanced optimal transport.
//!
//! # Math
//! Xu and Chen 2023 (MOTCat), section 3.3, as its code has it. For the patch tokens `x_i` and the gene tokens `y_j` of one
//! patient, `N` and `S` of them, `x'` and `y'` without their least element:
//!
//! - `M_ij = |x'_i - y'_j|^2`, divided by the largest of the patient; `K = exp(-M / reg)`;
//! - from `u = v = 1`: `u_i = ((1 / N) / sum_j K_ij v_j)^f`, `v_j = ((1 / S) / sum_i K_ij u_i)^f` in turn, `f = tau / (tau + reg)`
//!   (Chizat et al. 2018: marginals are held by a Kullback-Leibler penalty `tau`), until the mean of the largest changes of `u` and of
//!   `v`, each divided by the largest element before and after and at least by 1, is below `tolerance`;
//! - `P_ij = u_i K_ij v_j`, and `o_j = sum_i P_ij x_i`.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `genes` | `[G, D]` | any | |
//! | `gene_bags` | `B` bags of `G` rows | | may be empty |
//! | `patches` | `[N, D]` | any | |
//! | `patch_bags` | `B` bags of `N` rows | | may be empty |
//! | `reg` | | | 0.02 to 100; published 0.1 |
//! | `tau` | | | above 0; published 0.5 |
//! | `tolerance` | | | at least 0; published 1e-6 |
//! | `iterations` | | | at most so many; published 1000 |
//! | `differentiated` | | | whether gradients go through the plan; published they do not |
//!
//! # Result
//! `o`, `[G, D]`, and the plan `P`, `[N, S]` of the longest bag of genes, with zeros where a patient has fewer. A token of a
//! patient without patches gets 0. `P` does not sum to 1 over the patches: that the tokens of a patient share about one unit of mass
//! is the published behaviour. [`weights`](Transport::weights) makes of it how much each patch counts, `[N, 1]`: its row's sum by
//! that of all rows of its patient, so that those of a patient sum to 1, or to 0 without gene tokens.
//!
//! # Gradient
//! `dL/dx_i = sum_j P_ij dL/do_j`. As published the plan is a constant: nothing goes through the costs, and gene tokens get none from
//! here. If it is `differentiated`, what goes through it is added, by the equations that `u` and `v` satisfy in the end: with
//! `g_ij = P_ij <dL/do_j, x_i>`, rows `r_i` and columns `c_j` of `P` summed,
//!
//! - `s_i = sum_j g_ij - f sum_j P_ij t_j / c_j` and `t_j = sum_i g_ij - f sum_i P_ij s_i / r_i`, solved by iteration: an error becomes
//!   `f^2` of itself each time, whatever the plan;
//! - what is owed to `M_ij / max M` is `(f P_ij (s_i / r_i + t_j / c_j) - g_ij) / reg`; the largest gets what is owed to it, and
//!   the least elements what is owed to them.
//!
//! # Numerics
//! On the CPU in f64, in whatever type the tokens are; on a device in f32. Sums over patches go by chunks, chunks in order: bits
//! depend neither on the number of threads nor on the other patients. With costs up to 1 and `reg` of at least 0.02 no element of
//! `K` is below e^-50, so logarithms are not needed. Where all costs of a patient are 0, `M` is 0 (the published code divides
//! by it).
//!
//! # Cost
//! `3 N S D` flops for the costs, `4 N S` and `N` powers an iteration (about 40 of them), `2 N S D` for the result, as much for
//! the gradient, three times as much and about 50 (f64: 100) iterations more through the plan. Keeps `P`, and its arguments
//! if it is differentiated: the costs are calculated again. On a device one block solves a bag, so that a batch of few patients does not fill a card.
//!
//! # Deviations
//! With `differentiated` the gradient is that of the value (`a_plan_that_is_differentiated_has_the_gradient_of_the_value`), which the
//! published one is not: there no gene token learns which patches it should have. The published code rounds the plan to f32. `reg_type` is that of POT 0.9.3, which it asks for: newer releases multiply `K` by
//! the marginals unless they are told not to.

mod cpu;
mod cuda;
mod through;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::shape::Ragged;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Unbalanced optimal transport: see the [module page](self). The default is the published one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transport {
    /// Weight of the entropy.
    pub reg: f64,
    /// Weight of the marginals.
    pub tau: f64,
    /// Change of the scalings that ends the iterations.
    pub tolerance: f64,
    /// The most iterations.
    pub iterations: u32,
    /// Whether gradients go through the plan, to gene tokens, too.
    pub differentiated: bool,
}

impl Default for Transport {
    fn default() -> Transport {
        Transport { reg: 0.1, tau: 0.5, tolerance: 1e-6, iterations: 1000, differentiated: false }
    }
}

impl Transport {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is.
    pub fn check(&self) -> Result<()> {
        let setting = |name, want, value: f64| Err(Error::Setting { name, want, value: value.to_string() });
        if !(0.02..=100.0).contains(&self.reg) {
            return setting("transport.reg", "between 0.02 and 100", self.reg);
        }
        if !(self.tau > 0.0 && self.tau.is_finite()) {
            return setting("transport.tau", "above 0", self.tau);
        }
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return setting("transport.tolerance", "at least 0", self.tolerance);
        }
        Ok(())
    }

    /// What scalings are raised to.
    fn power(&self) -> f64 {
        self.tau / (self.tau + self.reg)
    }

    /// Steps back to the scalings after which an error is `part` of what it was.
    fn steps_back(&self, part: f64) -> u32 {
        let steps = part.ln() / (2.0 * self.power().ln());
        // Where marginals are all but fixed, no more than there.
        steps.ceil().min(1000.0) as u32
    }

    /// What each gene token gets of the patches, and the plan.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows, columns or the number of bags do not fit, [`Error::Setting`] from [`check`](Self::check).
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        genes: (&Var<T>, &Ragged),
        patches: (&Var<T>, &Ragged),
    ) -> Result<(Var<T>, Tensor<T>)> {
        self.check()?;
        let columns = patches.0.value().matrix().1;
        for (arg, (x, bags)) in [("genes", genes), ("patches", patches)] {
            if x.value().matrix() != (bags.rows(), columns) {
                let want = format!("[{}, {columns}], the rows of all bags", bags.rows());
                return Err(Error::Shape { op: "transport", arg, want, got: x.shape().to_vec() });
            }
        }
        if genes.1.bags() != patches.1.bags() {
            let (want, got) = (format!("{} bags, as of genes", genes.1.bags()), vec![patches.1.bags()]);
            return Err(Error::Shape { op: "transport", arg: "patch_bags", want, got });
        }
        let (device, bags) = (tape.device(), [genes.1.clone(), patches.1.clone()]);
        let tokens = [genes.0.value(), patches.0.value()];
        let (out, plan) = match device {
            Device::Cpu => cpu::forward(self, tokens, &bags),
            Device::Cuda(gpu) => cuda::forward(gpu, self, tokens, &bags)?,
        };
        let (op, kept) = (*self, plan.clone());
        // Tokens are kept only if something is calculated with them.
        let tokens = self.differentiated.then(|| tokens.map(Tensor::clone));
        let constant = Var::constant(Tensor::zeros(&[0]));
        let of_genes = if self.differentiated { genes.0 } else { &constant };
        let [out] = tape.record(&[of_genes, patches.0], [out], move |grads| {
            let Some(grad) = &grads[0] else { return Ok(vec![None, None]) };
            let mut of_patches = match device {
                Device::Cpu => cpu::backward(&kept, &bags, grad),
                Device::Cuda(gpu) => cuda::backward(gpu, &kept, &bags, grad)?,
            };
            let Some([genes, patches]) = &tokens else { return Ok(vec![None, Some(of_patches)]) };
            let of_genes = match device {
                Device::Cpu => through::backward(&op, [genes, patches], &bags, &kept, grad, &mut of_patches),
                Device::Cuda(gpu) => cuda::through(gpu, &op, [genes, patches], &bags, &kept, grad, &mut of_patches)?,
            };
            Ok(vec![Some(of_genes), Some(of_patches)])
        });
        Ok((out, plan))
    }

    /// How much each patch counts by a plan of these bags of patches, which lies on `device`: `[N, 1]`, a constant.
    ///
    /// # Errors
    /// [`Error::Shape`] if the plan has not a row a patch.
    pub fn weights<T: Real>(device: Device, plan: &Tensor<T>, bags: &Ragged) -> Result<Tensor<T>> {
        if plan.matrix().0 != bags.rows() {
            let want = format!("[{}, any], the rows of all bags", bags.rows());
            return Err(Error::Shape { op: "transport", arg: "plan", want, got: plan.shape().to_vec() });
        }
        match device {
            Device::Cpu => Ok(cpu::weights(plan, bags)),
            Device::Cuda(gpu) => cuda::weights(gpu, plan, bags),
        }
    }
}
