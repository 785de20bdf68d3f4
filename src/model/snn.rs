//! A self-normalising network on gene expression alone (Klambauer et al. 2017).
//!
//! ```text
//! expression [P, sum of genes]
//!   | linear, ELU, alpha dropout, so many times
//! [P, D]
//!   | head: linear
//! log risk [B, 1] or hazard logits [B, K]
//! ```
//!
//! The defaults are the small network of the SurvPath repository. It sees the genes of all signatures; one of several of them
//! comes once for each, where the published network has every gene once.
//!
//! # Where it deviates from the published code
//! - A patient without expression gets the risk of a last hidden layer of zeros.
//! - For a log risk the last layer has no bias.

use serde::{Deserialize, Serialize};

use super::{Attention, Batch, InputShape, Output};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::nn::{Builder, Dense, Pass};
use crate::ops::{Activation, BagDraws, Dropout, DropoutKind, SegmentMean};
use crate::tape::Var;

/// Sizes and settings of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnnConfig {
    /// Widths of the hidden layers.
    pub widths: Vec<usize>,
    /// Alpha dropout behind each.
    pub dropout: f64,
}

impl Default for SnnConfig {
    fn default() -> SnnConfig {
        SnnConfig { widths: vec![256, 256], dropout: 0.25 }
    }
}

impl SnnConfig {
    /// Refuses settings outside their range.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is.
    pub fn check(&self) -> Result<()> {
        if !(1..=64).contains(&self.widths.len()) {
            let (name, want) = ("model.widths", "1 to 64 widths");
            return Err(Error::Setting { name, want, value: format!("{:?}", self.widths) });
        }
        self.widths.iter().try_for_each(|&width| super::size("model.widths", width))?;
        super::probability("model.dropout", self.dropout)
    }
}

/// The layers of the network.
#[derive(Clone, Debug)]
pub struct Snn<T> {
    config: SnnConfig,
    hidden: Vec<Dense<T>>,
    risk: Dense<T>,
}

impl<T: Real> Snn<T> {
    pub(super) fn new(b: &mut Builder<T>, config: &SnnConfig, shape: &InputShape<T>, outputs: usize) -> Result<Snn<T>> {
        let Some(genes) = &shape.genes else {
            let want = "\"abmil\" or \"fusion\" where there are no genes, which snn needs";
            return Err(Error::Setting { name: "model.name", want, value: "snn".into() });
        };
        let mut inputs = genes.rows();
        let hidden = b.scope("genes", |b| {
            let layer = |(i, &width): (usize, &usize)| {
                let layer = Dense::new(b, &format!("hidden{i}"), inputs, width, Activation::Elu);
                inputs = width;
                layer
            };
            config.widths.iter().enumerate().map(layer).collect()
        });
        let risk = b.scope("head", |b| super::risk_layer(b, inputs, outputs));
        Ok(Snn { config: config.clone(), hidden, risk })
    }

    pub(super) fn forward(&self, pass: &Pass<'_, T>, batch: &Batch<T>) -> Result<Output<T>> {
        let patients = pass.draws("").map(|d| BagDraws::new(d, batch.patients.as_slice()));
        let hidden = match &batch.genes {
            None => {
                let width = self.config.widths.last().copied().unwrap_or(0);
                Var::constant(pass.tape.device().zeros(&[batch.size(), width])?)
            }
            Some(genes) => {
                let mut x = Var::constant(genes.values.clone());
                for (i, layer) in self.hidden.iter().enumerate() {
                    let draws = pass.draws(&format!("genes.hidden{i}.dropout"));
                    let draws = draws.zip(patients.as_ref()).map(|(d, p)| p.of_purpose(d));
                    let dropout = Dropout { p: self.config.dropout, kind: DropoutKind::Alpha };
                    x = dropout.forward(pass.tape, &layer.forward(pass, &x)?, &genes.rows, draws.as_ref())?;
                }
                // One row or none a patient.
                SegmentMean.forward(pass.tape, &x, &genes.rows)?
            }
        };
        let attention = Attention { patches: None, genes: None };
        Ok(Output { prediction: self.risk.forward(pass, &hidden)?, attention })
    }
}
