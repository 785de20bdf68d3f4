//! The partial likelihood on the CPU: one pass back in time for the risk sets, one forward for the gradient.

use rayon::prelude::*;

use super::Ties;
use super::plan::{PATIENTS, Plan};
use super::scaled::{Scaled, Tree};

/// Loss and gradient as sums over the events.
pub(super) fn evaluate(ties: Ties, plan: &Plan, log_risk: &[f64]) -> (f64, Vec<f64>) {
    if plan.truncated {
        return evaluate_truncated(ties, plan, log_risk);
    }
    let terms = Terms::new(plan, log_risk);
    let deaths = deaths(ties, plan, terms.risk(plan));
    let factors = factors(plan, &deaths, &terms.largest);
    // Each term becomes the gradient of its patient.
    let Terms { each: mut gradient, .. } = terms;
    let parts = gradient.par_chunks_mut(PATIENTS).enumerate().map(|(chunk, gradient)| {
        let (first, mut loss) = (chunk * PATIENTS, 0.0);
        for (i, gradient) in (first..).zip(gradient) {
            let slot = plan.slots[i] as usize;
            *gradient *= factors[slot];
            if slot % 2 == 1 {
                let weight = plan.weight.as_ref().map_or(1.0, |w| w[i]);
                *gradient -= weight;
                // The exponent is one of the log risks: their difference keeps its digits however large both are.
                loss += weight * (deaths[slot / 2].exponent - log_risk[i]);
            }
        }
        loss
    });
    let parts: Vec<f64> = parts.collect();
    let loss = deaths.iter().map(|d| d.log).sum::<f64>() + parts.iter().sum::<f64>();
    (loss, gradient)
}

/// What each patient adds to a risk set, one exponential a patient, in units of the largest of its slot.
struct Terms {
    /// By slot: the largest log risk, and the sum of the terms.
    largest: Vec<f64>,
    sum: Vec<f64>,
    /// By patient: `w e^(eta - largest)`.
    each: Vec<f64>,
}

impl Terms {
    fn new(plan: &Plan, log_risk: &[f64]) -> Terms {
        let slots = 2 * plan.moments.len() + 1;
        let mut largest = vec![f64::NEG_INFINITY; slots];
        for (&slot, &eta) in plan.slots.iter().zip(log_risk) {
            let largest = &mut largest[slot as usize];
            *largest = largest.max(eta);
        }
        let mut each = vec![0.0; log_risk.len()];
        each.par_chunks_mut(PATIENTS).enumerate().for_each(|(chunk, each)| {
            let first = chunk * PATIENTS;
            for (i, each) in (first..).zip(each) {
                let term = (log_risk[i] - largest[plan.slots[i] as usize]).exp();
                *each = plan.weight.as_ref().map_or(term, |w| w[i] * term);
            }
        });
        let mut sum = vec![0.0; slots];
        plan.slots.iter().zip(&each).for_each(|(&slot, term)| sum[slot as usize] += term);
        Terms { largest, sum, each }
    }

    /// The risk at each moment, weighted: of those who survive it, and of those who die at it.
    fn risk(&self, plan: &Plan) -> (Vec<Scaled>, Vec<Scaled>) {
        let at = |slot: usize| Scaled::new(self.sum[slot], self.largest[slot]);
        let dying: Vec<Scaled> = (0..plan.moments.len()).map(|e| at(2 * e + 1)).collect();
        // Back in time: those put down at a moment survive it and all earlier ones of the stratum, those who die at it
        // survive the earlier ones alone.
        let mut surviving = vec![Scaled::ZERO; plan.moments.len()];
        for stratum in &plan.strata {
            let mut sum = Scaled::ZERO;
            for e in stratum.moments.clone().rev() {
                surviving[e] = sum.plus(at(2 * e));
                sum = surviving[e].plus(dying[e]);
            }
        }
        (surviving, dying)
    }
}

/// By slot: the hazard that its patients lived through, times `e^largest`. A risk set that a patient was in is at least
/// as large as the largest of its slot, so this is at most the weight of the deaths.
fn factors(plan: &Plan, deaths: &[Deaths], largest: &[f64]) -> Vec<f64> {
    let mut factors = vec![0.0; largest.len()];
    for stratum in &plan.strata {
        let mut hazard = Scaled::ZERO;
        for e in stratum.moments.clone() {
            factors[2 * e + 1] = hazard.plus(deaths[e].own).times(1.0, largest[2 * e + 1]);
            hazard = hazard.plus(deaths[e].hazard);
            factors[2 * e] = hazard.times(1.0, largest[2 * e]);
        }
    }
    factors
}

