//! Each plug-in beside none, and methods by rank.

use serde::Serialize;

use super::preset::Plugin;
use super::results::{Domain, Row, mean};
use crate::evaluate::Figure;
use crate::metrics::Resampled;

/// C with a plug-in less C without, of the same seeds and patients.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The host.
    pub host: String,
    /// What was plugged in.
    pub plugin: Plugin,
    /// The source; absent where it is the mean over all pairs of a source and a target.
    pub source: Option<String>,
    /// The cohort that was judged on; absent as `source` is.
    pub target: Option<String>,
    /// What that is to the model.
    pub domain: Domain,
    /// The difference, or why there is none.
    pub difference: Figure<Difference>,
}

/// A paired difference.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The mean over the seeds: above 0 the plug-in helps.
    pub mean: f64,
    /// The lower bound of the bootstrap interval over patients; both sides see the same resamples.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// The probability of no difference, by the same bootstrap, two-sided.
    pub p: f64,
    /// The same by Holm's rule for all comparisons of the study together.
    pub p_holm: f64,
    /// Seeds with which the plug-in is better, and all of them; over all pairs, pairs.
    pub better: [usize; 2],
}

/// A host with a plug-in among all of them.
#[derive(Clone, Debug, Serialize)]
pub struct Rank {
    /// The host.
    pub host: String,
    /// The plug-in.
    pub plugin: Plugin,
    /// The mean rank by C over the pairs of a source and a target, 1 for the best; ties share the mean of their ranks.
    pub mean_rank: Figure<f64>,
    /// Pairs of a source and a target in which each method has a C.
    pub pairs: usize,
}

/// A comparison before all of them are corrected together.
struct Raw {
    comparison: Comparison,
    resampled: Option<Resampled>,
    better: [usize; 2],
}

/// All comparisons: pair after pair, then the means over the pairs of a source and a target.
pub(super) fn compare(rows: &[Row]) -> Vec<Comparison> {
    let mut all: Vec<Raw> = rows.iter().filter_map(|row| beside_none(row, rows)).collect();
    let mut methods: Vec<(String, Plugin)> = Vec::new();
    for raw in &all {
        let method = (raw.comparison.host.clone(), raw.comparison.plugin);
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    for (host, plugin) in methods {
        let of_it = |raw: &&Raw| {
            raw.comparison.host == host && raw.comparison.plugin == plugin && raw.comparison.domain == Domain::Target
        };
        let pairs: Vec<Option<&Resampled>> = all.iter().filter(of_it).map(|raw| raw.resampled.as_ref()).collect();
        // A mean over one is no other comparison.
        if pairs.len() < 2 {
            continue;
        }
        let better = [pairs.iter().flatten().filter(|x| x.estimate() > 0.0).count(), pairs.len()];
        let each: Option<Vec<&Resampled>> = pairs.iter().copied().collect();
        let resampled = each.map(|each| Resampled::combine(&each, mean));
        let difference = Figure::Undefined { undefined: "one of the pairs has no C".into() };
        let comparison = Comparison { host, plugin, source: None, target: None, domain: Domain::Target, difference };
        all.push(Raw { comparison, resampled, better });
    }
    finish(all)
}

fn beside_none(row: &Row, rows: &[Row]) -> Option<Raw> {
    let same = |other: &&Row| other.source == row.source && other.target == row.target && other.host == row.host;
    let none = rows.iter().filter(same).find(|other| other.plugin == Plugin::None);
    let none = none.filter(|_| row.plugin != Plugin::None)?;
    let values = |row: &Row| row.seeds.iter().map(|seed| seed.concordance.value().copied()).collect::<Vec<_>>();
    let (with, without) = (values(row), values(none));
    let better = with.iter().zip(&without).filter(|(with, without)| with > without).count();
    let resampled = row.resampled.as_ref().zip(none.resampled.as_ref());
    let resampled = resampled.map(|(with, without)| Resampled::combine(&[with, without], |c| c[0] - c[1]));
    let undefined = [row, none].into_iter().find_map(|row| match &row.concordance {
        Figure::Undefined { undefined } => Some(undefined.clone()),
        Figure::Value(_) => None,
    });
    let comparison = Comparison {
        host: row.host.clone(),
        plugin: row.plugin,
        source: Some(row.source.clone()),
        target: Some(row.target.clone()),
        domain: row.domain,
        difference: Figure::Undefined { undefined: undefined.unwrap_or_default() },
    };
    Some(Raw { comparison, resampled, better: [better, row.seeds.len()] })
}

fn finish(all: Vec<Raw>) -> Vec<Comparison> {
    let p = |raw: &Raw| raw.resampled.as_ref().and_then(|resampled| resampled.p_of_zero().ok());
    let corrected = holm(&all.iter().map(p).collect::<Vec<_>>());
    let finished = all.into_iter().zip(corrected).map(|(raw, p_holm)| {
        let Raw { mut comparison, resampled, better } = raw;
        if let (Some(resampled), Some(p_holm)) = (resampled, p_holm) {
            comparison.difference =
                Figure::of(resampled.interval().and_then(|i| Ok((i, resampled.p_of_zero()?))).map(|(interval, p)| {
                    Difference {
                        mean: interval.estimate,
                        lower: interval.lower,
                        upper: interval.upper,
                        p,
                        p_holm,
                        better,
                    }
                }));
        }
        comparison
    });
    finished.collect()
}

/// Holm's step-down correction of those probabilities that there are: S. Holm, "A simple sequentially rejective multiple
/// test procedure", Scandinavian Journal of Statistics 6 (1979) 65-70.
fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&i| p[i].is_some()).collect();
    order.sort_by(|&a, &b| p[a].unwrap_or(1.0).total_cmp(&p[b].unwrap_or(1.0)));
    let (tests, mut least) = (order.len(), 0.0f64);
    let mut corrected = vec![None; p.len()];
    for (place, &i) in order.iter().enumerate() {
        least = least.max(((tests - place) as f64 * p[i].unwrap_or(1.0)).min(1.0));
        corrected[i] = Some(least);
    }
    corrected
}

