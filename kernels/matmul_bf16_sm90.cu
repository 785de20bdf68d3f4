// matmul_bf16_sm90: products of numbers rounded to bf16 (8 bits), added in f32, by the wgmma of Hopper.
// Page: src/ops/linear/mod.rs. Persistent blocks: a warpgroup for 64 rows of a tile, others that read; k one after the other.
// Floor on an H200, bf16 features 1M x 1024 -> 512: 1.07 TFLOP at 790 TFLOP/s 1.4 ms, 4.1 GB at 4.3 TB/s 1.0 ms.
#include "matmul_sm90.cuh"

MATMUL_SM90_ENTRY_POINTS(bf16, __nv_bfloat16)
