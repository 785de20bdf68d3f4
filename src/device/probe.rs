//! What the processor of this machine has.

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
