//! What moved the risk of chosen patients: their gene groups, and where on their slides a model looked.

use serde::Serialize;

use super::cell::{self, Stored};
use super::plan::{Cell, Plan};
use super::preset::{Mode, Plugin};
use crate::data::Cohort;
use crate::device::Device;
use crate::error::Result;
use crate::model::{Batch, CohortSource, Predictor, Source};
use crate::nn::Pass;
use crate::tape::Tape;
use crate::tensor::Tensor;

/// A chosen patient as one model saw it: that of the first seed, trained on a source that the patient is not of.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The cohort of the patient.
    pub target: String,
    /// The case.
    pub case: String,
    /// Follow-up.
    pub time: f64,
    /// Whether the event was observed.
    pub event: bool,
    /// The source.
    pub source: String,
    /// The host.
    pub host: String,
    /// The plug-in.
    pub plugin: Plugin,
    /// The risk.
    pub risk: f64,
    /// Whether it is above the median of the training patients.
    pub high: bool,
    /// What each gene group does to the risk, in the order of the model; empty for a model or a patient without expression.
    pub groups: Vec<GroupChange>,
    /// Where the model looked; absent for a model without attention over patches, a patient without slides, or one without expression
    /// whose gene tokens would have said where.
    pub patches: Option<PatchAttention>,
}

/// What a gene group does to a risk.
#[derive(Clone, Debug, Serialize)]
pub struct GroupChange {
    /// The group.
    pub name: String,
    /// The risk less the risk of the same patient with all genes of the group at 0 after scaling, which is the mean of the
    /// training patients with z-scores: above 0 the group makes the prognosis worse. Other groups keep their genes, also
    /// those that are in this one.
    pub change: f64,
}

/// How a model spread its attention over the patches of a patient.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PatchAttention {
    /// All patches of the patient.
    pub patches: usize,
    /// The fewest of them that have half of what attention lies on patches, by its mean over the heads.
    pub half: usize,
}

/// Explains the chosen patients by all models that did not see their cohort.
pub(super) fn explain(plan: &Plan, stored: &[Stored], device: Device) -> Result<Vec<Explanation>> {
    let mut all = Vec::new();
    if plan.settings.patients.is_empty() {
        return Ok(all);
    }
    for (cell, stored) in plan.cells().iter().zip(stored).filter(|(cell, _)| cell::keeps_model(plan, cell)) {
        let mut predictor = Predictor::load(&cell::model(plan, cell))?.to(place(plan, cell, device)?)?;
        let own = predictor.recipe.genes.clone();
        for target in plan.targets(cell.source) {
            let cohort = &plan.cohorts[target];
            let chosen = |case: &String| cohort.patients.iter().position(|patient| patient.case == *case);
            let patients: Vec<usize> = plan.settings.patients.iter().filter_map(chosen).collect();
            if patients.is_empty() {
                continue;
            }
            predictor.recipe.genes.clone_from(&own);
            if plan.settings.mode == Mode::Published {
                cell::scale_by_target(&mut predictor, cohort)?;
            }
            let source = CohortSource::new(&predictor.recipe, cohort)?.on(predictor.params.device(), 0)?;
            for patient in patients {
                all.push(of_patient(plan, cell, stored, &predictor, &source, cohort, patient)?);
            }
        }
    }
    // Patient by patient, as they were named, and within one in the order of the cells.
    let place = |e: &Explanation| plan.settings.patients.iter().position(|case| *case == e.case);
    all.sort_by_key(place);
    Ok(all)
}

/// The device with the settings that the cell was trained with.
fn place(plan: &Plan, cell: &Cell, device: Device) -> Result<Device> {
    crate::train::place(&plan.config(cell).train, device)
}

