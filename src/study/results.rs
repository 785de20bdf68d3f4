//! The figures of a study, from the risks that its cells left.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cell::{Epoch, Stored};
use super::compare::{Comparison, Rank, compare, rank};
use super::explain::{Explanation, explain};
use super::file::Settings;
use super::plan::{Cell, Part, Plan};
use super::preset::{Mode, Plugin};
use crate::data::FileHash;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::{Figure, LogRankFigure};
use crate::metrics::{Bootstrap, Concordance, KaplanMeier, Outcome, Resampled, harrell, log_rank};
use crate::rng::name32;

/// Everything that a study found, as `study.json` holds it.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The version of onkos.
    pub onkos: &'static str,
    /// All settings.
    pub settings: Settings,
    /// The cohorts, sources first.
    pub cohorts: Vec<CohortRow>,
    /// One row for each source, cohort that was tested on, host and plug-in.
    pub rows: Vec<Row>,
    /// Each plug-in against none.
    pub comparisons: Vec<Comparison>,
    /// Hosts with plug-ins by their mean rank over the targets.
    pub ranks: Vec<Rank>,
    /// What moved the risk of chosen patients.
    pub explanations: Vec<Explanation>,
    /// The trainings.
    pub trainings: Vec<Training>,
}

/// A cohort of a study.
#[derive(Clone, Debug, Serialize)]
pub struct CohortRow {
    /// Its name.
    pub name: String,
    /// Whether models are trained on it.
    pub source: bool,
    /// Its patients.
    pub patients: usize,
    /// Those with an event.
    pub events: usize,
    /// The unit of its times, if its file says it.
    pub time_unit: Option<&'static str>,
    /// Its files.
    pub inputs: Vec<FileHash>,
}

/// What the patients are to the model that a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Another cohort than the source.
    Target,
    /// The source, each patient judged by a model that was trained without the fold of the patient.
    CrossValidated,
    /// The source, judged by the model that was trained on it: no measure of what it would do for others.
    Training,
}

impl Domain {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Domain::Target => "target",
            Domain::CrossValidated => "cross-validated",
            Domain::Training => "training patients",
        }
    }
}

/// The figures of one host with one plug-in, trained on a source and judged on a cohort.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The source, by name.
    pub source: String,
    /// The cohort that was judged on.
    pub target: String,
    /// What that is to the model.
    pub domain: Domain,
    /// The host.
    pub host: String,
    /// The plug-in.
    pub plugin: Plugin,
    /// Patients who were judged.
    pub patients: usize,
    /// Those with an event.
    pub events: usize,
    /// Harrell's C.
    pub concordance: Figure<ConcordanceRow>,
    /// High against low risk.
    pub groups: Groups,
    /// The figures of each seed.
    pub seeds: Vec<SeedRow>,
    /// The two groups, for curves.
    #[serde(skip)]
    pub(super) curves: [KaplanMeier; 2],
    /// The times of the two groups.
    #[serde(skip)]
    pub(super) times: [Vec<f64>; 2],
    /// C of each resample, for comparisons.
    #[serde(skip)]
    pub(super) resampled: Option<Resampled>,
}

/// C over the seeds, with its interval over patients.
#[derive(Clone, Debug, Serialize)]
pub struct ConcordanceRow {
    /// The mean over the seeds.
    pub mean: f64,
    /// The standard deviation over the seeds (n - 1 below); absent with one seed.
    pub deviation: Option<f64>,
    /// The lower bound of the bootstrap interval of the mean: patients are drawn, seeds are not.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// The level of the interval.
    pub level: f64,
    /// Bootstrap replicates drawn.
    pub replicates: u32,
    /// Replicates without a comparable pair.
    pub undefined_replicates: u32,
}

/// High and low risk, cut at the median risk of the training patients. With several seeds a patient is in the group
/// that more than half of them say, and of low risk if they are divided.
#[derive(Clone, Debug, Serialize)]
pub struct Groups {
    /// Patients of high and of low risk.
    pub patients: [usize; 2],
    /// Their events.
    pub events: [usize; 2],
    /// The log-rank test between them.
    pub log_rank: Figure<LogRankFigure>,
}

/// The figures of one seed.
#[derive(Clone, Debug, Serialize)]
pub struct SeedRow {
    /// The seed.
    pub seed: u64,
    /// Harrell's C; of a cross-validation over the pairs of patients of one fold, whose risks are of one model.
    pub concordance: Figure<f64>,
    /// The log-rank test between high and low risk by this seed alone.
    pub log_rank: Figure<LogRankFigure>,
}

/// One training.
#[derive(Clone, Debug, Serialize)]
pub struct Training {
    /// The source.
    pub source: String,
    /// The host.
    pub host: String,
    /// The plug-in.
    pub plugin: Plugin,
    /// The seed.
    pub seed: u64,
    /// Which part of the source.
    pub part: String,
    /// The hash of its settings and inputs.
    pub key: String,
    /// Training, validation and test patients of the source.
    pub patients: [usize; 3],
    /// Scalars of the model.
    pub parameters: usize,
    /// The epoch whose parameters were kept.
    pub kept_epoch: u32,
    /// The median risk of the training patients, which divides high from low.
    pub cut: f64,
    /// The epochs.
    pub curve: Vec<Epoch>,
}

