//! Counts the memory that is asked for, and refuses what goes beyond a limit. Shared with `tests/fuzz_corpus.rs`.
//!
//! What the system says of a process misses memory that was asked for and not touched, which is what a file that lies
//! about its extents leads to.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counted.
pub struct Count {
    limit: usize,
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Count {
    /// Gives no memory beyond so many bytes, which ends the program.
    pub const fn with_limit(limit: usize) -> Count {
        Count { limit, now: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    /// The most bytes that were held at a time since the last call, beyond those held then.
    pub fn peak_since(&self, held: usize) -> usize {
        self.peak.swap(self.now.load(Relaxed), Relaxed).saturating_sub(held)
    }

    /// The bytes that are held.
    pub fn held(&self) -> usize {
        self.now.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let now = self.now.fetch_add(bytes, Relaxed).saturating_add(bytes);
        self.peak.fetch_max(now, Relaxed);
        if now > self.limit {
            self.now.fetch_sub(bytes, Relaxed);
        }
        now <= self.limit
    }
}

// SAFETY: memory comes from the system's allocator and goes back to it with the layout that it came with, as the caller
// promises; what is refused is a null pointer, as the trait asks for.
unsafe impl GlobalAlloc for Count {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if self.take(layout.size()) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if self.take(layout.size()) { unsafe { System.alloc_zeroed(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.now.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.take(size.saturating_sub(layout.size())) {
            return std::ptr::null_mut();
        }
        self.now.fetch_sub(layout.size().saturating_sub(size), Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}
