//! Percentile intervals by resampling patients.

use rayon::prelude::*;

use super::{Undefined, check_level};
use crate::rng::Draws;
use crate::{Error, Result};

/// A bootstrap over patients: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979) 1-26; the
/// percentile interval is that of B. Efron and R. Tibshirani (1993), chapter 13.
///
/// Each replicate draws as many patients as there are, with replacement, and computes the statistic of these. The draws of
/// replicate r depend on the seed and on r alone (purpose `"bootstrap"`, patient r), so the result has the same bits on any number of
/// threads, and two statistics with the same seed and number of patients see the same resamples.
///
/// ```
/// use onkos::metrics::{Bootstrap, Outcome, harrell};
///
/// let (time, event) = ([2.0, 5.0, 7.0, 9.0, 11.0], [true, false, true, true, false]);
/// let risk = [1.5, 0.2, -0.3, -0.1, -2.0];
/// let outcome = Outcome::new(&time, &event)?;
/// let interval = Bootstrap::new(7).interval(outcome.len(), |rows| {
///     let (time, event) = outcome.select(rows);
///     let risk: Vec<f64> = rows.iter().map(|&i| risk[i]).collect();
///     Ok(harrell(Outcome::new(&time, &event)?, &risk)?.index()?)
/// })?;
/// assert!(interval.lower <= interval.estimate && interval.estimate <= interval.upper);
/// # Ok::<(), onkos::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    seed: u64,
    replicates: u32,
    level: f64,
}

/// An estimate with its bootstrap percentile interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The statistic of all patients, each once.
    pub estimate: f64,
    /// The lower bound.
    pub lower: f64,
    /// The upper bound.
    pub upper: f64,
    /// The confidence level, such as 0.95.
    pub level: f64,
    /// How many replicates were drawn.
    pub replicates: u32,
    /// How many of them had no value; the bounds are percentiles of the others. Report it: many of them mean that the bounds
    /// describe only the resamples that happened to have a value.
    pub undefined: u32,
}

impl Bootstrap {
    /// 1000 replicates and a level of 0.95.
    pub fn new(seed: u64) -> Bootstrap {
        Bootstrap { seed, replicates: 1000, level: 0.95 }
    }

    /// With another number of replicates, at least 1.
    #[must_use]
    pub fn replicates(self, replicates: u32) -> Bootstrap {
        Bootstrap { replicates, ..self }
    }

    /// With another confidence level, between 0 and 1.
    #[must_use]
    pub fn level(self, level: f64) -> Bootstrap {
        Bootstrap { level, ..self }
    }

    /// The interval of a statistic of `patients` patients, which gets the rows of a resample: indices below `patients`, some more than
    /// once. The bounds are the quantiles (1 - level) / 2 and (1 + level) / 2 of the replicates that have a value, interpolated
    /// linearly between order statistics (R's type 7).
    ///
    /// # Errors
    /// [`Error::Setting`] for no replicate, a level outside (0, 1), or more than 2^32 - 1 patients; [`Error::Value`] if the statistic
    /// is not finite, with the replicate as the index. [`Error::Undefined`] if the statistic of all patients is undefined,
    /// if it is undefined in each replicate ([`Undefined::NoReplicate`]), or without a patient. Any other error of the
    /// statistic is handed on: that of all patients first, then that of the first replicate that has one.
    pub fn interval(&self, patients: usize, statistic: impl Fn(&[usize]) -> Result<f64> + Sync) -> Result<Interval> {
        self.resampled(patients, statistic)?.interval()
    }

