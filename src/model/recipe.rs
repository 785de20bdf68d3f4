//! All that a model needs besides its parameters: which inputs, how they are scaled, how risks are read.
//!
//! It is fitted on the training patients alone and travels in the model file, so that a cohort is predicted from a run
//! folder and nothing else.

use std::collections::HashSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{InputShape, ModelConfig, PatchShape};
use crate::config::{InputConfig, Loss, RunConfig};
use crate::data::{Bags, Bins, Cohort, MissingGenes, Modality, Scaler, Signature};
use crate::element::Real;
use crate::error::{Error, Result};
use crate::ops::cox::Baseline;
use crate::ops::nll_survival::survival_of;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// Inputs, scaling and reading of a model. It is fitted on the training patients alone and travels in the model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The version of onkos that wrote it.
    pub onkos: String,
    /// The cohort it was trained on.
    pub source: String,
    /// The model and its sizes.
    pub model: ModelConfig,
    /// What it was trained to minimise, and so what it gives.
    pub loss: Loss,
    /// Gene expression, if the model sees it.
    pub genes: Option<GeneInputs>,
    /// Patch features, if the model sees them.
    pub patches: Option<PatchInputs>,
    /// Whether the run file named the modalities: then others that a cohort has are left out on purpose.
    pub modalities_chosen: bool,
    /// Time bins of a discrete-time model.
    pub bins: Option<Bins>,
    /// Baseline hazard of a Cox model, from the risks of the training patients.
    pub baseline: Option<Baseline>,
    /// The median risk of the training patients: what divides high from low.
    pub median_risk: f64,
}

/// How a model sees gene expression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneInputs {
    /// Groups of genes, each with its own net; only genes that the source measured.
    pub signatures: Vec<Signature>,
    /// Clipping and scaling by gene name.
    pub scaler: Scaler,
    /// What to do about genes that a cohort has not.
    pub missing: MissingGenes,
}

/// How a model sees patch features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchInputs {
    /// Features of a patch, `L`.
    pub width: usize,
    /// Mean and deviation of each feature over the training patches.
    pub standard: Option<(Vec<f32>, Vec<f32>)>,
}

impl Recipe {
    /// Fits everything that is fitted, on the named patients of the source.
    ///
    /// # Errors
    /// A modality that the run file names and the source has not; no modality at all.
    pub fn fit(config: &RunConfig, source: &Cohort, train: &[usize]) -> Result<Recipe> {
        let inputs = &config.inputs;
        let has = |modality| match modality {
            Modality::Genes => source.rna.is_some(),
            Modality::Patches => source.slides.is_some(),
        };
        if let Some(&modality) = inputs.modalities.iter().find(|&&m| !has(m)) {
            return Err(Error::NoModality { cohort: source.name.clone(), modality });
        }
        let chosen = |modality| inputs.modalities.is_empty() || inputs.modalities.contains(&modality);
        let uses = |modality| has(modality) && chosen(modality) && config.model.sees().contains(&modality);
        if let Some(&modality) = config.model.needs().iter().find(|&&m| !uses(m)) {
            return Err(Error::ModelNeeds { model: config.model.name(), modality, cohort: source.name.clone() });
        }
        let genes = match &source.rna {
            Some(_) if uses(Modality::Genes) => Some(GeneInputs::fit(inputs, source, train)?),
            _ => None,
        };
        let patches = match &source.slides {
            Some(bags) if uses(Modality::Patches) => Some(PatchInputs::fit(inputs, bags, train)?),
            _ => None,
        };
        if genes.is_none() && patches.is_none() {
            return Err(Error::NoInputs { cohort: source.name.clone() });
        }
        let train_config = &config.train;
        let bins = match train_config.loss {
            Loss::Cox => None,
            Loss::Nll => {
                let time: Vec<f64> = train.iter().map(|&p| source.patients[p].time).collect();
                let event: Vec<bool> = train.iter().map(|&p| source.patients[p].event).collect();
                Some(Bins::fit(train_config.bin_rule, &time, &event, train_config.bins)?)
            }
        };
        Ok(Recipe {
            onkos: env!("CARGO_PKG_VERSION").into(),
            source: source.name.clone(),
            model: config.model.clone(),
            loss: train_config.loss,
            genes,
            patches,
            modalities_chosen: !inputs.modalities.is_empty() || config.model.sees().len() < 2,
            bins,
            baseline: None,
            median_risk: 0.0,
        })
    }

