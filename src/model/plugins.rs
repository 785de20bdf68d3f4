//! What is plugged into a model where its gene tokens and its patch tokens meet: the token mask and gain (SDIR), and the
//! mixing of token statistics (CADE); and before them, on patch tokens alone, the mixing of channel statistics between
//! patients (MixStyle), the unimodal ancestor of CADE.

use serde::{Deserialize, Serialize};

use super::Genes;
use crate::element::Real;
use crate::error::{Error, Result};
use crate::nn::{GeneNets, Pass};
use crate::ops::sdir::Gain;
use crate::ops::{BagDraws, Cade, MixStyle, Sdir};
use crate::shape::Ragged;
use crate::tape::Var;

/// Where the token mask and gain act. Slides are the strong modality, genes the weak one. `genes = false` in a run file
/// switches one off; a table starts from the published settings (half of the tokens masked, no gain).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SdirConfig {
    /// On gene tokens. A gain here measures weakness by the energy of the patch tokens. Ours, when absent: a quarter
    /// masked, and a Gaussian gain.
    #[serde(with = "super::off")]
    pub genes: Option<Sdir>,
    /// On patch tokens. As published, when absent: half masked.
    #[serde(with = "super::off")]
    pub patches: Option<Sdir>,
}

impl SdirConfig {
    /// Off on both modalities.
    pub const OFF: SdirConfig = SdirConfig { genes: None, patches: None };
}

impl Default for SdirConfig {
    fn default() -> SdirConfig {
        let genes = Sdir { p: 0.25, gain: Gain::Gaussian { gamma: 1.0, k: 1.0 }, ..Sdir::default() };
        SdirConfig { genes: Some(genes), patches: Some(Sdir::default()) }
    }
}

impl SdirConfig {
    /// Refuses settings outside their range.
    pub(super) fn check(&self) -> Result<()> {
        for sdir in [&self.genes, &self.patches].into_iter().flatten() {
            sdir.check()?;
        }
        if self.patches.is_some_and(|sdir| sdir.gain.is_active()) {
            let want = "none: slides are the strong modality, a gain belongs in model.sdir.genes";
            return Err(Error::Setting { name: "model.sdir.patches.gain", want, value: "set".into() });
        }
        Ok(())
    }
}

/// Tokens of one modality: rows in bags, one bag a patient.
pub(super) struct Tokens<T> {
    pub(super) rows: Var<T>,
    pub(super) bags: Ragged,
}

impl<T: Real> Tokens<T> {
    /// Those that the nets of the signatures make of expression; no rows of a patient without it.
    pub(super) fn of_genes(
        pass: &Pass<'_, T>,
        nets: &GeneNets,
        genes: &Genes<T>,
        patients: Option<&BagDraws>,
    ) -> Result<Tokens<T>> {
        let bags = Ragged::from_lengths(genes.rows.iter().map(|rows| rows.len() * nets.tokens()));
        let rows = nets.forward(pass, &Var::constant(genes.values.clone()), &bags, patients)?;
        Ok(Tokens { rows, bags })
    }

    /// Of patients without a modality: no rows.
    pub(super) fn none(pass: &Pass<'_, T>, patients: usize, width: usize) -> Result<Tokens<T>> {
        let rows = Var::constant(pass.tape.device().zeros(&[0, width])?);
        Ok(Tokens { rows, bags: Ragged::uniform(patients, 0) })
    }
}

/// Gene tokens and patch tokens, as far as there are any.
pub(super) type Both<T> = (Option<Tokens<T>>, Option<Tokens<T>>);

/// The modules of a model, as its settings have them.
pub(super) struct Plugins<'a> {
    pub(super) sdir: &'a SdirConfig,
    pub(super) cade: Option<&'a Cade>,
    pub(super) mixstyle: Option<&'a MixStyle>,
}

/// Patch tokens with their channel statistics mixed between the patients of the batch, in training.
pub(super) fn mix<T: Real>(
    pass: &Pass<'_, T>,
    mixstyle: Option<&MixStyle>,
    patches: Tokens<T>,
    draws: &impl Fn(&str) -> Option<BagDraws>,
) -> Result<Tokens<T>> {
    let Some(mixstyle) = mixstyle else { return Ok(patches) };
    let rows = mixstyle.forward(pass.tape, &patches.rows, &patches.bags, draws("mixstyle").as_ref())?;
    Ok(Tokens { rows, ..patches })
}

