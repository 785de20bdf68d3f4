// matmul_tf32: products of numbers rounded to tf32 (11 bits), added in f32.
// Page: src/ops/linear/mod.rs. A block of eight warps a 128 x 128 tile, a warp 64 x 32 of it; k one after the other.
// Floor on an H200, f32 features 1M x 1024 -> 512: 1.07 TFLOP at 395 TFLOP/s 2.7 ms, 6.1 GB at 4.3 TB/s 1.4 ms.
#include "matmul_entry.cuh"

MATMUL_ENTRY_POINTS(tf32, RoundTf32)
