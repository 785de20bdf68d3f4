//! `onkos bench`.

use clap::Args;

use super::{Global, Outcome};
use crate::error::Result;

/// Time each op beside what the machine can do.
#[derive(Clone, Debug, Args)]
pub(super) struct Bench {}

impl Bench {
    pub(super) fn run(&self, _: &Global) -> Result<Outcome> {
        Ok(Outcome::Done)
    }
}
