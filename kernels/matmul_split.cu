// matmul_split: products of f32 on tensor cores, as good as in f32: see `Split` in matmul.cuh.
// Page: src/ops/linear/mod.rs. A block of eight warps a 128 x 128 tile, a warp 64 x 32 of it; k one after the other.
// Floor on an H200, f32 features 1M x 1024 -> 512: 6 x 1.07 TFLOP at 790 TFLOP/s 8.2 ms (bf16 features: 3 x, 4.1 ms);
// 6.1 GB at 4.3 TB/s 1.4 ms. mma.sync reaches about two thirds of that rate; the f32 adders alone would need 16 ms.
#include "matmul_entry.cuh"

MATMUL_ENTRY_POINTS(split, Split)
