//! Batches out of a cohort, as a recipe says.

use std::collections::HashMap;

use super::{Batch, Genes, Patches, Recipe, Source};
use crate::data::{Cohort, Modality};
use crate::error::{Error, Result};
use crate::nn::Noise;
use crate::rng::{Draws, name32};
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// A cohort as a model sees it. Patients are indices into those of the cohort.
#[derive(Debug)]
pub struct CohortSource<'a> {
    cohort: &'a Cohort,
    genes: Option<Expression>,
    patches: bool,
    modality_dropout: f64,
}

/// Scaled expression of all patients, and which of its columns each signature reads, signature after signature.
#[derive(Debug)]
struct Expression {
    scaled: Tensor<f32>,
    columns: Vec<usize>,
}

impl<'a> CohortSource<'a> {
    /// Scales the cohort as the recipe says and checks that the model can see it.
    ///
    /// # Errors
    /// Another width of patch features, missing genes, none of the model's modalities, or one that the model was
    /// trained without although nobody chose so.
    pub fn new(recipe: &Recipe, cohort: &'a Cohort) -> Result<CohortSource<'a>> {
        let name = || cohort.name.clone();
        let unseen = [
            (Modality::Genes, cohort.rna.is_some() && recipe.genes.is_none()),
            (Modality::Patches, cohort.slides.is_some() && recipe.patches.is_none()),
        ];
        if let Some(&(modality, _)) = unseen.iter().find(|(_, unseen)| *unseen && !recipe.modalities_chosen) {
            return Err(Error::UnseenModality { cohort: name(), source_cohort: recipe.source.clone(), modality });
        }
        let genes = match (&recipe.genes, &cohort.rna) {
            (Some(inputs), Some(rna)) => {
                let place: HashMap<&str, usize> =
                    inputs.scaler.genes().iter().enumerate().map(|(i, gene)| (gene.as_str(), i)).collect();
                let genes = inputs.signatures.iter().flat_map(|s| &s.genes);
                let column = |gene: &String| {
                    place.get(gene.as_str()).copied().ok_or_else(|| Error::SignatureGene { gene: gene.clone() })
                };
                let columns = genes.map(column).collect::<Result<_>>()?;
                Some(Expression { scaled: inputs.scaler.apply(&cohort.name, rna, inputs.missing)?, columns })
            }
            _ => None,
        };
        let patches = match (&recipe.patches, &cohort.slides) {
            (Some(inputs), Some(bags)) if inputs.width != bags.width() => {
                let (want, got) = (inputs.width, bags.width());
                return Err(Error::PatchWidth { cohort: name(), source_cohort: recipe.source.clone(), want, got });
            }
            (Some(_), Some(_)) => true,
            _ => false,
        };
        if genes.is_none() && !patches {
            return Err(Error::NoInputs { cohort: name() });
        }
        Ok(CohortSource { cohort, genes, patches, modality_dropout: 0.0 })
    }

    /// The same source, hiding one modality of a patient who has both with this probability in training.
    #[must_use]
    pub fn hiding(self, modality_dropout: f64) -> CohortSource<'a> {
        CohortSource { modality_dropout, ..self }
    }

    fn has_genes(&self, p: usize) -> bool {
        self.genes.is_some() && self.cohort.rna.as_ref().is_some_and(|rna| rna.present[p])
    }

    /// Whether this pass shows genes and patches of a patient.
    fn shown(&self, p: usize, name: u32, noise: Option<Noise>) -> (bool, bool) {
        let has = (self.has_genes(p), self.patches(p) > 0);
        let Some(noise) = noise.filter(|_| self.modality_dropout > 0.0 && has == (true, true)) else { return has };
        let stream = Draws::new(noise.seed, noise.epoch, "modality.dropout").of(name);
        if stream.uniform(0) >= self.modality_dropout {
            return has;
        }
        let genes = stream.uniform(1) < 0.5;
        (genes, !genes)
    }
}

impl Source<f32> for CohortSource<'_> {
    fn patients(&self) -> usize {
        self.cohort.len()
    }

    fn patches(&self, p: usize) -> usize {
        self.cohort.slides.as_ref().filter(|_| self.patches).map_or(0, |bags| bags.ragged().bag(p).len())
    }

    fn batch(&self, patients: &[usize], noise: Option<Noise>) -> Result<Batch<f32>> {
        let names: Vec<u32> = patients.iter().map(|&p| name32(&self.cohort.patients[p].case)).collect();
        let shown: Vec<(bool, bool)> =
            patients.iter().zip(&names).map(|(&p, &name)| self.shown(p, name, noise)).collect();
        let genes = self.genes.as_ref().map(|expression| {
            let width = expression.scaled.matrix().1;
            let rows = patients.iter().zip(&shown).filter(|(_, shown)| shown.0);
            let row = |(&p, _): (&usize, _)| &expression.scaled.host()[p * width..(p + 1) * width];
            let values: Vec<f32> = rows.map(row).flat_map(|row| expression.columns.iter().map(|&c| row[c])).collect();
            let rows = Ragged::from_lengths(shown.iter().map(|s| usize::from(s.0)));
            let shape = [rows.rows(), expression.columns.len()];
            Tensor::new(&shape, values).map(|values| Genes { values, rows })
        });
        let patches = self.cohort.slides.as_ref().filter(|_| self.patches).map(|bags| {
            let visible: Vec<usize> = patients.iter().zip(&shown).filter(|(_, s)| s.1).map(|(&p, _)| p).collect();
            let (features, _) = bags.gather(&visible);
            let length = |(&p, shown): (&usize, &(bool, bool))| if shown.1 { bags.ragged().bag(p).len() } else { 0 };
            Patches { features, bags: Ragged::from_lengths(patients.iter().zip(&shown).map(length)) }
        });
        Ok(Batch { patients: names, genes: genes.transpose()?, patches })
    }
}