    /// The statistic of all patients and of each resample: to compare statistics that saw the same resamples.
    ///
    /// # Errors
    /// As [`interval`](Self::interval), but that it may be undefined in each replicate.
    pub fn resampled(&self, patients: usize, statistic: impl Fn(&[usize]) -> Result<f64> + Sync) -> Result<Resampled> {
        check_level("bootstrap.level", self.level)?;
        if self.replicates == 0 {
            return Err(Error::Setting { name: "bootstrap.replicates", want: "at least 1", value: "0".into() });
        }
        let n = u32::try_from(patients).map_err(|_| Error::Setting {
            name: "bootstrap.patients",
            want: "below 2^32",
            value: patients.to_string(),
        })?;
        if n == 0 {
            return Err(Undefined::NoPatient.into());
        }
        let estimate = finite(0, statistic(&(0..patients).collect::<Vec<_>>())?)?;
        let draws = Draws::new(self.seed, 0, "bootstrap");
        let replicate = |r: u32| {
            let stream = draws.of(r);
            let rows: Vec<usize> = (0..u64::from(n)).map(|i| stream.below(i, n) as usize).collect();
            match statistic(&rows) {
                Ok(value) => finite(r as usize, value).map(Some),
                Err(Error::Undefined(_)) => Ok(None),
                Err(other) => Err(other),
            }
        };
        // Collected in the order of the replicates before anything is combined: neither the values nor the first error depend on
        // the number of threads.
        let results: Vec<Result<Option<f64>>> = (0..self.replicates).into_par_iter().map(replicate).collect();
        let values = results.into_iter().collect::<Result<Vec<Option<f64>>>>()?;
        Ok(Resampled { estimate, values, level: self.level })
    }

    /// The interval of the difference `a - b` of two statistics of the same patients, such as two models on one test set: both see
    /// the same resample, so what they share cancels. A replicate is undefined if either of the two is. An interval that
    /// leaves out 0 says that one is better at this level.
    ///
    /// # Errors
    /// As [`interval`](Self::interval).
    pub fn difference(
        &self,
        patients: usize,
        a: impl Fn(&[usize]) -> Result<f64> + Sync,
        b: impl Fn(&[usize]) -> Result<f64> + Sync,
    ) -> Result<Interval> {
        self.interval(patients, |rows| Ok(a(rows)? - b(rows)?))
    }
}

/// A statistic of all patients and of each resample.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled {
    estimate: f64,
    /// `None` where the statistic of a resample is undefined.
    values: Vec<Option<f64>>,
    level: f64,
}

impl Resampled {
    /// The statistic of all patients.
    pub fn estimate(&self) -> f64 {
        self.estimate
    }

    /// What `combine` makes of several statistics, replicate by replicate; undefined where one of them is. They must be
    /// of as many replicates; those of the same patients share their resamples if they share the seed.
    ///
    /// # Panics
    /// Without a statistic, or if they have not the same number of replicates.
    pub fn combine(of: &[&Resampled], combine: impl Fn(&[f64]) -> f64) -> Resampled {
        assert!(of.iter().all(|x| x.values.len() == of[0].values.len()), "statistics of different bootstraps");
        let each = |r: usize| of.iter().map(|x| x.values[r]).collect::<Option<Vec<f64>>>().map(|x| combine(&x));
        Resampled {
            estimate: combine(&of.iter().map(|x| x.estimate).collect::<Vec<_>>()),
            values: (0..of[0].values.len()).map(each).collect(),
            level: of[0].level,
        }
    }

    /// The percentile interval.
    ///
    /// # Errors
    /// [`Undefined::NoReplicate`] if no replicate has a value.
    pub fn interval(&self) -> Result<Interval> {
        let replicates = self.values.len() as u32;
        let mut values: Vec<f64> = self.values.iter().copied().flatten().collect();
        if values.is_empty() {
            return Err(Undefined::NoReplicate { replicates }.into());
        }
        values.sort_by(f64::total_cmp);
        Ok(Interval {
            estimate: self.estimate,
            lower: quantile(&values, 0.5 - 0.5 * self.level),
            upper: quantile(&values, 0.5 + 0.5 * self.level),
            level: self.level,
            replicates,
            undefined: replicates - values.len() as u32,
        })
    }