/// The risks of one seed. Those of different strata are of different models and are not compared.
struct Judged {
    risk: Vec<f64>,
    stratum: Vec<usize>,
    high: Vec<bool>,
}

impl Judged {
    /// Harrell's C of some patients, some maybe more than once: over the pairs of one stratum.
    fn concordance(&self, time: &[f64], event: &[bool], rows: &[usize]) -> Result<f64> {
        let mut strata: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        rows.iter().for_each(|&row| strata.entry(self.stratum[row]).or_default().push(row));
        let mut sum = Concordance { concordant: 0, discordant: 0, tied_risk: 0, tied_time: 0 };
        for rows in strata.values() {
            let (time, event) = Outcome::new(time, event)?.select(rows);
            let risk: Vec<f64> = rows.iter().map(|&row| self.risk[row]).collect();
            let pairs = harrell(Outcome::new(&time, &event)?, &risk)?;
            sum.concordant += pairs.concordant;
            sum.discordant += pairs.discordant;
            sum.tied_risk += pairs.tied_risk;
            sum.tied_time += pairs.tied_time;
        }
        Ok(sum.index()?)
    }
}

impl Results {
    /// The figures of a plan whose cells are all finished, in the order of [`Plan::cells`].
    pub(super) fn of(plan: &Plan, stored: &[Stored], device: Device) -> Result<Results> {
        let cells = plan.cells();
        let mut rows = Vec::new();
        for source in 0..plan.sources {
            for cohort in std::iter::once(source).chain(plan.targets(source)) {
                for (host, settings) in plan.settings.hosts.iter().enumerate() {
                    for &plugin in &settings.plugins {
                        let here = |cell: &Cell| cell.source == source && cell.host == host && cell.plugin == plugin;
                        let of_it: Vec<(&Cell, &Stored)> =
                            cells.iter().zip(stored).filter(|(cell, _)| here(cell)).collect();
                        rows.push(row(plan, source, cohort, &settings.name, plugin, &of_it)?);
                    }
                }
            }
        }
        let comparisons = compare(&rows);
        let ranks = rank(&rows);
        let name = |cohort: usize| plan.cohorts[cohort].name.clone();
        let training = |(cell, stored): (&Cell, &Stored)| Training {
            source: name(cell.source),
            host: plan.settings.hosts[cell.host].name.clone(),
            plugin: cell.plugin,
            seed: cell.seed,
            part: cell.part.to_string(),
            key: stored.result.key.clone(),
            patients: stored.result.patients,
            parameters: stored.result.parameters,
            kept_epoch: stored.result.kept_epoch,
            cut: stored.result.cut,
            curve: stored.curve.clone(),
        };
        let cohort = |(number, cohort): (usize, &crate::data::Cohort)| CohortRow {
            name: cohort.name.clone(),
            source: number < plan.sources,
            patients: cohort.len(),
            events: cohort.patients.iter().filter(|patient| patient.event).count(),
            time_unit: cohort.time_unit.map(|unit| unit.name()),
            inputs: plan.inputs[number].clone(),
        };
        Ok(Results {
            onkos: env!("CARGO_PKG_VERSION"),
            settings: plan.settings.clone(),
            cohorts: plan.cohorts.iter().enumerate().map(cohort).collect(),
            rows,
            comparisons,
            ranks,
            explanations: explain(plan, stored, device)?,
            trainings: cells.iter().zip(stored).map(training).collect(),
        })
    }
}

/// The risks of the patients of a cohort by the models of one seed, and which patients have one.
fn judged(domain: Domain, cohort: usize, seed: u64, cells: &[(&Cell, &Stored)]) -> Vec<(usize, f64, usize, bool)> {
    let mut risks = Vec::new();
    for (cell, stored) in cells.iter().filter(|(cell, _)| cell.seed == seed) {
        let (stratum, set) = match (domain, cell.part) {
            (Domain::Target, Part::Whole) => (0, "target"),
            (Domain::Training, Part::Whole) => (0, "train"),
            (Domain::CrossValidated, Part::Fold(fold)) => (fold, "test"),
            _ => continue,
        };
        for (patient, (of, risk)) in stored.risks[&cohort].iter().enumerate() {
            if of == set {
                risks.push((patient, *risk, stratum, *risk > stored.result.cut));
            }
        }
    }
    risks.sort_by_key(|(patient, ..)| *patient);
    risks
}

