//! The risk sets of a group of patients: sorted once, used in every pass over the same patients.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::layout::Lazy;
use crate::error::{Error, Result};

/// What is known of each patient: the arguments of [`Plan::new`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcomes<'a> {
    /// Follow-up until death or censoring, in any unit: finite and not negative.
    pub time: &'a [f64],
    /// Whether the patient died then; censored otherwise.
    pub event: &'a [bool],
    /// How much each patient counts: finite and not negative, 1 if not given. Weight 0 removes the patient.
    pub weight: Option<&'a [f64]>,
    /// Patients are compared within their stratum only. One stratum, 0, if not given.
    pub strata: Option<&'a [u32]>,
    /// Left truncation: patients are at risk only after this time (not at it), which must lie before their `time`.
    pub entry: Option<&'a [f64]>,
}

impl<'a> Outcomes<'a> {
    /// Times and events alone.
    pub fn new(time: &'a [f64], event: &'a [bool]) -> Outcomes<'a> {
        Outcomes { time, event, ..Outcomes::default() }
    }
}

/// The risk sets of a group of patients. It depends on their outcomes and not on any prediction, so it is made once for
/// a cohort or for each composition of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(super) rows: Vec<Row>,
    pub(super) moments: Vec<Moment>,
    pub(super) strata: Vec<Stratum>,
    pub(super) truncated: bool,
    /// Where each patient is put down, unless risk sets are truncated: see [`Slot`].
    pub(super) slots: Vec<Slot>,
    pub(super) weight: Option<Vec<f64>>,
    pub(super) layout: Lazy,
    events: usize,
    pairs: u64,
}

/// A patient, as far as risk sets go: at risk at the moments `first..end` without dying, and then dying at moment
/// `end` or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) weight: f64,
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) dies: bool,
}

/// `2 e` for the patients whose last survived moment is `e`, `2 e + 1` for those who die at it; the number after all of
/// these for who was never at risk at a death. One number a patient, so that passes over many read little.
pub(super) type Slot = u32;

/// Patients that one task looks at: fewer are done before another thread has woken up.
pub(super) const PATIENTS: usize = 16_384;

/// A time at which somebody in a stratum dies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    pub(super) time: f64,
    pub(super) deaths: usize,
    pub(super) weight: f64,
}

/// The moments of one stratum, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stratum {
    pub(super) label: u32,
    pub(super) moments: Range<usize>,
}

impl Plan {
    /// Checks the outcomes and sorts them.
    ///
    /// # Errors
    /// [`Error::Shape`] if the slices have different lengths, [`Error::Value`] if an element is outside the range that
    /// [`Outcomes`] gives.
    pub fn new(outcomes: &Outcomes<'_>) -> Result<Plan> {
        check(outcomes)?;
        let n = outcomes.time.len();
        // `+ 0.0` makes -0 a plain 0, so that equal times are equal to the sort too.
        let time = |i: usize| outcomes.time[i] + 0.0;
        let weight = |i: usize| outcomes.weight.map_or(1.0, |w| w[i]);
        let stratum = |i: usize| outcomes.strata.map_or(0, |s| s[i]);

        // Numbers that are not negative sort like their bits; the place keeps the order of ties.
        let dies = |i: &usize| outcomes.event[*i] && weight(*i) > 0.0;
        let mut dying: Vec<(u32, u64, usize)> =
            (0..n).filter(dies).map(|i| (stratum(i), time(i).to_bits(), i)).collect();
        dying.par_sort_unstable();
        let mut labels = outcomes.strata.map_or_else(|| vec![0; n.min(1)], <[u32]>::to_vec);
        labels.sort_unstable();
        labels.dedup();

        let mut moments: Vec<Moment> = Vec::new();
        let mut strata = Vec::with_capacity(labels.len());
        let mut rest = dying.iter().map(|&(.., i)| i).peekable();
        for label in labels {
            let start = moments.len();
            while let Some(i) = rest.next_if(|&i| stratum(i) == label) {
                match moments[start..].last_mut() {
                    Some(last) if last.time == time(i) => {
                        last.deaths += 1;
                        last.weight += weight(i);
                    }
                    _ => moments.push(Moment { time: time(i), deaths: 1, weight: weight(i) }),
                }
            }
            strata.push(Stratum { label, moments: start..moments.len() });
        }

        let truncated = AtomicBool::new(false);
        let times: Vec<f64> = moments.iter().map(|m| m.time).collect();
        let row = |i: usize| {
            if weight(i) == 0.0 {
                return Row { weight: 0.0, first: 0, end: 0, dies: false };
            }
            let of = strata.binary_search_by_key(&stratum(i), |s| s.label).expect("every label was listed");
            let Range { start, end } = strata[of].moments.clone();
            let until = |t: f64| start + times[start..end].partition_point(|time| *time <= t);
            let first = outcomes.entry.map_or(start, |entry| until(entry[i]));
            if first > start {
                truncated.store(true, Ordering::Relaxed);
            }
            let dies = outcomes.event[i];
            Row { weight: weight(i), first, end: until(time(i)) - usize::from(dies), dies }
        };
        let rows: Vec<Row> = (0..n).into_par_iter().with_min_len(PATIENTS).map(row).collect();
        let (truncated, pairs) = (truncated.into_inner(), pairs(&rows, &moments));
        let slots = if truncated { Vec::new() } else { slots(&rows, moments.len()) };
        let weight = outcomes.weight.map(<[f64]>::to_vec);
        Ok(Plan {
            rows,
            moments,
            strata,
            truncated,
            slots,
            weight,
            layout: Lazy::default(),
            events: dying.len(),
            pairs,
        })
    }

