//! How much memory of a device a batch takes.

use super::{FusionConfig, ModelConfig, Recipe};

/// What decides how much a batch takes, besides the batch.
#[derive(Clone, Debug)]
pub struct Footprint {
    model: ModelConfig,
    /// Genes of all signatures, and signatures; 0 without expression.
    genes: usize,
    signatures: usize,
    /// Bytes of the features of a patch; 0 without patches.
    patch_bytes: usize,
}

/// The size of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Its patients.
    pub patients: usize,
    /// All their patches.
    pub patches: usize,
}

impl Footprint {
    /// Of the models of a recipe over features of `feature_bytes` an element.
    pub fn new(recipe: &Recipe, feature_bytes: usize) -> Footprint {
        let signatures = recipe.genes.as_ref().map_or(&[][..], |genes| &genes.signatures);
        Footprint {
            model: recipe.model.clone(),
            genes: signatures.iter().map(|s| s.genes.len()).sum(),
            signatures: signatures.len(),
            patch_bytes: recipe.patches.as_ref().map_or(0, |patches| patches.width * feature_bytes),
        }
    }

    /// The bytes that a pass over a batch takes besides parameters and optimiser.
    ///
    /// With `D` the width of a token, `G` that of the attention (twice that if it is gated), `H` heads, `E` the hidden
    /// layer of a gene net, and elements of 4 bytes but for the `f` bytes of a stored feature:
    ///
    /// ```text
    /// token = 4 (t D + a G + 6 H + 8)
    /// patch = L f + token
    /// gene  = 16 E + token                      each of S signatures of a patient
    /// batch = patches patch + patients (8 genes + S gene + 32 (H D + 1))
    /// ```
    ///
    /// `t` and `a` count the token-sized and gate-sized tensors that exist at once. In training `t = 5`: the projection,
    /// its dropout, the entangled tokens, and the gradients of two of them; gates are calculated again and lie in shared
    /// memory, but for sums of their gradients, `a = 1/2`. In prediction nothing is kept: `t = 3/2`, `a = 0`. What is taken
    /// is never more, and at least half (tests/device/memory.rs).
    pub fn bytes(&self, batch: BatchSize, training: bool) -> u64 {
        let ModelConfig::Fusion(FusionConfig { width, gene_hidden, attention_width, heads, gated, .. }) = &self.model;
        let gates = attention_width * if *gated { 2 } else { 1 };
        let (twice_t, twice_a) = if training { (10, 1) } else { (3, 0) };
        let token = 2 * (twice_t * width + twice_a * gates + 12 * heads + 16);
        let gene = 4 * 4 * gene_hidden + token;
        let patient = 8 * self.genes + self.signatures * gene + 32 * (heads * width + 1);
        let patch = if self.patch_bytes > 0 { self.patch_bytes + token } else { 0 };
        batch.patches as u64 * patch as u64 + batch.patients as u64 * patient as u64
    }

    /// The bytes of the features alone of so many patches.
    pub fn feature_bytes(&self, patches: usize) -> u64 {
        patches as u64 * self.patch_bytes as u64
    }
}
