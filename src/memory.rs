//! Memory for large arrays on the CPU.
#![allow(unsafe_code)]

use bytemuck::Zeroable;

/// From where on whole large pages are likely to lie in an array.
const LARGE: usize = 8 << 20;

/// An array of zeros. The pages of a large one are asked for in the largest size that the system has, since filling
/// memory in page by page of 4 KiB takes longer than most ops take to write it (`ARCHITECTURE.md` has what it did to reading).
pub(crate) fn zeroed<T: Zeroable>(len: usize) -> Vec<T> {
    let array = bytemuck::zeroed_vec(len);
    if size_of_val(&*array) >= LARGE {
        in_large_pages(&array);
    }
    array
}

/// Asks for large pages where nothing was written yet. A system that has none goes on with small ones.
#[cfg(target_os = "linux")]
fn in_large_pages<T>(array: &[T]) {
    const PAGE: usize = 1 << 21;
    let (start, end) = (array.as_ptr() as usize, array.as_ptr() as usize + size_of_val(array));
    let (start, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    if start < end {
        // SAFETY: the range is that of whole pages within an array that is alive, and MADV_HUGEPAGE changes what the pages are
        // made of and never what is in them. It may fail, which costs time alone.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn in_large_pages<T>(_array: &[T]) {}

/// Has the allocator of this process keep what is freed for the next tensor, for programs that do little else. Left alone, glibc asks
/// the kernel for every large tensor anew, and to fill in its pages takes longer than most ops take to write them.
///
/// To be called first: where there are other threads already, or another allocator, it does nothing.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_freed_memory() {
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1);
    if alone {
        // SAFETY: `mallopt` sets numbers of the allocator and takes any value; no other thread reads them meanwhile.
        unsafe {
            // Large blocks come from the heap, not from pages of their own that are given back with them.
            libc::mallopt(libc::M_MMAP_MAX, 0);
            // -1: the end of the heap is not given back either.
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        }
    }
}

/// Does nothing with allocators other than that of glibc.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_memory() {}

/// More than the caches of most machines keep for one process.
pub(crate) const CACHES: usize = 32 << 20;

/// Copies to memory that is used after the caches have forgotten it: nothing is read of what is written to, and what the
/// caches hold stays.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn copy_past_caches(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "bytes to copy");
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        // SAFETY: any bytes are a vector, and a vector is any bytes.
        let (head, vectors, tail) = unsafe { to.align_to_mut::<__m128i>() };
        let (first, rest) = from.split_at(head.len());
        let (pieces, last) = rest.as_chunks::<16>();
        head.copy_from_slice(first);
        tail.copy_from_slice(last);
        for (to, from) in vectors.iter_mut().zip(pieces) {
            // SAFETY: SSE2 is a part of x86-64; `from` has the 16 bytes that are read, from any address on, and `to`, which is
            // aligned, those that are written.
            unsafe { _mm_stream_si128(to, _mm_loadu_si128(from.as_ptr().cast())) };
        }
        // SAFETY: as above. Such stores are seen by other threads in no order without it.
        unsafe { _mm_sfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_any_size_are_zeros_that_can_be_written() {
        for len in [0, 1, LARGE / 8 - 1, LARGE / 8, LARGE + 1] {
            let mut array: Vec<f64> = zeroed(len);
            assert_eq!(array.len(), len);
            assert!(array.iter().all(|x| x.to_bits() == 0));
            array.fill(1.0);
            drop(array);
            // What was given back with something in it is zeros again.
            assert!(zeroed::<f64>(len).iter().all(|x| x.to_bits() == 0));
        }
    }

    #[test]
    fn bytes_are_copied_from_and_to_any_address_and_none_beside_them() {
        let from: Vec<u8> = (0..300_u32).map(|i| (i * i % 251 + 1) as u8).collect();
        for len in [0, 1, 15, 16, 17, 31, 32, 100, 200] {
            for (start, target) in (0..17).flat_map(|start| (0..17).map(move |target| (start, target))) {
                let mut to = vec![0; 300];
                copy_past_caches(&from[start..start + len], &mut to[target..target + len]);
                assert_eq!(to[target..target + len], from[start..start + len]);
                assert!(to[..target].iter().chain(&to[target + len..]).all(|&byte| byte == 0));
            }
        }
    }
}
