//! The layers that models are composed of.

use std::sync::{Arc, OnceLock};

use super::{Builder, Init, ParamId, Pass};
use crate::device::Device;
use crate::element::Real;
use crate::error::Result;
use crate::features::Rows;
use crate::ops::{
    Activation, Affine, AttentionMil, BagDraws, Dropout, DropoutKind, GroupedLinear, LayerNorm, Linear, Standardize,
};
use crate::shape::Ragged;
use crate::tape::Var;
use crate::tensor::Tensor;

/// The deviation of initial weights that keeps the variance of the layer's output near that of its input.
fn fan_in(inputs: usize, activation: Activation) -> Init {
    let gain = if activation == Activation::Relu { 2.0 } else { 1.0 };
    Init::Normal((gain / inputs.max(1) as f64).sqrt())
}

/// A fully connected layer, whose inputs may be standardised by constants.
#[derive(Clone, Debug)]
pub struct Dense<T> {
    op: Linear,
    weight: ParamId,
    bias: Option<ParamId>,
    standard: Option<(Constant<T>, Constant<T>)>,
}

/// A tensor that does not change: on a device there is a copy, made when a pass first asks for it.
#[derive(Clone, Debug)]
struct Constant<T> {
    value: Tensor<T>,
    copy: Arc<OnceLock<Tensor<T>>>,
}

impl<T: Real> Constant<T> {
    fn new(value: Tensor<T>) -> Constant<T> {
        Constant { value, copy: Arc::default() }
    }

    fn on(&self, device: Device) -> Result<Tensor<T>> {
        for known in [Some(&self.value), self.copy.get()].into_iter().flatten() {
            if known.device() == device {
                return Ok(known.clone());
            }
        }
        let copy = self.value.to(device)?;
        // The first device keeps its copy; a second one is served, and forgotten.
        let _ = self.copy.set(copy.clone());
        Ok(copy)
    }
}

impl<T: Real> Dense<T> {
    /// Weights drawn by fan-in, bias zero.
    pub fn new(b: &mut Builder<T>, name: &str, inputs: usize, outputs: usize, activation: Activation) -> Dense<T> {
        b.scope(name, |b| Dense {
            op: Linear { activation },
            weight: b.param("weight", &[outputs, inputs], fan_in(inputs, activation)),
            bias: Some(b.param("bias", &[outputs], Init::Zeros)),
            standard: None,
        })
    }

    /// Without a bias, for a log risk: a Cox loss does not change when all log risks move together.
    pub fn without_bias(b: &mut Builder<T>, name: &str, inputs: usize, outputs: usize) -> Dense<T> {
        let activation = Activation::Identity;
        b.scope(name, |b| Dense {
            op: Linear { activation },
            weight: b.param("weight", &[outputs, inputs], fan_in(inputs, activation)),
            bias: None,
            standard: None,
        })
    }

    /// The same layer over inputs of which `mean` is subtracted and which are divided by `deviation`, both `[I]`.
    pub fn standardized(self, mean: Tensor<T>, deviation: Tensor<T>) -> Dense<T> {
        Dense { standard: Some((Constant::new(mean), Constant::new(deviation))), ..self }
    }

    /// `[N, I]` to `[N, O]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward<'x>(&self, pass: &Pass<'_, T>, x: impl Into<Rows<'x, T>>) -> Result<Var<T>> {
        let weight = pass.param(self.weight);
        match (self.bias.map(|b| pass.param(b)), &self.standard) {
            (Some(bias), Some((mean, deviation))) => {
                let (mean, deviation) = (mean.on(pass.tape.device())?, deviation.on(pass.tape.device())?);
                let (weight, bias) = Standardize.forward(pass.tape, weight, bias, &mean, &deviation)?;
                self.op.forward(pass.tape, x, &weight, Some(&bias))
            }
            (bias, _) => self.op.forward(pass.tape, x, weight, bias),
        }
    }
}

/// A layer norm with weight and bias.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    weight: ParamId,
    bias: ParamId,
}

impl Norm {
    /// Of rows of `width`: weight one, bias zero.
    pub fn new<T: Real>(b: &mut Builder<T>, name: &str, width: usize) -> Norm {
        b.scope(name, |b| Norm {
            weight: b.param("weight", &[width], Init::Ones),
            bias: b.param("bias", &[width], Init::Zeros),
        })
    }

    /// `[N, width]` to the same.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward<T: Real>(&self, pass: &Pass<'_, T>, x: &Var<T>) -> Result<Var<T>> {
        LayerNorm::default().forward(pass.tape, x, Some(pass.param(self.weight)), Some(pass.param(self.bias)))
    }
}

