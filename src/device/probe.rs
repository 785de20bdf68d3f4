//! What this machine has, asked without linking to any of it.

use serde::Serialize;

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

/// Every device that onkos looks for, found or not.
pub fn find() -> Vec<Found> {
    let cpu = Found { device: "cpu".into(), usable: true, reasons: vec![format!("SIMD level {}", simd_level())] };
    let mut reasons = vec!["this version of onkos has no CUDA kernels yet".into()];
    reasons.push(match cuda_driver() {
        Some(name) => format!("the driver library {name} is there"),
        None => format!("no driver library: none of {} can be opened", CUDA_DRIVERS.join(", ")),
    });
    vec![cpu, Found { device: "cuda".into(), usable: false, reasons }]
}

#[cfg(windows)]
const CUDA_DRIVERS: [&str; 1] = ["nvcuda.dll"];
#[cfg(not(windows))]
const CUDA_DRIVERS: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

#[allow(unsafe_code)]
fn cuda_driver() -> Option<&'static str> {
    CUDA_DRIVERS.into_iter().find(|name| {
        // SAFETY: opening a library runs its initialisers. The name is that of the system's CUDA driver, which the
        // loader searches in the system's own folders, and which initialises nothing until cuInit is called.
        unsafe { libloading::Library::new(*name) }.is_ok()
    })
}

/// The vector instructions of this machine that the CPU path uses, asked for once by the standard library.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Level {
    /// None in particular.
    Plain,
    /// 256 bits, with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    pub(crate) fn of_this_machine() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                return Level::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Level::Avx2;
            }
        }
        Level::Plain
    }
}

/// The widest vector instructions that the CPU path uses here. Results may differ in rounding between levels.
pub fn simd_level() -> &'static str {
    match Level::of_this_machine() {
        Level::Plain => "plain",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "avx2",
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "avx512",
    }
}

/// The threads that work is spread over. For reports and for sizing benchmarks only: no result may depend on it.
pub fn threads() -> usize {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks, for reports")]
    rayon::current_num_threads()
}

/// The memory of this machine, where the system tells (Linux).
pub fn memory_bytes() -> Option<u64> {
    bytes_of("/proc/meminfo", "MemTotal:")
}

/// The most memory that this process has held so far, where the system tells (Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    bytes_of("/proc/self/status", "VmHWM:")
}

/// An entry of one of the system's tables, which are in kilobytes.
fn bytes_of(table: &str, entry: &str) -> Option<u64> {
    let text = std::fs::read_to_string(table).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(entry))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
