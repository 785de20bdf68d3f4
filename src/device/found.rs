//! What this machine has and how it would be used, in sentences, for `onkos doctor`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cache::Cache;
use super::cuda::{Gpu, Products};
use super::driver::{Driver, driver};
use super::module::{self, Attempt, EMBEDDED};
use super::simd_level;
use crate::error::Error;

/// A device that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// As `--device` takes it.
    pub device: String,
    /// Whether onkos can use it.
    pub usable: bool,
    /// What was found, and why it is not used if it is not.
    pub reasons: Vec<String>,
}

/// What was built into this program, and where it keeps what it compiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kernels {
    /// The version of the nvcc of the build, if there was one.
    pub nvcc: Option<&'static str>,
    /// The architectures that machine code is embedded for.
    pub architectures: &'static [&'static str],
    /// The folder of kernels that were compiled at first use, and its state, as a sentence.
    pub cache: String,
}

impl std::fmt::Display for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.nvcc {
            Some(version) => {
                let list = self.architectures.join(", sm_");
                write!(f, "machine code for sm_{list} and PTX are embedded, made by nvcc {version}")
            }
            None => f.write_str("only sources are embedded: nvcc was not there when onkos was built"),
        }
    }
}

/// How this program was built.
pub fn kernels_of_this_build() -> Kernels {
    Kernels { nvcc: EMBEDDED.nvcc, architectures: EMBEDDED.architectures, cache: Cache::of_this_user().state() }
}

/// Every device that onkos looks for, found or not. The kernels of each are loaded to see how that goes.
pub fn find() -> Vec<Found> {
    let cpu = Found { device: "cpu".into(), usable: true, reasons: vec![format!("SIMD level {}", simd_level())] };
    let cards = match driver() {
        Ok(driver) => (0..driver.devices).map(|ordinal| card(ordinal, driver)).collect(),
        Err(why) => vec![Found { device: "cuda".into(), usable: false, reasons: vec![why.into()] }],
    };
    [vec![cpu], cards].concat()
}

fn card(ordinal: usize, driver: Driver) -> Found {
    let device = format!("cuda:{ordinal}");
    let mut reasons = vec![about_driver(driver, EMBEDDED.nvcc)];
    let gpu = match Gpu::open(ordinal) {
        Ok(gpu) => gpu,
        Err(why) => {
            reasons.push(why.to_string());
            return Found { device, usable: false, reasons };
        }
    };
    let (major, minor) = gpu.capability();
    let cores = gpu.multiprocessors();
    reasons.push(format!("{}, compute capability {major}.{minor}, {cores} multiprocessors", gpu.name()));
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    reasons.push(match gpu.memory() {
        Ok((free, total)) => format!("{:.1} of {:.1} GiB of memory are free", gib(free), gib(total)),
        Err(why) => why.to_string(),
    });
    reasons.push(match (gpu.with_products(Products::CublasLt), super::cublaslt::found()) {
        (Ok(_), Ok(library)) => format!("train.products = \"cublaslt\" can be used: {library}"),
        (Err(Error::Products { why, .. }), _) => format!("train.products = \"cublaslt\" cannot be used: {why}"),
        (Err(why), _) => format!("train.products = \"cublaslt\" cannot be used: {why}"),
        (Ok(_), Err(why)) => format!("train.products = \"cublaslt\" cannot be used: {why}"),
    });
    let (mut origins, mut failures, mut missing) =
        (BTreeMap::<_, usize>::new(), Vec::<(Attempt, usize)>::new(), Vec::new());
    for file in module::files(gpu.capability()) {
        let (found, attempts) = module::search(gpu.context(), gpu.capability(), file);
        // A step that fails for all files is told once, with the first reason.
        for attempt in attempts {
            match failures.iter_mut().find(|(known, _)| known.what == attempt.what) {
                Some((_, files)) => *files += 1,
                None => failures.push((attempt, 1)),
            }
        }
        match found {
            Some((_, origin)) => *origins.entry(origin).or_default() += 1,
            None => missing.push(file),
        }
    }
    reasons.extend(origins.into_iter().map(|(origin, count)| format!("kernels of {count} files: {origin}")));
    reasons.extend(failures.into_iter().map(|(attempt, files)| format!("not used for {files} files: {attempt}")));
    if !missing.is_empty() {
        reasons.push(format!("there is no way to load the kernels of {}", missing.join(", ")));
    }
    Found { device, usable: missing.is_empty(), reasons }
}

/// The driver, and whether it takes the code that is embedded.
fn about_driver(driver: Driver, nvcc: Option<&str>) -> String {
    let (major, minor) = (driver.version / 1000, driver.version % 1000 / 10);
    let found = format!("the driver ({}) has CUDA {major}.{minor}", driver.library);
    // Machine code runs on every driver of the CUDA that made it, and of later ones.
    let built = nvcc.and_then(|version| version.split('.').next()?.parse::<i32>().ok());
    match built {
        Some(built) if built > major => {
            format!(
                "{found}, too old for the embedded code of CUDA {built}: NVRTC {major} can compile the kernels instead"
            )
        }
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_older_than_the_embedded_code_is_told() {
        let driver = |version| Driver { version, devices: 1, library: "libcuda.so.1" };
        let plain = "the driver (libcuda.so.1) has CUDA 13.0";
        assert_eq!(about_driver(driver(13_000), Some("13.0.88")), plain);
        assert_eq!(about_driver(driver(13_000), Some("12.8.93")), plain);
        assert_eq!(about_driver(driver(13_000), None), plain);
        let old = about_driver(driver(12_080), Some("13.0.88"));
        assert!(old.contains("CUDA 12.8, too old for the embedded code of CUDA 13"), "{old}");
    }

    #[test]
    fn what_was_built_in_is_a_sentence() {
        let kernels = Kernels { nvcc: Some("13.0.88"), architectures: &["80", "90a"], cache: String::new() };
        assert_eq!(kernels.to_string(), "machine code for sm_80, sm_90a and PTX are embedded, made by nvcc 13.0.88");
        assert!(Kernels { nvcc: None, ..kernels }.to_string().contains("nvcc was not there"));
    }
}
