//! Why a metric has no value.

/// Why a metric has no value for the data it was given. The sentence says what is missing.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Undefined {
    /// There is nobody to evaluate.
    #[error("there is no patient")]
    NoPatient,
    /// No pair can be ordered by its outcome, so concordance has no denominator.
    #[error(
        "no pair of patients is comparable: none has an event after which, or at whose time, another is still followed"
    )]
    NoComparablePair,
    /// As [`NoComparablePair`](Self::NoComparablePair), among the pairs whose earlier time lies before `tau`.
    #[error("no pair of patients is comparable before tau = {tau}; a later tau may have one")]
    NoComparablePairBefore {
        /// The truncation time.
        tau: f64,
    },
    /// The censoring distribution of the training patients gives an event no weight.
    #[error(
        "the censoring survival of the training patients reaches 0 at time {time}, so there is no weight from then on; \
         ask for earlier times"
    )]
    CensoringReachesZero {
        /// The time at which it reaches 0.
        time: f64,
    },
    /// A curve is asked for where nobody is followed any more and it has not reached 0.
    #[error("time {time} lies beyond the follow-up, which ends at {last} with survival above 0; ask for earlier times")]
    BeyondFollowUp {
        /// The time asked for.
        time: f64,
        /// The last time of the curve.
        last: f64,
    },
    /// Nobody has had an event by the time, so there is no case to tell from the controls.
    #[error("no patient has an event by time {time}; ask for a later time")]
    NoCase {
        /// The time asked for.
        time: f64,
    },
    /// Nobody is followed beyond the time, so there is no control to tell from the cases.
    #[error("no patient is followed beyond time {time}; ask for an earlier time")]
    NoControl {
        /// The time asked for.
        time: f64,
    },
    /// A mean over times was asked for with no time at all.
    #[error("there is no time to average over")]
    NoTime,
    /// An integral over times was asked for with fewer than two of them.
    #[error("an integral needs at least two times, but there are {times}")]
    TooFewTimes {
        /// The number of times.
        times: usize,
    },
    /// Survival is 0, where its logarithm and the variance of that are infinite.
    #[error("the survival is 0 at time {time}, where its standard error has no finite value")]
    SurvivalIsZero {
        /// The time of the step.
        time: f64,
    },
    /// Survival is 1, where the log-log transform is infinite.
    #[error("the survival is still 1 at time {time}, where log-log bounds have no finite value; use plain or log")]
    SurvivalIsOne {
        /// The time of the step.
        time: f64,
    },
    /// Fewer than two groups have patients at risk at an event.
    #[error("groups can be compared only if two of them have patients at risk at an event, but {groups} do")]
    TooFewGroups {
        /// The groups with an expected number of events above 0.
        groups: usize,
    },
    /// Groups are never at risk together, so the differences between them have no variance.
    #[error("the variance of the group differences is singular: some groups are never at risk together at an event")]
    SingularVariance,
    /// The statistic is undefined in each bootstrap replicate.
    #[error("the statistic is undefined in each of the {replicates} bootstrap replicates")]
    NoReplicate {
        /// The number of replicates.
        replicates: u32,
    },
}
