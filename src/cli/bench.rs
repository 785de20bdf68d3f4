//! `onkos bench`.

use clap::Args;

use super::{Global, Outcome, print_json};
use crate::bench;
use crate::device::Device;
use crate::error::{Error, Result};

/// Time each op beside what the machine can do.
#[derive(Clone, Debug, Args)]
pub(super) struct Bench {
    /// A few seconds instead of about a minute: small shapes, few repeats
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this; names are OP/SHAPE/DTYPE/PASS
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// Print the names of the cases and time nothing
    #[arg(long)]
    list: bool,
}

impl Bench {
    pub(super) fn run(&self, global: &Global, device: Device) -> Result<Outcome> {
        let chosen = |name: &String| self.filter.as_ref().is_none_or(|filter| name.contains(filter));
        let names: Vec<String> = bench::registry().iter().map(bench::Case::name).filter(chosen).collect();
        if names.is_empty() {
            let want = "part of a name that `onkos bench --list` prints";
            return Err(Error::Setting { name: "filter", want, value: self.filter.clone().unwrap_or_default() });
        }
        if self.list {
            if global.json {
                print_json(&names);
            } else {
                for name in &names {
                    say!("{name}");
                }
            }
            return Ok(Outcome::Done);
        }
        let report = bench::run(&bench::Options { device, quick: self.quick, filter: self.filter.clone() });
        if global.json {
            print_json(&report);
        } else {
            say!("{}", report.to_string().trim_end());
        }
        Ok(Outcome::Done)
    }
}