    /// Whether a recipe that came out of a file holds together; a sentence if not.
    pub(super) fn check(&self) -> Result<(), String> {
        if (self.loss == Loss::Nll) != self.bins.is_some() {
            return Err("its loss and its time bins do not go together".into());
        }
        if self.genes.as_ref().is_some_and(|g| g.signatures.is_empty())
            || (self.genes.is_none() && self.patches.is_none())
        {
            return Err("it has no inputs".into());
        }
        let lengths = |p: &PatchInputs| {
            p.standard.as_ref().is_none_or(|(mean, deviation)| mean.len() == p.width && deviation.len() == p.width)
        };
        if !self.patches.as_ref().is_none_or(lengths) {
            return Err("its mean and deviation have not the width of its patch features".into());
        }
        if let Some((mean, deviation)) = self.patches.as_ref().and_then(|p| p.standard.as_ref())
            && !(mean.iter().all(|m| m.is_finite()) && deviation.iter().all(|d| d.is_finite() && *d > 0.0))
        {
            return Err("its patch features have a mean that is not finite or a deviation that is not positive".into());
        }
        if let Some(genes) = &self.genes {
            let scaled: HashSet<&str> = genes.scaler.genes().iter().map(String::as_str).collect();
            let mut named = genes.signatures.iter().flat_map(|s| &s.genes);
            if let Some(gene) = named.find(|gene| !scaled.contains(gene.as_str())) {
                return Err(Error::SignatureGene { gene: gene.clone() }.to_string());
            }
        }
        Ok(())
    }

    /// What the model is built for.
    pub fn shape<T: Real>(&self) -> InputShape<T> {
        let tensor = |v: &Vec<f32>| Tensor::from_fn(&[v.len()], |i| T::of(f64::from(v[i])));
        InputShape {
            genes: self.genes.as_ref().map(|g| Ragged::from_lengths(g.signatures.iter().map(|s| s.genes.len()))),
            patches: self.patches.as_ref().map(|p| PatchShape {
                width: p.width,
                standard: p.standard.as_ref().map(|(mean, deviation)| (tensor(mean), tensor(deviation))),
            }),
        }
    }

    /// The width of a prediction: 1 log risk, or one hazard a bin.
    pub fn outputs(&self) -> usize {
        self.bins.as_ref().map_or(1, Bins::len)
    }

    /// The risk of a patient, higher for worse, from a row of the prediction.
    pub fn risk(&self, prediction: &[f32]) -> f64 {
        match self.loss {
            Loss::Cox => f64::from(prediction[0]),
            Loss::Nll => -survival_of(prediction).iter().sum::<f64>(),
        }
    }

    /// The probability that a patient lives beyond a time, from a row of the prediction. For a discrete-time model that
    /// of living through the last bin that has ended by then.
    pub fn survival(&self, prediction: &[f32], time: f64) -> Option<f64> {
        match (self.loss, &self.baseline, &self.bins) {
            (Loss::Cox, Some(baseline), _) => Some(baseline.survival(time, f64::from(prediction[0]))),
            // Not the bin of the time: a bin closed on the right has ended at its edge, and the last one ends too.
            (Loss::Nll, _, Some(bins)) => match bins.edges()[1..].partition_point(|&edge| edge <= time) {
                0 => Some(1.0),
                ended => survival_of(prediction).get(ended - 1).copied(),
            },
            _ => None,
        }
    }
}

impl GeneInputs {
    fn fit(inputs: &InputConfig, source: &Cohort, train: &[usize]) -> Result<GeneInputs> {
        let rna = source.rna.as_ref().expect("the caller saw it");
        let scaler = Scaler::fit(inputs.rna_scaling, rna, train)?;
        let all = || vec![Signature { name: "all genes".into(), genes: rna.genes.clone() }];
        let measured = |s: &Signature| {
            let genes = s.columns(&rna.genes).into_iter().map(|g| rna.genes[g].clone()).collect();
            Signature { name: s.name.clone(), genes }
        };
        let signatures: Vec<Signature> = match source.signatures.as_slice() {
            [] => all(),
            some => some.iter().map(measured).filter(|s| !s.genes.is_empty()).collect(),
        };
        if signatures.is_empty() {
            let want = "such that the source has a gene of one";
            return Err(Error::Setting { name: "signatures", want, value: "of other genes".into() });
        }
        Ok(GeneInputs { signatures, scaler, missing: inputs.missing_genes })
    }
}

