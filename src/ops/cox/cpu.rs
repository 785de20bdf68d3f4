//! The partial likelihood on the CPU: one pass back in time for the risk sets, one forward for the gradient.

use super::Ties;
use super::plan::Plan;
use super::scaled::{Scaled, Tree};

/// Loss and gradient as sums over the events.
pub(super) fn evaluate(ties: Ties, plan: &Plan, log_risk: &[f64]) -> (f64, Vec<f64>) {
    let deaths = deaths(ties, plan, log_risk);
    let mut loss: f64 = deaths.iter().map(|d| d.log).sum();
    for (row, eta) in plan.rows.iter().zip(log_risk).filter(|(row, _)| row.dies) {
        // The exponent is one of the log risks, so their difference keeps its digits however large both are.
        loss += row.weight * (deaths[row.end].exponent - eta);
    }

    // The hazard that each patient lived through without dying.
    let hazard: Vec<Scaled> = deaths.iter().map(|d| d.hazard).collect();
    let survived: Box<dyn Fn(usize, usize) -> Scaled> = if plan.truncated {
        let tree = Tree::over(&hazard);
        Box::new(move |first, end| tree.sum(first, end))
    } else {
        let until = cumulative(plan, &hazard);
        Box::new(move |first, end| if first < end { until[end - 1] } else { Scaled::ZERO })
    };
    let gradient = plan.rows.iter().zip(log_risk).map(|(row, &eta)| {
        let mut hazard = survived(row.first, row.end);
        if row.dies {
            hazard = hazard.plus(deaths[row.end].own);
        }
        hazard.times(row.weight, eta) - if row.dies { row.weight } else { 0.0 }
    });
    let gradient = gradient.collect();
    (loss, gradient)
}

/// The increment of the baseline hazard at each moment, and their sums up to it, stratum by stratum.
pub(super) fn baseline(ties: Ties, plan: &Plan, log_risk: &[f64]) -> (Vec<Scaled>, Vec<Scaled>) {
    let increments: Vec<Scaled> = deaths(ties, plan, log_risk).iter().map(|d| d.hazard).collect();
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

fn deaths(ties: Ties, plan: &Plan, log_risk: &[f64]) -> Vec<Deaths> {
    let (surviving, dying) = risk(plan, log_risk);
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
    plan.moments.iter().enumerate().map(at).collect()
}

/// The risk at each moment, weighted: of those who survive it, and of those who die at it.
fn risk(plan: &Plan, log_risk: &[f64]) -> (Vec<Scaled>, Vec<Scaled>) {
    let moments = plan.moments.len();
    let mut dying = vec![Scaled::ZERO; moments];
    let rows = || plan.rows.iter().zip(log_risk).filter(|(row, _)| row.weight > 0.0);
    for (row, &eta) in rows().filter(|(row, _)| row.dies) {
        dying[row.end] = dying[row.end].plus(Scaled::new(row.weight, eta));
    }
    if plan.truncated {
        let mut tree = Tree::new(moments);
        rows().for_each(|(row, &eta)| tree.add(row.first, row.end, Scaled::new(row.weight, eta)));
        return (tree.places(), dying);
    }
    // Each patient is put down at the last moment survived, and counts at all earlier ones of the stratum.
    let mut surviving = vec![Scaled::ZERO; moments];
    for (row, &eta) in rows().filter(|(row, _)| row.first < row.end) {
        surviving[row.end - 1] = surviving[row.end - 1].plus(Scaled::new(row.weight, eta));
    }
    for stratum in &plan.strata {
        let mut sum = Scaled::ZERO;
        for e in stratum.moments.clone().rev() {
            sum = sum.plus(surviving[e]);
            surviving[e] = sum;
        }
    }
    (surviving, dying)
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
