// matmul_bf16: products of numbers rounded to bf16 (8 bits), added in f32.
// Page: src/ops/linear/mod.rs. A block of eight warps a 128 x 128 tile, a warp 64 x 32 of it; k one after the other.
// Floor on an H200, bf16 features 1M x 1024 -> 512: 1.07 TFLOP at 790 TFLOP/s 1.4 ms, 4.1 GB at 4.3 TB/s 1.0 ms.
#include "matmul_entry.cuh"

MATMUL_ENTRY_POINTS(bf16, RoundBf16)