impl PatchInputs {
    fn fit(inputs: &InputConfig, bags: &Bags, train: &[usize]) -> Result<PatchInputs> {
        let standard = |moments: Vec<Moments>| {
            // Patient after patient, in their order: the same bits on any number of threads.
            let all = moments.into_iter().fold(Moments::none(bags.width()), Moments::join);
            let n = all.rows.max(1) as f64;
            // Asked of the f32, in which a tiny deviation is 0.
            let deviation = |m2: &f64| Some((m2 / n).sqrt() as f32).filter(|d| *d > 0.0).unwrap_or(1.0);
            (all.mean.iter().map(|m| *m as f32).collect(), all.m2.iter().map(deviation).collect())
        };
        let moments = || {
            let of_each: Vec<Result<Moments>> = train.par_iter().map(|&p| Moments::of(bags, p)).collect();
            of_each.into_iter().collect::<Result<Vec<Moments>>>()
        };
        let standard = inputs.standardize_patches.then(moments).transpose()?.map(standard);
        Ok(PatchInputs { width: bags.width(), standard })
    }
}

/// Count, mean and sum of squared differences from it, of each feature.
struct Moments {
    rows: usize,
    mean: Vec<f64>,
    m2: Vec<f64>,
}

impl Moments {
    fn none(width: usize) -> Moments {
        Moments { rows: 0, mean: vec![0.0; width], m2: vec![0.0; width] }
    }

    /// Of the rows of a bag, from its sums of differences from its first row and of their squares: nothing is lost where the values
    /// of a feature are alike, and those of a feature that has one value are 0.
    fn of(bags: &Bags, patient: usize) -> Result<Moments> {
        let width = bags.width();
        let (mut first, mut sum, mut square) = (Vec::new(), vec![0.0; width], vec![0.0; width]);
        let (mut rows, mut row) = (0, vec![0.0f32; width]);
        bags.look_at(patient, |bytes| {
            for bytes in bytes.chunks_exact(width * bags.dtype().bytes()) {
                bags.dtype().read_all(bytes, &mut row);
                if rows == 0 {
                    first = row.clone();
                }
                rows += 1;
                for (((x, first), sum), square) in row.iter().zip(&first).zip(&mut sum).zip(&mut square) {
                    let apart = f64::from(*x) - f64::from(*first);
                    *sum += apart;
                    *square += apart * apart;
                }
            }
        })?;
        if rows == 0 {
            return Ok(Moments::none(width));
        }
        let n = rows as f64;
        let mean = first.iter().zip(&sum).map(|(first, sum)| f64::from(*first) + sum / n).collect();
        let m2 = sum.iter().zip(&square).map(|(sum, square)| (square - sum * sum / n).max(0.0)).collect();
        Ok(Moments { rows, mean, m2 })
    }

    /// Chan, Golub and LeVeque's update of two sets into one.
    fn join(self, other: Moments) -> Moments {
        let rows = self.rows + other.rows;
        if self.rows == 0 || other.rows == 0 {
            return if self.rows == 0 { other } else { self };
        }
        let (n, share) = (rows as f64, other.rows as f64 / rows as f64);
        let each = |i: usize| {
            let apart = other.mean[i] - self.mean[i];
            let m2 = self.m2[i] + other.m2[i] + apart * apart * self.rows as f64 * other.rows as f64 / n;
            (self.mean[i] + apart * share, m2)
        };
        let (mean, m2) = (0..self.mean.len()).map(each).unzip();
        Moments { rows, mean, m2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SyntheticStudy;

    /// From formulas of two passes in f64 over gathered rows.
    #[test]
    fn patches_are_standardized_by_the_mean_and_deviation_of_the_training_rows() {
        let folder = tempfile::tempdir().unwrap();
        let [file, _] = SyntheticStudy { seed: 3, patients: 12 }.write(folder.path()).unwrap();
        let bags = Cohort::open(file).unwrap().slides.unwrap();
        let train = [7, 0, 4, 9];
        let inputs = PatchInputs::fit(&InputConfig::default(), &bags, &train).unwrap();
        let (mean, deviation) = inputs.standard.expect("the default");
        let (features, rows) = bags.gather(&train).unwrap();
        let crate::features::Features::F16(x) = &features else { panic!("the study is in F16") };
        let n = rows.rows() as f64;
        assert!(n > 100.0 && rows.iter().all(|bag| bag.len() > 1));
        for column in 0..bags.width() {
            let values = || x.host().iter().skip(column).step_by(bags.width()).map(|x| x.to_f64());
            let want = values().sum::<f64>() / n;
            let spread = (values().map(|x| (x - want).powi(2)).sum::<f64>() / n).sqrt();
            let near =
                |got: f32, want: f64| (f64::from(got) - want).abs() <= f64::from(f32::EPSILON) * want.abs().max(1e-3);
            assert!(near(mean[column], want) && near(deviation[column], spread), "{column}: {want} {spread}");
        }
    }
}
