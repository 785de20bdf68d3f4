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
    /// With `D` the width of a token, `A` that of the attention (twice if it is gated), `H` heads, `E` the hidden layer
    /// of a gene net, tokens of 4 bytes an element:
    ///
    /// ```text
    /// token  = 4 (t D + a A + 6 H + 8)
    /// patch  = L f + token
    /// gene   = 4 (4 E) + token                  each of S signatures of a patient
    /// batch  = patches patch + patients (4 (2 genes + S gene) + 64 (H D + 1))
    /// ```
    ///
    /// `t` and `a` count the token-sized and gate-sized tensors that exist at once. In training `t = 7`: the projection,
    /// its dropout, the masked and the entangled tokens, and the gradients of two of them and of their sum; `a = 2`: the
    /// gates and their gradient. In prediction nothing is kept: `t = 3`, `a = 1`.
    pub fn bytes(&self, batch: BatchSize, training: bool) -> u64 {
        let ModelConfig::Fusion(FusionConfig { width, gene_hidden, attention_width, heads, gated, .. }) = &self.model;
        let gates = attention_width * if *gated { 2 } else { 1 };
        let (t, a) = if training { (7, 2) } else { (3, 1) };
        let token = 4 * (t * width + a * gates + 6 * heads + 8);
        let gene = 4 * 4 * gene_hidden + token;
        let patient = 4 * 2 * self.genes + self.signatures * gene + 64 * (heads * width + 1);
        let patch = if self.patch_bytes > 0 { self.patch_bytes + token } else { 0 };
        batch.patches as u64 * patch as u64 + batch.patients as u64 * patient as u64
    }

    /// The bytes of the features alone of so many patches.
    pub fn feature_bytes(&self, patches: usize) -> u64 {
        patches as u64 * self.patch_bytes as u64
    }
}