impl Plugins<'_> {
    /// The tokens, those of patches mixed between patients, all rebalanced and, where there are both, entangled. `draws` gives
    /// those of a purpose, absent in evaluation.
    pub(super) fn apply<T: Real>(
        &self,
        pass: &Pass<'_, T>,
        genes: Option<Tokens<T>>,
        patches: Option<Tokens<T>>,
        draws: &impl Fn(&str) -> Option<BagDraws>,
    ) -> Result<Both<T>> {
        let patches = patches.map(|patches| mix(pass, self.mixstyle, patches, draws)).transpose()?;
        Ok(match (self.rebalance(pass, genes, patches, draws)?, self.cade) {
            ((Some(g), Some(p)), Some(cade)) => {
                let [rows_g, rows_p] = self.entangle(pass, cade, [&g, &p], draws)?;
                (Some(Tokens { rows: rows_g, ..g }), Some(Tokens { rows: rows_p, ..p }))
            }
            (both, _) => both,
        })
    }

    fn rebalance<T: Real>(
        &self,
        pass: &Pass<'_, T>,
        genes: Option<Tokens<T>>,
        patches: Option<Tokens<T>>,
        draws: &impl Fn(&str) -> Option<BagDraws>,
    ) -> Result<Both<T>> {
        let (strong_draws, weak_draws) = (draws("sdir.patches"), draws("sdir.genes"));
        // A mask without a gain waits until the entanglement applies it on the way in and saves a pass.
        let entangled = self.cade.is_some() && genes.is_some() && patches.is_some();
        let genes = match (genes, self.sdir.genes) {
            (Some(tokens), Some(sdir)) => {
                let scale = match (&patches, sdir.gain.is_active()) {
                    (Some(strong), true) => {
                        let mask = self.sdir.patches.unwrap_or(Sdir { p: 0.0, ..Sdir::default() });
                        Some(mask.strong_scale(strong.rows.value(), &strong.bags, strong_draws.as_ref())?)
                    }
                    // Without a strong modality there is nothing to be weak against: a scale of 0 has no gain.
                    (None, true) => Some(pass.tape.device().zeros(&[tokens.bags.bags()])?),
                    (_, false) => None,
                };
                if entangled && !sdir.gain.is_active() {
                    Some(tokens)
                } else {
                    let rows =
                        sdir.forward(pass.tape, &tokens.rows, &tokens.bags, weak_draws.as_ref(), scale.as_ref())?;
                    Some(Tokens { rows, ..tokens })
                }
            }
            (tokens, _) => tokens,
        };
        let patches = match (patches, self.sdir.patches) {
            (Some(tokens), Some(sdir)) if !entangled => {
                let rows = sdir.forward(pass.tape, &tokens.rows, &tokens.bags, strong_draws.as_ref(), None)?;
                Some(Tokens { rows, ..tokens })
            }
            (tokens, _) => tokens,
        };
        Ok((genes, patches))
    }

    fn entangle<T: Real>(
        &self,
        pass: &Pass<'_, T>,
        cade: &Cade,
        [genes, patches]: [&Tokens<T>; 2],
        draws: &impl Fn(&str) -> Option<BagDraws>,
    ) -> Result<[Var<T>; 2]> {
        let mask = |sdir: Option<Sdir>, tokens: &Tokens<T>, name: &str| match sdir {
            // Masked and scaled already, before its gain.
            Some(sdir) if sdir.gain.is_active() => Ok(sdir.mask(&tokens.bags, draws(name).as_ref())?.applied()),
            Some(sdir) => sdir.mask(&tokens.bags, draws(name).as_ref()),
            None => Sdir::default().mask(&tokens.bags, None),
        };
        let masks = [mask(self.sdir.genes, genes, "sdir.genes")?, mask(self.sdir.patches, patches, "sdir.patches")?];
        let (rows, bags) = ([&genes.rows, &patches.rows], [&genes.bags, &patches.bags]);
        cade.forward_masked(pass.tape, rows, bags, [&masks[0], &masks[1]], draws("cade").as_ref())
    }
}
