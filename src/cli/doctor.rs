//! `onkos doctor`.

use clap::Args;
use serde::Serialize;

use super::progress::gib;
use super::{Global, Outcome, print_json};
use crate::device;
use crate::error::Result;

/// What this build and this machine can do.
#[derive(Clone, Debug, Args)]
pub(super) struct Doctor {}

#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    target: String,
    cores: usize,
    threads: usize,
    simd: &'static str,
    memory_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    kernels: device::Kernels,
    devices: Vec<device::Found>,
}

impl Doctor {
    pub(super) fn run(&self, global: &Global) -> Result<Outcome> {
        let findings = Findings {
            version: env!("CARGO_PKG_VERSION"),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: device::threads(),
            simd: device::simd_level(),
            memory_bytes: device::memory_bytes(),
            memory_limit_bytes: device::memory_limit_bytes(),
            // First: looking at the devices may compile kernels into the cache.
            kernels: device::kernels_of_this_build(),
            devices: device::find(),
        };
        if global.json {
            print_json(&findings);
            return Ok(Outcome::Done);
        }
        say!("onkos {} on {}", findings.version, findings.target);
        say!("threads  {} of {} cores", findings.threads, findings.cores);
        say!("simd     {}", findings.simd);
        if let Some(bytes) = findings.memory_bytes {
            let limit = findings.memory_limit_bytes.filter(|limit| *limit < bytes);
            let limit =
                limit.map_or(String::new(), |limit| format!(", of which this process may take {:.1}", gib(limit)));
            say!("memory   {:.1} GiB{limit}", gib(bytes));
        }
        say!("kernels  {}", findings.kernels);
        say!("cache    {}", findings.kernels.cache);
        for found in &findings.devices {
            say!("{:<8} {}", found.device, if found.usable { "usable" } else { "not used" });
            for reason in &found.reasons {
                say!("         {reason}");
            }
        }
        Ok(Outcome::Done)
    }
}