fn row(
    plan: &Plan,
    source: usize,
    cohort: usize,
    host: &str,
    plugin: Plugin,
    cells: &[(&Cell, &Stored)],
) -> Result<Row> {
    let domain = match (cohort == source, plan.settings.mode) {
        (false, _) => Domain::Target,
        (true, Mode::Strict) => Domain::CrossValidated,
        (true, Mode::Published) => Domain::Training,
    };
    let patients = &plan.cohorts[cohort].patients;
    let (time, event) = (plan.cohorts[cohort].times(), plan.cohorts[cohort].events());
    let mut by_seed = Vec::new();
    for &seed in &plan.settings.seeds {
        let risks = judged(domain, cohort, seed, cells);
        debug_assert!(risks.iter().enumerate().all(|(i, risk)| risk.0 == i) && risks.len() == patients.len());
        by_seed.push(Judged {
            risk: risks.iter().map(|(_, risk, ..)| *risk).collect(),
            stratum: risks.iter().map(|(_, _, stratum, _)| *stratum).collect(),
            high: risks.iter().map(|(.., high)| *high).collect(),
        });
    }
    let all: Vec<usize> = (0..patients.len()).collect();
    let outcome = Outcome::new(&time, &event)?;
    let tested = |high: &[bool]| {
        let group: Vec<usize> = high.iter().map(|high| usize::from(!high)).collect();
        Figure::of(log_rank(outcome, &group, None, 0.0).map(|test| LogRankFigure { chi2: test.chi2, p: test.p }))
    };
    let seeds = plan.settings.seeds.iter().zip(&by_seed).map(|(&seed, judged)| SeedRow {
        seed,
        concordance: Figure::of(judged.concordance(&time, &event, &all)),
        log_rank: tested(&judged.high),
    });
    let seeds: Vec<SeedRow> = seeds.collect();
    let mean_over_seeds = |rows: &[usize]| {
        let each: Result<Vec<f64>> = by_seed.iter().map(|judged| judged.concordance(&time, &event, rows)).collect();
        each.map(|each| mean(&each))
    };
    // By its name, so that cohorts of one size have resamples of their own, and all models of one cohort the same.
    let key = plan.settings.resampling_seed ^ u64::from(name32(&plan.cohorts[cohort].name));
    let resampled = Bootstrap::new(key).replicates(plan.settings.replicates).resampled(patients.len(), mean_over_seeds);
    let concordance = match &resampled {
        Ok(resampled) => Figure::of(resampled.interval().map(|interval| ConcordanceRow {
            mean: interval.estimate,
            deviation: deviation(&seeds.iter().filter_map(|s| s.concordance.value().copied()).collect::<Vec<_>>()),
            lower: interval.lower,
            upper: interval.upper,
            level: interval.level,
            replicates: interval.replicates,
            undefined_replicates: interval.undefined,
        })),
        Err(Error::Undefined(why)) => Figure::Undefined { undefined: why.to_string() },
        Err(_) => return Err(resampled.expect_err("just seen")),
    };
    let votes = |patient: usize| by_seed.iter().filter(|judged| judged.high[patient]).count();
    let high: Vec<bool> = all.iter().map(|&patient| 2 * votes(patient) > by_seed.len()).collect();
    let group = |of: bool| {
        let rows: Vec<usize> = all.iter().copied().filter(|&patient| high[patient] == of).collect();
        outcome.select(&rows)
    };
    let parts = [group(true), group(false)];
    let [a, b] = [0, 1].map(|g| Outcome::new(&parts[g].0, &parts[g].1).map(KaplanMeier::fit));
    let curves = [a?, b?];
    Ok(Row {
        source: plan.cohorts[source].name.clone(),
        target: plan.cohorts[cohort].name.clone(),
        domain,
        host: host.into(),
        plugin,
        patients: patients.len(),
        events: outcome.events(),
        concordance,
        groups: Groups {
            patients: [0, 1].map(|g| parts[g].0.len()),
            events: [0, 1].map(|g| parts[g].1.iter().filter(|event| **event).count()),
            log_rank: tested(&high),
        },
        seeds,
        curves,
        times: parts.map(|(time, _)| time),
        resampled: resampled.ok(),
    })
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn risks_of_different_folds_are_not_compared() {
        // Each fold is in perfect order; the risks of the second are all above those of the first.
        let judged = Judged { risk: vec![2.0, 1.0, 12.0, 11.0], stratum: vec![0, 0, 1, 1], high: vec![false; 4] };
        let (time, event) = ([1.0, 4.0, 2.0, 3.0], [true; 4]);
        assert_eq!(judged.concordance(&time, &event, &[0, 1, 2, 3]).unwrap(), 1.0);
        let pooled = Judged { stratum: vec![0; 4], ..judged };
        assert!(pooled.concordance(&time, &event, &[0, 1, 2, 3]).unwrap() < 1.0);
        assert!(matches!(pooled.concordance(&time, &event, &[1]), Err(Error::Undefined(_))));
    }

    #[test]
    fn one_seed_has_no_deviation() {
        assert_eq!(deviation(&[0.6]), None);
        assert_eq!(deviation(&[1.0, 3.0]), Some(2f64.sqrt()));
    }
}