/// Small self-normalising nets, one a signature: `[Linear, ELU, alpha dropout]` twice (the pathway nets of SurvPath).
#[derive(Clone, Debug)]
pub struct GeneNets {
    widths: Ragged,
    /// The hidden values of each net, as a bag.
    between: Ragged,
    hidden: usize,
    width: usize,
    first: (ParamId, ParamId),
    second: (ParamId, ParamId),
    noise: String,
    dropout: Dropout,
}

impl GeneNets {
    /// `widths` has the genes of each signature as a bag; every net goes from them to `hidden` to `width`.
    pub fn new<T: Real>(b: &mut Builder<T>, widths: Ragged, hidden: usize, width: usize, dropout: f64) -> GeneNets {
        let (nets, genes) = (widths.bags(), widths.rows());
        // One deviation a parameter: that of the typical net. A net of few genes starts smaller, which keeps a
        // signature of one gene from outweighing one of two hundred.
        let typical = genes / nets.max(1);
        let layer = |b: &mut Builder<T>, name: &str, inputs: usize, outputs: usize, typical: usize| {
            b.scope(name, |b| {
                let weight = b.param("weight", &[inputs * outputs], fan_in(typical, Activation::Elu));
                (weight, b.param("bias", &[nets, outputs], Init::Zeros))
            })
        };
        let first = layer(b, "first", genes, hidden, typical);
        let second = layer(b, "second", nets * hidden, width, hidden);
        let dropout = Dropout { p: dropout, kind: DropoutKind::Alpha };
        let between = Ragged::uniform(nets, hidden);
        GeneNets { widths, between, hidden, width, first, second, noise: b.path().into(), dropout }
    }

    /// The number of tokens of a patient: one a signature, `S`.
    pub fn tokens(&self) -> usize {
        self.widths.bags()
    }

    /// `[P, genes]` to `[P S, width]`; `bags` are the token rows of each patient of the batch, `patients` draws of any
    /// purpose for them, absent in evaluation.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward<T: Real>(
        &self,
        pass: &Pass<'_, T>,
        x: &Var<T>,
        bags: &Ragged,
        patients: Option<&BagDraws>,
    ) -> Result<Var<T>> {
        let op = GroupedLinear { activation: Activation::Elu };
        let drop = |x: &Var<T>, name: &str| {
            let draws = pass.draws(&format!("{}{name}", self.noise)).zip(patients).map(|(d, p)| p.of_purpose(d));
            self.dropout.forward(pass.tape, x, bags, draws.as_ref())
        };
        let layer = |x: &Var<T>, groups: &Ragged, outputs: usize, (w, b): (ParamId, ParamId)| {
            op.forward(pass.tape, x, groups, outputs, pass.param(w), Some(pass.param(b)))
        };
        let x = layer(x, &self.widths, self.hidden, self.first)?;
        let x = drop(&x, "first.dropout")?;
        let (nets, rows) = (self.tokens(), x.value().matrix().0);
        let x = pass.tape.reshape(&x, &[rows / nets.max(1), nets * self.hidden])?;
        let x = layer(&x, &self.between, self.width, self.second)?;
        drop(&x, "second.dropout")
    }
}

/// Gated or plain attention pooling of tokens, with its parameters (Ilse et al. 2018).
#[derive(Clone, Debug)]
pub struct AttentionPool {
    v: (ParamId, ParamId),
    u: Option<(ParamId, ParamId)>,
    w: ParamId,
}

impl AttentionPool {
    /// Pools tokens of `inputs` features by scores of `heads` heads out of a hidden layer of `width`.
    pub fn new<T: Real>(
        b: &mut Builder<T>,
        name: &str,
        inputs: usize,
        width: usize,
        heads: usize,
        gated: bool,
    ) -> AttentionPool {
        let affine = |b: &mut Builder<T>, name: &str| {
            b.scope(name, |b| {
                let weight = b.param("weight", &[width, inputs], fan_in(inputs, Activation::Tanh));
                (weight, b.param("bias", &[width], Init::Zeros))
            })
        };
        b.scope(name, |b| AttentionPool {
            v: affine(b, "v"),
            u: gated.then(|| affine(b, "u")),
            // No bias: a softmax does not change when all scores move together.
            w: b.param("w.weight", &[heads, width], fan_in(width, Activation::Identity)),
        })
    }

    /// `[N, I]` in bags to the pooled rows `[B, H, I]` and the attention weights `[N, H]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward<T: Real>(&self, pass: &Pass<'_, T>, x: &Var<T>, bags: &Ragged) -> Result<(Var<T>, Var<T>)> {
        let affine = |(w, b): (ParamId, ParamId)| Affine { weight: pass.param(w), bias: Some(pass.param(b)) };
        let w = Affine { weight: pass.param(self.w), bias: None };
        let op = AttentionMil { v: affine(self.v), u: self.u.map(affine), w };
        let pooling = op.forward(pass.tape, x, bags)?;
        Ok((pooling.pooled, pooling.weights))
    }
}
