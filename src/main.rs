//! The program `onkos`.
#![allow(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    keep_freed_memory();
    onkos::cli::run()
}

/// Has the allocator keep what is freed for the next tensor. Left alone, glibc asks the kernel for every large tensor
/// anew, and to fill in its pages takes longer than most ops take to write them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    // SAFETY: `mallopt` sets numbers of the allocator and takes any value; there is no other thread yet.
    unsafe {
        // Large blocks come from the heap, not from pages of their own that are given back with them.
        libc::mallopt(libc::M_MMAP_MAX, 0);
        // -1: the end of the heap is not given back either.
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}
