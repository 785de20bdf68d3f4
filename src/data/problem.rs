//! What can be wrong with the files of a cohort.

use std::fmt;

/// One thing that is wrong with a file of a cohort, and what to change.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Problem {}

/// Everything that is wrong with a cohort, in one list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Problems {}
