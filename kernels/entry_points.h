// Made from the declarations in src/ops/*/cuda.rs, so that a definition that disagrees does not compile.
// `ONKOS_BLESS=1 cargo test --test house entry_points` writes it anew.
#pragma once

// add.cu
extern "C" __global__ void add_forward(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ y, unsigned long long n);
extern "C" __global__ void add_accumulate(const float* __restrict__ x, float* __restrict__ sum, unsigned long long n);

// gather.cu
extern "C" __global__ void gather_rows_f32(const float* __restrict__ x, const unsigned int* __restrict__ start, const unsigned int* __restrict__ offset, float* __restrict__ y, unsigned int stored, unsigned int bags, unsigned int rows, unsigned int columns);
extern "C" __global__ void gather_rows_f16(const __half* __restrict__ x, const unsigned int* __restrict__ start, const unsigned int* __restrict__ offset, __half* __restrict__ y, unsigned int stored, unsigned int bags, unsigned int rows, unsigned int columns);
extern "C" __global__ void gather_rows_bf16(const __nv_bfloat16* __restrict__ x, const unsigned int* __restrict__ start, const unsigned int* __restrict__ offset, __nv_bfloat16* __restrict__ y, unsigned int stored, unsigned int bags, unsigned int rows, unsigned int columns);

// layer_norm.cu
extern "C" __global__ void layer_norm_forward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, unsigned int rows, unsigned int columns, float eps);
extern "C" __global__ void layer_norm_backward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad, float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int chunk, float eps);
extern "C" __global__ void layer_norm_sum(const float* __restrict__ partials, float* __restrict__ dw, float* __restrict__ db, unsigned int chunks, unsigned int columns);
