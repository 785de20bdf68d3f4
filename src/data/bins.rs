//! Discrete time: which of a few intervals a time falls into.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the edges of the intervals are made. Published results differ by it, so each way has its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BinRule {
    /// As SurvPath and MCAT: intervals closed on the left, the outer edges 1e-6 beyond the shortest and longest time.
    #[default]
    Survpath,
    /// As MMP: intervals closed on the right, the outer edges -1e-6 and 1e6.
    Mmp,
}

/// Intervals of time between the quantiles of the event times they were fitted on.
///
/// A time before the first edge or after the last falls into the first or the last interval: what is fitted on the
/// training patients must hold for every other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Bins {
    rule: BinRule,
    edges: Vec<f64>,
}

/// Bins as someone wrote them down, before their edges are looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    rule: BinRule,
    edges: Vec<f64>,
}

impl TryFrom<Written> for Bins {
    type Error = &'static str;
    fn try_from(Written { rule, edges }: Written) -> Result<Bins, &'static str> {
        if edges.len() >= 3 && ascend(&edges) {
            Ok(Bins { rule, edges })
        } else {
            Err("bins must have at least three edges, each above the one before")
        }
    }
}

/// Whether each is above the one before. NaN is above nothing.
fn ascend(edges: &[f64]) -> bool {
    edges.windows(2).all(|w| w[0] < w[1])
}

impl Bins {
    /// Intervals whose inner edges are the quantiles of the times with an event.
    ///
    /// `times` and `events` are those of the training patients; published code uses all patients, which lets the
    /// validation set leak into its own labels.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are fewer than two bins, or so many that two quantiles of the event times are equal.
    pub fn fit(rule: BinRule, times: &[f64], events: &[bool], bins: usize) -> Result<Bins> {
        if bins < 2 {
            return Err(Error::Setting { name: "train.bins", want: "at least 2", value: bins.to_string() });
        }
        let mut uncensored: Vec<f64> = times.iter().zip(events).filter(|(_, event)| **event).map(|(t, _)| *t).collect();
        uncensored.sort_unstable_by(f64::total_cmp);
        let few = || Error::Setting {
            name: "train.bins",
            want: "so few that the quantiles of the event times differ",
            value: bins.to_string(),
        };
        if uncensored.is_empty() {
            return Err(few());
        }
        let mut edges: Vec<f64> = (0..=bins).map(|b| quantile(&uncensored, b as f64 / bins as f64)).collect();
        if !ascend(&edges) {
            return Err(few());
        }
        (edges[0], edges[bins]) = match rule {
            BinRule::Survpath => {
                let shortest = times.iter().copied().fold(f64::INFINITY, f64::min);
                let longest = times.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                (shortest - 1e-6, longest + 1e-6)
            }
            BinRule::Mmp => (-1e-6, 1e6),
        };
        // With `Mmp`, times beyond 1e6 leave the last interval upside down.
        if ascend(&edges) { Ok(Bins { rule, edges }) } else { Err(few()) }
    }

    /// The number of intervals.
    pub fn len(&self) -> usize {
        self.edges.len() - 1
    }

    /// Always false: there are at least two intervals.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The edges, one more than the intervals.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// The interval that a time falls into, from 0.
    pub fn bin(&self, time: f64) -> usize {
        let inner = &self.edges[1..self.len()];
        match self.rule {
            BinRule::Survpath => inner.partition_point(|&edge| edge <= time),
            BinRule::Mmp => inner.partition_point(|&edge| edge < time),
        }
    }

    /// The intervals of many times.
    pub fn bins(&self, times: &[f64]) -> Vec<usize> {
        times.iter().map(|&time| self.bin(time)).collect()
    }
}

/// The quantile of sorted numbers by linear interpolation (type 7 of Hyndman and Fan, the default of numpy and R).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_an_edge_falls_where_the_rule_closes() {
        let times = [1.0, 2.0, 3.0, 4.0, 5.0];
        let left = Bins::fit(BinRule::Survpath, &times, &[true; 5], 2).unwrap();
        let right = Bins::fit(BinRule::Mmp, &times, &[true; 5], 2).unwrap();
        assert_eq!((left.edges()[1], right.edges()[1]), (3.0, 3.0));
        assert_eq!((left.bin(3.0), right.bin(3.0)), (1, 0));
        assert_eq!((left.bins(&times), right.bins(&times)), (vec![0, 0, 1, 1, 1], vec![0, 0, 0, 1, 1]));
    }

    #[test]
    fn times_beyond_the_training_patients_fall_into_the_outer_intervals() {
        for rule in [BinRule::Survpath, BinRule::Mmp] {
            let bins = Bins::fit(rule, &[1.0, 2.0, 3.0], &[true; 3], 3).unwrap();
            assert_eq!((bins.bin(1e-9), bins.bin(1e9)), (0, 2));
        }
    }

    #[test]
    fn too_few_event_times_are_refused() {
        let refused =
            |events: &[bool], bins| Bins::fit(BinRule::Survpath, &[1.0, 1.0, 3.0, 4.0], events, bins).is_err();
        assert!(refused(&[false; 4], 2));
        assert!(refused(&[true; 4], 1));
        assert!(refused(&[true; 4], 5));
        assert!(refused(&[true, true, false, false], 2), "two events at one time have no quantile between them");
        assert!(!refused(&[true; 4], 2));
    }

    #[test]
    fn bins_survive_being_written_down() {
        let bins = Bins::fit(BinRule::Mmp, &[0.1, 0.7, 3.3], &[true; 3], 3).unwrap();
        let text = serde_json::to_string(&bins).unwrap();
        assert!(text.contains("\"mmp\""));
        assert_eq!(serde_json::from_str::<Bins>(&text).unwrap(), bins);
        for edges in ["[]", "[1,2]", "[1,3,2]", "[1,1,2]"] {
            assert!(serde_json::from_str::<Bins>(&format!(r#"{{"rule":"mmp","edges":{edges}}}"#)).is_err());
        }
    }
}