/// As [`evaluate`] where patients enter late: risk sets and hazards are sums over windows.
fn evaluate_truncated(ties: Ties, plan: &Plan, log_risk: &[f64]) -> (f64, Vec<f64>) {
    let deaths = deaths(ties, plan, risk_truncated(plan, log_risk));
    let mut loss: f64 = deaths.iter().map(|d| d.log).sum();
    for (row, eta) in plan.rows.iter().zip(log_risk).filter(|(row, _)| row.dies) {
        loss += row.weight * (deaths[row.end].exponent - eta);
    }
    let hazard: Vec<Scaled> = deaths.iter().map(|d| d.hazard).collect();
    let tree = Tree::over(&hazard);
    let gradient = plan.rows.iter().zip(log_risk).map(|(row, &eta)| {
        let mut hazard = tree.sum(row.first, row.end);
        if row.dies {
            hazard = hazard.plus(deaths[row.end].own);
        }
        hazard.times(row.weight, eta) - if row.dies { row.weight } else { 0.0 }
    });
    (loss, gradient.collect())
}

/// The increment of the baseline hazard at each moment, and their sums up to it, stratum by stratum.
pub(super) fn baseline(ties: Ties, plan: &Plan, log_risk: &[f64]) -> (Vec<Scaled>, Vec<Scaled>) {
    let risk = if plan.truncated { risk_truncated(plan, log_risk) } else { Terms::new(plan, log_risk).risk(plan) };
    let increments: Vec<Scaled> = deaths(ties, plan, risk).iter().map(|d| d.hazard).collect();
    let sums = cumulative(plan, &increments);
    (increments, sums)
}

/// What the deaths at one moment come to.
struct Deaths {
    /// The exponent that the sums over the risk set are scaled by.
    exponent: f64,
    /// The sum of the weighted logarithms of these scaled sums.
    log: f64,
    /// The increment of the baseline hazard: what a unit of risk that survives the moment is charged.
    hazard: Scaled,
    /// What a unit of risk that dies is charged: less under Efron, who averages over the order of the deaths.
    own: Scaled,
}

fn deaths(ties: Ties, plan: &Plan, (surviving, dying): (Vec<Scaled>, Vec<Scaled>)) -> Vec<Deaths> {
    let at = |(e, moment): (usize, &super::plan::Moment)| {
        let exponent = surviving[e].exponent.max(dying[e].exponent);
        let (surviving, dying) = (surviving[e].mantissa_at(exponent), dying[e].mantissa_at(exponent));
        // Breslow is the case of one term that stands for all deaths.
        let terms = match ties {
            Ties::Breslow => 1,
            Ties::Efron => moment.deaths,
        };
        let weight = moment.weight / terms as f64;
        let (mut log, mut hazard, mut own) = (0.0, 0.0, 0.0);
        for k in 0..terms {
            let still_there = (terms - k) as f64 / terms as f64;
            let sum = surviving + still_there * dying;
            log += weight * sum.ln();
            hazard += weight / sum;
            own += still_there * (weight / sum);
        }
        Deaths { exponent, log, hazard: Scaled::new(hazard, -exponent), own: Scaled::new(own, -exponent) }
    };
    let each = PATIENTS * plan.moments.len() / plan.events().max(1);
    plan.moments.par_iter().enumerate().with_min_len(each.max(1)).map(at).collect()
}

/// [`Terms::risk`] where patients enter late.
fn risk_truncated(plan: &Plan, log_risk: &[f64]) -> (Vec<Scaled>, Vec<Scaled>) {
    let mut dying = vec![Scaled::ZERO; plan.moments.len()];
    let mut tree = Tree::new(plan.moments.len());
    for (row, &eta) in plan.rows.iter().zip(log_risk).filter(|(row, _)| row.weight > 0.0) {
        let term = Scaled::new(row.weight, eta);
        tree.add(row.first, row.end, term);
        if row.dies {
            dying[row.end] = dying[row.end].plus(term);
        }
    }
    (tree.places(), dying)
}

/// Running sums in each stratum, each including its own moment.
fn cumulative(plan: &Plan, values: &[Scaled]) -> Vec<Scaled> {
    let mut sums = Vec::with_capacity(values.len());
    for stratum in &plan.strata {
        let mut sum = Scaled::ZERO;
        for value in &values[stratum.moments.clone()] {
            sum = sum.plus(*value);
            sums.push(sum);
        }
    }
    sums
}