fn of_patient(
    plan: &Plan,
    cell: &Cell,
    stored: &Stored,
    predictor: &Predictor,
    source: &CohortSource<'_>,
    cohort: &Cohort,
    patient: usize,
) -> Result<Explanation> {
    source.upcoming(&[vec![patient]], 1, None)?;
    let batch = source.batch(&[patient], None)?;
    let (risk, attention) = pass(predictor, &batch, true)?;
    let heads_of = |weights: &Vec<f32>| weights.len().checked_div(source.patches(patient)).unwrap_or(0);
    // All are 0 where gene tokens say what is looked at and there are none.
    let patches = attention.filter(|weights| weights.iter().any(|&w| w != 0.0)).map(|weights| {
        let heads = heads_of(&weights).max(1);
        spread(weights.chunks(heads).map(|of| of.iter().map(|&w| f64::from(w)).sum::<f64>()).collect())
    });
    let who = &cohort.patients[patient];
    Ok(Explanation {
        target: cohort.name.clone(),
        case: who.case.clone(),
        time: who.time,
        event: who.event,
        source: plan.cohorts[cell.source].name.clone(),
        host: plan.settings.hosts[cell.host].name.clone(),
        plugin: cell.plugin,
        risk,
        high: risk > stored.result.cut,
        groups: groups(predictor, &batch, risk)?,
        patches,
    })
}

/// The risk of the one patient of a batch, and the attention over the patches; that of some models only with `weighing`.
fn pass(predictor: &Predictor, batch: &Batch<f32>, weighing: bool) -> Result<(f64, Option<Vec<f32>>)> {
    let tape = Tape::inference(predictor.params.device());
    let pass = Pass::new(&tape, &predictor.params, None);
    let output = predictor.model.forward(&if weighing { pass.weighing() } else { pass }, batch)?;
    let attention = output.attention.patches.map(|weights| weights.read()).transpose()?;
    Ok((predictor.recipe.risk(&output.prediction.value().read()?), attention))
}

/// The change of the risk by each gene group: one pass each.
fn groups(predictor: &Predictor, batch: &Batch<f32>, risk: f64) -> Result<Vec<GroupChange>> {
    let (Some(inputs), Some(genes)) = (&predictor.recipe.genes, &batch.genes) else { return Ok(Vec::new()) };
    let (values, shape) = (genes.values.read()?, genes.values.shape().to_vec());
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let (mut all, mut start) = (Vec::new(), 0);
    for signature in &inputs.signatures {
        let end = start + signature.genes.len();
        let mut without = values.clone();
        without[start..end].fill(0.0);
        start = end;
        let mut batch = batch.clone();
        if let Some(genes) = &mut batch.genes {
            genes.values = Tensor::new(&shape, without)?.to(predictor.params.device())?;
        }
        let change = risk - pass(predictor, &batch, false)?.0;
        all.push(GroupChange { name: signature.name.clone(), change });
    }
    Ok(all)
}

/// How many of the weights have half of their sum.
fn spread(mut weights: Vec<f64>) -> PatchAttention {
    let patches = weights.len();
    weights.sort_by(|a, b| b.total_cmp(a));
    let (total, mut sum, mut half) = (weights.iter().sum::<f64>(), 0.0, 0);
    while half < patches && 2.0 * sum < total {
        sum += weights[half];
        half += 1;
    }
    PatchAttention { patches, half }
}

/// The chosen patients whom no model is judged on.
pub(super) fn unknown(plan: &Plan) -> Vec<String> {
    let judged: Vec<usize> = (0..plan.sources).flat_map(|source| plan.targets(source)).collect();
    let there = |case: &String| judged.iter().any(|&c| plan.cohorts[c].patients.iter().any(|p| p.case == *case));
    let strange = plan.settings.patients.iter().filter(|case| !there(case));
    strange.map(|case| format!("patients: {case:?} is in no cohort that is judged on")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_attention_lies_on_the_heaviest_patches() {
        let half = |weights: &[f64]| spread(weights.to_vec()).half;
        assert_eq!((half(&[0.25; 4]), half(&[0.1, 0.6, 0.3]), half(&[0.1, 0.4, 0.3, 0.2])), (2, 1, 2));
        assert_eq!((half(&[1.0]), half(&[0.0, 0.0])), (1, 0));
    }
}
