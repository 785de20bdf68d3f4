//! How good risks are: the figures of one cohort, each with its reason where it has no value.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::metrics::{
    Bootstrap, Interval, KaplanMeier, Outcome, brier, cumulative_dynamic_auc, harrell, log_rank, median_follow_up, uno,
};

/// A figure, or the sentence that says why there is none. Never 0 in its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figure<T> {
    /// The value.
    Value(T),
    /// Why there is none.
    Undefined {
        /// The sentence.
        undefined: String,
    },
}

impl<T> Figure<T> {
    /// The value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Figure::Value(value) => Some(value),
            Figure::Undefined { .. } => None,
        }
    }

    /// The value of a result, or the sentence of its error.
    pub fn of<E: std::fmt::Display>(result: Result<T, E>) -> Figure<T> {
        match result {
            Ok(value) => Figure::Value(value),
            Err(why) => Figure::Undefined { undefined: why.to_string() },
        }
    }
}

/// A concordance index with its pairs and its interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConcordanceFigure {
    /// Harrell's C.
    pub index: f64,
    /// The lower bound of the bootstrap interval over patients.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// The level of the interval.
    pub level: f64,
    /// Bootstrap replicates drawn.
    pub replicates: u32,
    /// Replicates without a comparable pair.
    pub undefined_replicates: u32,
    /// Comparable pairs in the right order.
    pub concordant: u64,
    /// Comparable pairs in the wrong order.
    pub discordant: u64,
    /// Comparable pairs with equal risk.
    pub tied_risk: u64,
    /// Pairs of events at the same time, which are not comparable.
    pub tied_time: u64,
}

/// High against low risk, cut at the median risk of the training patients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupsFigure {
    /// The cut: the median risk of the training patients.
    pub cut: f64,
    /// Patients above and not above it.
    pub patients: [usize; 2],
    /// Events above and not above it.
    pub events: [usize; 2],
    /// Median survival above and not above it; absent where the curve stays above one half.
    pub median_survival: [Option<f64>; 2],
    /// The log-rank statistic of the two groups.
    pub log_rank: Figure<LogRankFigure>,
}

/// A log-rank test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogRankFigure {
    /// The statistic, with one degree of freedom.
    pub chi2: f64,
    /// The probability of one as large if the groups do not differ.
    pub p: f64,
}

/// A figure at each of several times, and over them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverTime {
    /// The times, in the unit of the cohort.
    pub times: Vec<f64>,
    /// The figure at each.
    pub values: Vec<Figure<f64>>,
    /// Its mean (AUC) or integral (Brier) over them.
    pub summary: Figure<f64>,
}

/// All figures of one cohort.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The cohort.
    pub cohort: String,
    /// Its patients.
    pub patients: usize,
    /// Those with an event.
    pub events: usize,
    /// Median follow-up (reverse Kaplan-Meier), in the unit of the cohort; absent if more than half have the event.
    pub median_follow_up: Option<f64>,
    /// Harrell's C.
    pub harrell: Figure<ConcordanceFigure>,
    /// Uno's C, up to `uno_tau`.
    pub uno: Figure<f64>,
    /// The time up to which Uno's C and the figures over time look: the last of the evaluation times.
    pub uno_tau: Option<f64>,
    /// Cumulative/dynamic area under the ROC curve.
    pub auc: Figure<OverTime>,
    /// Brier score of the predicted survival, and its integral.
    pub brier: Figure<OverTime>,
    /// High against low risk.
    pub groups: GroupsFigure,
}

/// What figures are calculated from.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    /// The name of the cohort.
    pub cohort: &'a str,
    /// Follow-up of each patient.
    pub time: &'a [f64],
    /// Whether the event was observed.
    pub event: &'a [bool],
    /// Risk of each patient, higher for worse.
    pub risk: &'a [f64],
    /// The probability that patient `i` lives beyond a time, if the model gives one.
    pub survival: Option<&'a (dyn Fn(usize, f64) -> f64 + Sync)>,
    /// The median risk of the training patients.
    pub cut: f64,
    /// Keys the bootstrap.
    pub seed: u64,
    /// Bootstrap replicates.
    pub replicates: u32,
}

/// The deciles at which figures over time are taken: of the event times of the evaluated cohort.
const DECILES: std::ops::RangeInclusive<usize> = 1..=9;

