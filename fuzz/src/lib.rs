//! What the fuzz targets share: the bodies, which `tests/fuzz_corpus.rs` runs over the kept inputs too, and the limit of
//! memory.

pub mod bodies;
pub mod count;

pub use libfuzzer_sys;

/// Twice this is a machine that many people have; no file of kilobytes should come near it.
#[global_allocator]
static MEMORY: count::Count = count::Count::with_limit(1 << 30);

/// A fuzz target that runs the body of this name.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        use $crate::libfuzzer_sys;

        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            static SCRATCH: std::sync::OnceLock<$crate::bodies::Scratch> = std::sync::OnceLock::new();
            $crate::bodies::$name(SCRATCH.get_or_init($crate::bodies::Scratch::new), bytes);
        });
    };
}