    /// The number of patients, those of weight 0 included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no patient.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The number of deaths (of patients whose weight is not 0).
    pub fn events(&self) -> usize {
        self.events
    }

    /// The sum of the weights of the deaths: their number where there are no weights.
    pub fn event_weight(&self) -> f64 {
        self.moments.iter().map(|m| m.weight).sum()
    }

    /// The number of comparisons in the likelihood: pairs of a death and another patient at risk at that time. Where
    /// it is 0 the likelihood does not depend on any prediction, and a training step learns nothing.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }
}

fn slots(rows: &[Row], moments: usize) -> Vec<Slot> {
    let slot = |row: &Row| {
        let slot = match row {
            Row { dies: true, end, .. } => 2 * end + 1,
            Row { first, end, .. } if first < end => 2 * (end - 1),
            _ => 2 * moments,
        };
        Slot::try_from(slot).expect("fewer than two billion times of death")
    };
    rows.par_iter().with_min_len(PATIENTS).map(slot).collect()
}

fn pairs(rows: &[Row], moments: &[Moment]) -> u64 {
    // Patients that come to and leave the risk sets, moment by moment; a death is at risk at its own moment too.
    let mut change = vec![0i64; moments.len() + 1];
    for row in rows.iter().filter(|row| row.weight > 0.0) {
        change[row.first] += 1;
        change[row.end + usize::from(row.dies)] -= 1;
    }
    let mut at_risk = 0;
    let others = change.iter().zip(moments).map(|(change, moment)| {
        at_risk += change;
        moment.deaths as u64 * (at_risk - 1) as u64
    });
    others.sum()
}

fn check(outcomes: &Outcomes<'_>) -> Result<()> {
    let n = outcomes.time.len();
    let lengths = [
        ("event", Some(outcomes.event.len())),
        ("weight", outcomes.weight.map(<[f64]>::len)),
        ("strata", outcomes.strata.map(<[u32]>::len)),
        ("entry", outcomes.entry.map(<[f64]>::len)),
    ];
    for (arg, len) in lengths {
        if let Some(len) = len.filter(|&len| len != n) {
            return Err(Error::Shape { op: "cox", arg, want: format!("[{n}]"), got: vec![len] });
        }
    }
    let value = |arg, want, x: &[f64], right: &dyn Fn(usize) -> bool| match (0..n).find(|&i| !right(i)) {
        Some(index) => Err(Error::Value { op: "cox", arg, want, index, value: x[index] }),
        None => Ok(()),
    };
    let natural = |x: f64| x.is_finite() && x >= 0.0;
    value("time", "finite and not negative", outcomes.time, &|i| natural(outcomes.time[i]))?;
    if let Some(weight) = outcomes.weight {
        value("weight", "finite and not negative", weight, &|i| natural(weight[i]))?;
    }
    if let Some(entry) = outcomes.entry {
        value("entry", "before the time of its patient", entry, &|i| entry[i] < outcomes.time[i])?;
    }
    Ok(())
}