impl Evaluation<'_> {
    /// The figures. Censoring weights come from the evaluated cohort itself: the censoring of another cancer says nothing
    /// about this one.
    ///
    /// # Errors
    /// Slices of different lengths, times that are not positive, risks that are not finite.
    pub fn figures(&self) -> Result<Figures> {
        let outcome = Outcome::new(self.time, self.event)?;
        let times = evaluation_times(self.time, self.event);
        let tau = times.last().copied();
        let pairs = harrell(outcome, self.risk)?;
        let concordance =
            pairs.index().map_err(Error::from).and_then(|_| self.interval()).map(|interval| ConcordanceFigure {
                index: interval.estimate,
                lower: interval.lower,
                upper: interval.upper,
                level: interval.level,
                replicates: interval.replicates,
                undefined_replicates: interval.undefined,
                concordant: pairs.concordant,
                discordant: pairs.discordant,
                tied_risk: pairs.tied_risk,
                tied_time: pairs.tied_time,
            });
        let auc = cumulative_dynamic_auc(outcome, outcome, self.risk, &times).map(|auc| OverTime {
            values: auc.auc.into_iter().map(Figure::of).collect(),
            summary: Figure::of(auc.mean),
            times: auc.times,
        });
        Ok(Figures {
            cohort: self.cohort.into(),
            patients: outcome.len(),
            events: outcome.events(),
            median_follow_up: median_follow_up(outcome),
            harrell: Figure::of(concordance),
            uno: Figure::of(uno(outcome, outcome, self.risk, tau)),
            uno_tau: tau,
            auc: Figure::of(auc),
            brier: self.brier(outcome, &times),
            groups: self.groups()?,
        })
    }

    fn interval(&self) -> Result<Interval> {
        Bootstrap::new(self.seed).replicates(self.replicates).interval(self.time.len(), |rows| {
            let time: Vec<f64> = rows.iter().map(|&r| self.time[r]).collect();
            let event: Vec<bool> = rows.iter().map(|&r| self.event[r]).collect();
            let risk: Vec<f64> = rows.iter().map(|&r| self.risk[r]).collect();
            Ok(harrell(Outcome::new(&time, &event)?, &risk)?.index()?)
        })
    }

    fn brier(&self, outcome: Outcome<'_>, times: &[f64]) -> Figure<OverTime> {
        let Some(survival) = self.survival else {
            return Figure::Undefined { undefined: "the model gives risks and no survival probabilities".into() };
        };
        let table: Vec<f64> = (0..self.time.len()).flat_map(|i| times.iter().map(move |&t| survival(i, t))).collect();
        Figure::of(brier(outcome, outcome, times, &table).map(|scores| OverTime {
            summary: Figure::of(scores.integrated()),
            values: scores.scores.into_iter().map(Figure::of).collect(),
            times: scores.times,
        }))
    }

    fn groups(&self) -> Result<GroupsFigure> {
        let group: Vec<usize> = self.risk.iter().map(|&r| usize::from(r <= self.cut)).collect();
        let mut figure = GroupsFigure {
            cut: self.cut,
            patients: [0; 2],
            events: [0; 2],
            median_survival: [None; 2],
            log_rank: Figure::of(
                log_rank(Outcome::new(self.time, self.event)?, &group, None, 0.0)
                    .map(|test| LogRankFigure { chi2: test.chi2, p: test.p }),
            ),
        };
        for g in 0..2 {
            let rows: Vec<usize> = (0..group.len()).filter(|&i| group[i] == g).collect();
            let time: Vec<f64> = rows.iter().map(|&r| self.time[r]).collect();
            let event: Vec<bool> = rows.iter().map(|&r| self.event[r]).collect();
            figure.patients[g] = rows.len();
            figure.events[g] = event.iter().filter(|e| **e).count();
            figure.median_survival[g] = KaplanMeier::fit(Outcome::new(&time, &event)?).median();
        }
        Ok(figure)
    }
}

/// The deciles of the event times, without repeats: where a cohort has something to tell.
fn evaluation_times(time: &[f64], event: &[bool]) -> Vec<f64> {
    let mut events: Vec<f64> = time.iter().zip(event).filter(|(_, e)| **e).map(|(t, _)| *t).collect();
    events.sort_by(f64::total_cmp);
    let mut times: Vec<f64> = DECILES
        .filter_map(|d| events.get((events.len() * d / 10).min(events.len().saturating_sub(1))).copied())
        .collect();
    times.dedup();
    times
}

/// The middle of some values: the mean of the two middle ones of an even number. `None` without any.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluate(time: &[f64], event: &[bool], risk: &[f64]) -> Figures {
        let survival = |i: usize, t: f64| (-t * 0.01 * risk[i].exp()).exp();
        Evaluation { cohort: "c", time, event, risk, survival: Some(&survival), cut: 0.0, seed: 1, replicates: 50 }
            .figures()
            .unwrap()
    }

    #[test]
    fn figures_of_an_ordered_cohort_are_those_of_the_metrics() {
        let time: Vec<f64> = (1..=40).map(f64::from).collect();
        let event: Vec<bool> = (0..40).map(|i| i % 3 != 2).collect();
        let risk: Vec<f64> = time.iter().map(|t| (20.0 - t) / 20.0).collect();
        let figures = evaluate(&time, &event, &risk);
        let harrell = figures.harrell.value().unwrap();
        assert_eq!((harrell.index, harrell.lower, harrell.upper, harrell.discordant), (1.0, 1.0, 1.0, 0));
        // A weighted mean of nine ones: nine roundings at most.
        let auc = *figures.auc.value().unwrap().summary.value().unwrap();
        assert!((auc - 1.0).abs() <= 9.0 * f64::EPSILON, "{auc}");
        assert!(figures.groups.log_rank.value().unwrap().p < 1e-6);
        assert_eq!((figures.patients, figures.events), (40, 27));
    }

    #[test]
    fn a_cohort_without_event_has_sentences_in_place_of_figures() {
        let figures = evaluate(&[1.0, 2.0], &[false, false], &[0.5, -0.5]);
        let json = serde_json::to_string(&figures).unwrap();
        assert!(figures.harrell.value().is_none() && figures.uno.value().is_none());
        assert!(json.contains("no pair of patients is comparable"), "{json}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
