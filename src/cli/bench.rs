//! `onkos bench`.

use clap::{Args, ValueEnum};

use super::{Global, Outcome, print_json};
use crate::bench;
use crate::device::{Device, Products};
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
    /// Whose kernels calculate the products of fully connected layers on a card
    #[arg(long, value_name = "WHOSE", default_value = "own")]
    products: Whose,
    /// Print the names of the cases and time nothing
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Whose {
    Own,
    #[value(name = "cublaslt")]
    CublasLt,
}

impl Bench {
    /// The device with the products that are to be timed.
    fn place(&self, device: Device) -> Result<Device> {
        match (self.products, device) {
            (Whose::Own, device) => Ok(device),
            (Whose::CublasLt, Device::Cuda(_)) => device.with_products(Products::CublasLt),
            (Whose::CublasLt, Device::Cpu) => {
                let want = "own on the CPU, which has no cuBLASLt; use --device cuda:0";
                Err(Error::Setting { name: "--products", want, value: "cublaslt".into() })
            }
        }
    }

    pub(super) fn run(&self, global: &Global, device: Device) -> Result<Outcome> {
        let device = self.place(device)?;
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
