// Made from the declarations in src/ops/*/cuda.rs, so that a definition that disagrees does not compile.
// `ONKOS_BLESS=1 cargo test --test house entry_points` writes it anew.
#pragma once

// add.cu
extern "C" __global__ void add_forward(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ y, unsigned long long n);
extern "C" __global__ void add_accumulate(const float* __restrict__ x, float* __restrict__ sum, unsigned long long n);

// layer_norm.cu
extern "C" __global__ void layer_norm_forward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, unsigned int rows, unsigned int columns, float eps);
extern "C" __global__ void layer_norm_backward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad, float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int chunk, float eps);
extern "C" __global__ void layer_norm_sum(const float* __restrict__ partials, float* __restrict__ dw, float* __restrict__ db, unsigned int chunks, unsigned int columns);
