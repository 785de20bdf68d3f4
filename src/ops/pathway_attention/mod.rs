//! Attention between gene tokens and patch tokens without attention among patches.
//!
//! # Math
//! Jaume et al. 2024 (SurvPath), section 3.3. With queries `q`, keys `k` and values `v` of `d` features a head, of the gene
//! tokens `g` and the patch tokens `p` of one patient:
//!
//! - a gene token attends to all tokens: `o_i = sum_j softmax_j(q_i k_j / sqrt d) v_j`, `j` over `g` and `p` together;
//! - a patch token attends to the gene tokens alone: the same with `j` over `g`.
//!
//! [`guided`](PathwayAttention::guided) is the co-attention of Chen et al. 2021 (MCAT), section 3.2: a gene token attends to
//! the patch tokens alone, `j` over `p`, and nothing else attends. [`among`](PathwayAttention::among) is Vaswani et al. 2017:
//! the tokens of a patient attend to each other.
//!
//! # Arguments
//! | name | shape | unit | constraint |
//! |---|---|---|---|
//! | `genes` | `[G, 3 E]` | any | queries, keys and values side by side; of each, head `h` has the columns from `h d` on |
//! | `gene_bags` | `B` bags of `G` rows | | may be empty |
//! | `patches` | `[N, 3 E]` | any | likewise |
//! | `patch_bags` | `B` bags of `N` rows | | may be empty |
//! | `heads` | | | divides `E`; at most 256 features a head |
//!
//! If it is guided, genes are queries alone, `[G, E]`, and patches keys and values, `[N, 2 E]`.
//!
//! # Result
//! `[G, E]` and `[N, E]`, the heads side by side; `[G, E]` alone if it is guided. A token that has nothing to attend to gets 0.
//!
//! [`weighed`](PathwayAttention::weighed) and [`guided_weighed`](PathwayAttention::guided_weighed) also tell how much each patch
//! counted, `[N, heads]`: `a_j = 1 / |g| sum_i softmax_j(q_i k_j / sqrt d)`, the mean over the gene tokens of its patient. Of a patient
//! these sum to 1 a head if it is guided, and else to what is not the share of the gene tokens; to 0 without gene tokens.
//!
//! # Gradient
//! With the probabilities `w`, `D_ij = <dL/do_i, v_j>` and `s_ij = w_ij (D_ij - <dL/do_i, o_i>)`:
//! `dL/dv_j = sum_i w_ij dL/do_i`, `dL/dq_i = sum_j s_ij k_j / sqrt d`, `dL/dk_j = sum_i s_ij q_i / sqrt d`.
//!
//! # Numerics
//! Scores are never there as a whole: a tile of them at a time, with the largest score and the sum of the exponentials so
//! far (Milakov and Gimelshein 2018); what the backward pass needs again it calculates from the logarithm of that sum, and so
//! do the weights of patches.
//! Patches of a long bag are cut into chunks, joined in their order, so bits depend neither on the number of threads nor
//! on the other patients. On a device in f32 without tensor cores.
//!
//! # Cost
//! `8 G N E` flops forward and `20 G N E` backward for bags of `G` and `N` tokens (patches and genes attend to each other),
//! and half as much for `G G`; half as much if it is guided. Keeps its arguments, its results and a number a row and head: no `G N`.
//! The weights of patches are `2 G N E` more, and `G N` exponentials a head.
//!
//! # Deviations
//! None of the formula. The published code pads the patches of a batch; here bags are ragged.

mod cpu;
mod cuda;

pub(crate) use cuda::KERNELS;

use crate::device::Device;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::shape::Ragged;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// The most features of a head.
const WIDEST: usize = 256;

/// Attention of gene and patch tokens: see the [module page](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathwayAttention {
    /// Heads that `E` is divided into.
    pub heads: usize,
}

/// Columns of a row of queries, keys and values, and who attends.
#[derive(Clone, Copy, Debug)]
struct Dims {
    heads: usize,
    /// Features of a head, `d`.
    d: usize,
    /// Only genes to patches.
    guided: bool,
}

impl Dims {
    /// `E`.
    fn width(self) -> usize {
        self.heads * self.d
    }

    /// The columns of a row of genes and of patches.
    fn steps(self) -> Both<usize> {
        let width = self.width();
        if self.guided { [width, 2 * width] } else { [3 * width; 2] }
    }

    /// The first column of the keys, behind which lie the values; that of the queries is 0.
    fn keys(self) -> usize {
        if self.guided { 0 } else { self.width() }
    }

    /// The columns of the results.
    fn results(self) -> Both<usize> {
        [self.width(), if self.guided { 0 } else { self.width() }]
    }

    /// What scores are multiplied with.
    fn scale<T: Real>(self) -> T {
        T::of((self.d.max(1) as f64).sqrt().recip())
    }
}

/// Of gene tokens and of patch tokens.
type Both<X> = [X; 2];

/// What backward needs besides its arguments.
struct Attended<T> {
    out: Both<Tensor<T>>,
    /// The logarithm of the sum of the exponentials of a row's scores, `[rows, heads]`.
    log_sum: Both<Tensor<T>>,
}

impl PathwayAttention {
    /// What gene tokens and patch tokens attend to.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows, columns or the number of bags do not fit, [`Error::Setting`] if the heads do not.
    pub fn forward<T: Real>(
        &self,
        tape: &Tape<T>,
        genes: (&Var<T>, &Ragged),
        patches: (&Var<T>, &Ragged),
    ) -> Result<Both<Var<T>>> {
        let dims = self.check(genes, patches, false)?;
        Ok(attend(tape, dims, genes, patches)?.0)
    }