    /// The two-sided probability that belongs to the percentile interval: twice the smaller share of replicates at or beyond 0,
    /// of a statistic that is 0 if there is nothing to it, such as a difference.
    ///
    /// ```text
    /// p = min(1, 2 (1 + min(#{x <= 0}, #{x >= 0})) / (1 + #x))
    /// ```
    ///
    /// The ones keep it above 0 (A. Davison and D. Hinkley, "Bootstrap methods and their application", 1997, chapter 4): `R`
    /// replicates never give less than 2 / (R + 1).
    ///
    /// # Errors
    /// [`Undefined::NoReplicate`] if no replicate has a value.
    pub fn p_of_zero(&self) -> Result<f64> {
        let values = || self.values.iter().flatten();
        let (below, above) = (values().filter(|x| **x <= 0.0).count(), values().filter(|x| **x >= 0.0).count());
        match values().count() {
            0 => Err(Undefined::NoReplicate { replicates: self.values.len() as u32 }.into()),
            n => Ok((2.0 * (1 + below.min(above)) as f64 / (1 + n) as f64).min(1.0)),
        }
    }
}

/// Refuses a value that says "undefined" without saying why.
fn finite(index: usize, value: f64) -> Result<f64> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::Value { op: "bootstrap", arg: "statistic", want: "finite, or an error that says why not", index, value })
}

/// Quantile `p` of ascending values, linear between order statistics: position p (n - 1).
fn quantile(values: &[f64], p: f64) -> f64 {
    let position = p * (values.len() - 1) as f64;
    let below = position as usize;
    let (low, high) = (values[below], values[(below + 1).min(values.len() - 1)]);
    low + (position - below as f64) * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resampled(estimate: f64, values: &[Option<f64>]) -> Resampled {
        Resampled { estimate, values: values.to_vec(), level: 0.95 }
    }

    #[test]
    fn a_difference_that_is_never_on_the_other_side_has_the_least_probability() {
        let values: Vec<Option<f64>> = (1..=99).map(|i| Some(f64::from(i))).collect();
        assert_eq!(resampled(50.0, &values).p_of_zero().unwrap(), 0.02);
        // 25 of 100 at or below 0.
        let values: Vec<Option<f64>> = (-24..=75).map(|i| Some(f64::from(i))).collect();
        assert_eq!(resampled(25.0, &values).p_of_zero().unwrap(), 2.0 * 26.0 / 101.0);
        assert_eq!(resampled(0.0, &[Some(0.0); 9]).p_of_zero().unwrap(), 1.0, "no difference at all");
        assert!(matches!(resampled(0.0, &[None]).p_of_zero(), Err(Error::Undefined(Undefined::NoReplicate { .. }))));
    }

    #[test]
    fn statistics_are_combined_replicate_by_replicate() {
        let (a, b) =
            (resampled(3.0, &[Some(1.0), None, Some(4.0)]), resampled(1.0, &[Some(2.0), Some(0.0), Some(1.0)]));
        let difference = Resampled::combine(&[&a, &b], |x| x[0] - x[1]);
        assert_eq!(difference, resampled(2.0, &[Some(-1.0), None, Some(3.0)]));
        let interval = difference.interval().unwrap();
        assert_eq!((interval.estimate, interval.replicates, interval.undefined), (2.0, 3, 1));
    }

    #[test]
    fn a_combined_difference_is_that_of_the_paired_bootstrap() {
        let values = [0.3, -1.2, 2.5, 0.9, 1.1, -0.4, 0.0];
        let mean = |rows: &[usize]| Ok(rows.iter().map(|&i| values[i]).sum::<f64>() / rows.len() as f64);
        let largest = |rows: &[usize]| Ok(rows.iter().map(|&i| values[i]).fold(f64::NEG_INFINITY, f64::max));
        let bootstrap = Bootstrap::new(3).replicates(50);
        let (a, b) = (bootstrap.resampled(7, largest).unwrap(), bootstrap.resampled(7, mean).unwrap());
        let combined = Resampled::combine(&[&a, &b], |x| x[0] - x[1]).interval().unwrap();
        assert_eq!(combined, bootstrap.difference(7, largest, mean).unwrap());
    }
}
