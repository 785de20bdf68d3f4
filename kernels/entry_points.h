// Made from the declarations in src/ops/*/cuda.rs, so that a definition that disagrees does not compile.
// `ONKOS_BLESS=1 cargo test --test house entry_points` writes it anew.
#pragma once

// add.cu
extern "C" __global__ void add_forward(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ y, unsigned long long n);
extern "C" __global__ void add_accumulate(const float* __restrict__ x, float* __restrict__ sum, unsigned long long n);

// concat.cu
extern "C" __global__ void concat_join(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ c, const float* __restrict__ d, float* __restrict__ y, unsigned int rows, unsigned int columns, unsigned int at, unsigned int width_a, unsigned int width_b, unsigned int width_c, unsigned int width_d);
extern "C" __global__ void concat_split(const float* __restrict__ grad, float* __restrict__ a, float* __restrict__ b, float* __restrict__ c, float* __restrict__ d, unsigned int rows, unsigned int columns, unsigned int at, unsigned int width_a, unsigned int width_b, unsigned int width_c, unsigned int width_d);

// dropout.cu
extern "C" __global__ void dropout_map(const float* __restrict__ x, const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patient, float* __restrict__ y, unsigned long long n, unsigned int bags, unsigned int columns, unsigned int threshold, float scale, float shift, float dropped, unsigned long long seed, unsigned int epoch, unsigned int purpose);

// layer_norm.cu
extern "C" __global__ void layer_norm_forward_narrow(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, unsigned int rows, unsigned int columns, unsigned int lanes, float eps);
extern "C" __global__ void layer_norm_forward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, unsigned int rows, unsigned int columns, float eps);
extern "C" __global__ void layer_norm_backward_narrow(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad, float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int chunk, unsigned int lanes, float eps);
extern "C" __global__ void layer_norm_backward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad, float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int chunk, float eps);
extern "C" __global__ void layer_norm_sum(const float* __restrict__ partials, float* __restrict__ dw, float* __restrict__ db, unsigned int chunks, unsigned int columns);
extern "C" __global__ void layer_norm_forward_wide(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, unsigned int rows, unsigned int columns, float eps);
extern "C" __global__ void layer_norm_backward_wide(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad, float* __restrict__ dx, float* __restrict__ stats, unsigned int rows, unsigned int columns, float eps);
extern "C" __global__ void layer_norm_chunks_wide(const float* __restrict__ x, const float* __restrict__ grad, const float* __restrict__ stats, float* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int chunk);

// segment_mean.cu
extern "C" __global__ void segment_mean_tiles(const float* __restrict__ x, const unsigned int* __restrict__ offset, float* __restrict__ partials, float* __restrict__ y, unsigned int n, unsigned int bags, unsigned int columns, unsigned int lanes);
extern "C" __global__ void segment_mean_join(const float* __restrict__ partials, const unsigned int* __restrict__ offset, float* __restrict__ y, unsigned int tiles, unsigned int bags, unsigned int columns, unsigned int lanes);
extern "C" __global__ void segment_mean_backward(const float* __restrict__ grad, const unsigned int* __restrict__ offset, float* __restrict__ dx, unsigned int n, unsigned int bags, unsigned int columns, unsigned int lanes);

// softmax.cu
extern "C" __global__ void softmax_forward_narrow(const float* __restrict__ x, float* __restrict__ y, unsigned int rows, unsigned int columns, unsigned int lanes);
extern "C" __global__ void softmax_forward(const float* __restrict__ x, float* __restrict__ y, unsigned int rows, unsigned int columns);
extern "C" __global__ void softmax_backward_narrow(const float* __restrict__ y, const float* __restrict__ grad, float* __restrict__ dx, unsigned int rows, unsigned int columns, unsigned int lanes);
extern "C" __global__ void softmax_backward(const float* __restrict__ y, const float* __restrict__ grad, float* __restrict__ dx, unsigned int rows, unsigned int columns);
extern "C" __global__ void softmax_forward_wide(const float* __restrict__ x, float* __restrict__ y, unsigned int rows, unsigned int columns);
extern "C" __global__ void softmax_backward_wide(const float* __restrict__ y, const float* __restrict__ grad, float* __restrict__ dx, unsigned int rows, unsigned int columns);
