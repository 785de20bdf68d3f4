//! What this machine has for the CPU path: vector instructions, threads, memory.

use std::path::{Path, PathBuf};

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

/// The memory that this process may take at most, swap included, where the system tells (Linux): that of the machine, of the
/// control groups that the process is in, and what `ulimit -d` and `ulimit -v` allow.
pub fn memory_limit_bytes() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let of_groups = group_files(&groups).into_iter().filter_map(|file| read(&file)?.trim().parse::<u64>().ok()).min();
    let ulimit = ulimit(&read(Path::new("/proc/self/limits")).unwrap_or_default());
    // What a machine or a group has no room for goes to the swap.
    let swap = bytes_of("/proc/meminfo", "SwapTotal:").unwrap_or(0);
    let memory = [memory_bytes(), of_groups].into_iter().flatten().min().map(|bytes| bytes.saturating_add(swap));
    [memory, ulimit].into_iter().flatten().min()
}

/// The files that may hold a limit of memory of the control groups that a process is in, by `/proc/self/cgroup`: those of the groups
/// above count, too, and a container sees its own group where the outermost is.
fn group_files(groups: &str) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            several if several.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let mount = Path::new(mount);
        let above = Path::new(group.trim_start_matches('/')).ancestors().map(move |group| mount.join(group).join(file));
        Some(above.collect::<Vec<_>>())
    };
    groups.lines().filter_map(of_line).flatten().collect()
}

/// The least that a process may take by `/proc/self/limits`.
fn ulimit(limits: &str) -> Option<u64> {
    let of_name = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    ["Max data size", "Max address space"].into_iter().filter_map(of_name).min()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_a_process_and_those_above_have_limits() {
        let files = |text: &str| -> Vec<String> {
            group_files(text).iter().map(|file| file.to_str().unwrap().to_owned()).collect()
        };
        let second = files("0::/user.slice/job_7\n");
        let of = |group: &str| format!("/sys/fs/cgroup{group}/memory.max");
        assert_eq!(second, [of("/user.slice/job_7"), of("/user.slice"), of("")]);
        let first = files("9:name=systemd:/\n5:cpu,memory:/a/b:c\n4:memory_pressure:/x\n");
        let of = |group: &str| format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes");
        assert_eq!(first, [of("/a/b:c"), of("/a"), of("")]);
        assert!(files("").is_empty() && files("strange\n1\n").is_empty());
    }

    #[test]
    fn the_least_of_the_limits_of_a_shell_counts() {
        let told = |data: &str, space: &str| {
            ulimit(&format!(
                "Limit  Soft\nMax data size   {data}  unlimited  bytes\nMax address space  {space} 5 bytes\n"
            ))
        };
        assert_eq!(told("unlimited", "unlimited"), None);
        assert_eq!((told("7000", "unlimited"), told("7000", "6000")), (Some(7000), Some(6000)));
        assert_eq!(ulimit(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_may_take_what_it_has_taken() {
        assert!(memory_limit_bytes() >= peak_memory_bytes() && peak_memory_bytes().is_some());
    }
}
