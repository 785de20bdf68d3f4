//! What a model sees of some patients.

use crate::device::Device;
use crate::element::Real;
use crate::error::Result;
use crate::features::Features;
use crate::shape::Ragged;
use crate::tensor::Tensor;

/// The inputs of `B` patients. A patient without a modality has an empty bag of it; a batch in which no patient has
/// it has `None`.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    /// Names of the patients for their random draws, `[B]`: [`name32`](crate::rng::name32) of the case ids.
    pub patients: Vec<u32>,
    /// Gene expression of those who have it.
    pub genes: Option<Genes<T>>,
    /// Patches of those who have slides.
    pub patches: Option<Patches>,
}

/// Gene expression of the patients of a batch who have it, in the order of the batch.
#[derive(Clone, Debug)]
pub struct Genes<T> {
    /// Scaled expression, `[P, sum of the genes of the signatures]`: signature after signature, a gene once in each.
    pub values: Tensor<T>,
    /// Which patients of the batch the `P` rows belong to: 1 row or none a patient.
    pub rows: Ragged,
}

/// Patch features of the patients of a batch.
#[derive(Clone, Debug)]
pub struct Patches {
    /// `[N, L]`, as stored.
    pub features: Features,
    /// The patches of each patient, all of whose slides are one bag.
    pub bags: Ragged,
}

impl<T> Batch<T> {
    /// The same batch on a device.
    ///
    /// # Errors
    /// As [`Tensor::to`].
    pub fn to(&self, device: Device) -> Result<Batch<T>>
    where
        T: Real,
    {
        let genes = |g: &Genes<T>| -> Result<_> { Ok(Genes { values: g.values.to(device)?, rows: g.rows.clone() }) };
        let patches =
            |p: &Patches| -> Result<_> { Ok(Patches { features: p.features.to(device)?, bags: p.bags.clone() }) };
        Ok(Batch {
            patients: self.patients.clone(),
            genes: self.genes.as_ref().map(genes).transpose()?,
            patches: self.patches.as_ref().map(patches).transpose()?,
        })
    }

    /// The number of patients, `B`.
    pub fn size(&self) -> usize {
        self.patients.len()
    }
}
