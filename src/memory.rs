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
}
