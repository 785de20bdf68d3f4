// matmul_f16: products of numbers rounded to f16 (11 bits, at most 65504), added in f32.
// Page: src/ops/linear/mod.rs. A block of eight warps a 128 x 128 tile, a warp 64 x 32 of it; k one after the other.
// Floor on an H200, f16 features 1M x 1024 -> 512: 1.07 TFLOP at 790 TFLOP/s 1.4 ms, 4.1 GB at 4.3 TB/s 1.0 ms.
#include "matmul_entry.cuh"

MATMUL_ENTRY_POINTS(f16, RoundF16)