/// The mean rank of each method over the pairs of a source and a target.
pub(super) fn rank(rows: &[Row]) -> Vec<Rank> {
    let mut methods: Vec<(&str, Plugin)> = Vec::new();
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for row in rows.iter().filter(|row| row.domain == Domain::Target) {
        let (method, pair) = ((row.host.as_str(), row.plugin), (row.source.as_str(), row.target.as_str()));
        if !methods.contains(&method) {
            methods.push(method);
        }
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    let (mut sums, mut counted) = (vec![0.0; methods.len()], 0usize);
    for pair in pairs {
        let of = |&(host, plugin): &(&str, Plugin)| {
            let row = rows.iter().find(|row| {
                (row.source.as_str(), row.target.as_str()) == pair && row.host == host && row.plugin == plugin
            })?;
            Some(row.concordance.value()?.mean)
        };
        // Where one method has none, ranks would be of other methods than elsewhere.
        let Some(values) = methods.iter().map(of).collect::<Option<Vec<f64>>>() else { continue };
        counted += 1;
        ranks(&values).into_iter().zip(&mut sums).for_each(|(rank, sum)| *sum += rank);
    }
    let figure = |sum: f64| match counted {
        0 => Figure::Undefined { undefined: "on no target has each method a C".into() },
        pairs => Figure::Value(sum / pairs as f64),
    };
    let rank = |((host, plugin), sum): ((&str, Plugin), f64)| Rank {
        host: host.into(),
        plugin,
        mean_rank: figure(sum),
        pairs: counted,
    };
    methods.into_iter().zip(sums).map(rank).collect()
}

/// 1 for the largest; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |x: &f64| {
        let above = values.iter().filter(|y| *y > x).count() as f64;
        let equal = values.iter().filter(|y| *y == x).count() as f64;
        above + (equal + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_is_the_textbook_example_and_passes_over_what_was_not_tested() {
        // Sorted .01, .02, .03, .04 of four: 4 x .01, 3 x .02, 2 x .03, 1 x .04, never falling.
        let corrected = holm(&[Some(0.04), None, Some(0.01), Some(0.03), Some(0.02)]);
        let close = |got: Option<f64>, want: f64| (got.unwrap() - want).abs() <= 4.0 * f64::EPSILON;
        assert!(close(corrected[0], 0.06) && close(corrected[2], 0.04) && close(corrected[3], 0.06));
        assert!(close(corrected[4], 0.06) && corrected[1].is_none());
        assert_eq!(holm(&[Some(0.9), Some(0.8)]), [Some(1.0), Some(1.0)]);
    }

    #[test]
    fn ties_share_the_mean_of_their_ranks() {
        assert_eq!(ranks(&[0.5, 0.7, 0.5, 0.6]), [3.5, 1.0, 3.5, 2.0]);
    }
}