    /// The same, and how much each patch counted for the gene tokens of its patient, `[N, heads]`: a constant.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn weighed<T: Real>(
        &self,
        tape: &Tape<T>,
        genes: (&Var<T>, &Ragged),
        patches: (&Var<T>, &Ragged),
    ) -> Result<(Both<Var<T>>, Tensor<T>)> {
        let dims = self.check(genes, patches, false)?;
        let (out, log_sum) = attend(tape, dims, genes, patches)?;
        Ok((out, weights(tape.device(), dims, genes, patches, &log_sum)?))
    }

    /// What gene tokens attend to among the patch tokens: queries of the former, keys and values of the latter.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn guided<T: Real>(
        &self,
        tape: &Tape<T>,
        genes: (&Var<T>, &Ragged),
        patches: (&Var<T>, &Ragged),
    ) -> Result<Var<T>> {
        let dims = self.check(genes, patches, true)?;
        let ([genes, _], _) = attend(tape, dims, genes, patches)?;
        Ok(genes)
    }

    /// The same, and how much each patch counted, as [`weighed`](Self::weighed) gives it.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn guided_weighed<T: Real>(
        &self,
        tape: &Tape<T>,
        genes: (&Var<T>, &Ragged),
        patches: (&Var<T>, &Ragged),
    ) -> Result<(Var<T>, Tensor<T>)> {
        let dims = self.check(genes, patches, true)?;
        let ([out, _], log_sum) = attend(tape, dims, genes, patches)?;
        Ok((out, weights(tape.device(), dims, genes, patches, &log_sum)?))
    }

    /// What the tokens of each bag attend to among themselves: queries, keys and values side by side.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn among<T: Real>(&self, tape: &Tape<T>, tokens: &Var<T>, bags: &Ragged) -> Result<Var<T>> {
        let none = Var::constant(tape.device().zeros(&[0, tokens.value().matrix().1])?);
        let [out, _] = self.forward(tape, (tokens, bags), (&none, &Ragged::uniform(bags.bags(), 0)))?;
        Ok(out)
    }

    fn check<T: Real>(&self, genes: (&Var<T>, &Ragged), patches: (&Var<T>, &Ragged), guided: bool) -> Result<Dims> {
        let columns = genes.0.value().matrix().1;
        let width = if guided { columns } else { columns / 3 };
        if self.heads == 0 || !width.is_multiple_of(self.heads) || width / self.heads > WIDEST {
            let want = "a divisor of the width, with at most 256 features a head";
            return Err(Error::Setting { name: "pathway_attention.heads", want, value: self.heads.to_string() });
        }
        let dims = Dims { heads: self.heads, d: width / self.heads, guided };
        let parts = if guided { ["queries", "keys and values"] } else { ["queries, keys and values"; 2] };
        for (i, (arg, (x, bags))) in [("genes", genes), ("patches", patches)].into_iter().enumerate() {
            let step = dims.steps()[i];
            if x.value().matrix() != (bags.rows(), step) {
                let want = format!("[{}, {step}], {} of the rows of all bags", bags.rows(), parts[i]);
                return Err(Error::Shape { op: "pathway_attention", arg, want, got: x.shape().to_vec() });
            }
        }
        if genes.1.bags() != patches.1.bags() {
            let (want, got) = (format!("{} bags, as of genes", genes.1.bags()), vec![patches.1.bags()]);
            return Err(Error::Shape { op: "pathway_attention", arg: "patch_bags", want, got });
        }
        Ok(dims)
    }
}

/// What tokens attend to, and of the gene tokens the logarithms of the sums.
fn attend<T: Real>(
    tape: &Tape<T>,
    dims: Dims,
    genes: (&Var<T>, &Ragged),
    patches: (&Var<T>, &Ragged),
) -> Result<(Both<Var<T>>, Tensor<T>)> {
    let (device, bags) = (tape.device(), [genes.1.clone(), patches.1.clone()]);
    let packed = [genes.0.value().clone(), patches.0.value().clone()];
    let Attended { out, log_sum } = match device {
        Device::Cpu => cpu::forward(dims, &packed, &bags),
        Device::Cuda(gpu) => cuda::forward(gpu, dims, &packed, &bags)?,
    };
    let of_genes = log_sum[0].clone();
    let kept = Attended { out: out.clone(), log_sum };
    let out = tape.record(&[genes.0, patches.0], out, move |grads| {
        if grads.iter().all(Option::is_none) {
            return Ok(vec![None, None]);
        }
        let given = |of: usize| match &grads[of] {
            Some(grad) => Ok(grad.clone()),
            None => device.zeros(kept.out[of].shape()),
        };
        let grads = [given(0)?, given(1)?];
        let [genes, patches] = match device {
            Device::Cpu => cpu::backward(dims, &packed, &bags, &kept, &grads),
            Device::Cuda(gpu) => cuda::backward(gpu, dims, &packed, &bags, &kept, &grads)?,
        };
        Ok(vec![Some(genes), Some(patches)])
    });
    Ok((out, of_genes))
}

/// How much each patch counts for gene tokens whose sums have these logarithms.
fn weights<T: Real>(
    device: Device,
    dims: Dims,
    genes: (&Var<T>, &Ragged),
    patches: (&Var<T>, &Ragged),
    log_sum: &Tensor<T>,
) -> Result<Tensor<T>> {
    let (packed, bags) = ([genes.0.value(), patches.0.value()], [genes.1, patches.1]);
    match device {
        Device::Cpu => Ok(cpu::weights(dims, packed, bags, log_sum)),
        Device::Cuda(gpu) => cuda::weights(gpu, dims, packed, bags, log_sum),
    }
}
