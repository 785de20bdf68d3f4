// Made from the declarations in src/ops/*/cuda.rs, so that a definition that disagrees does not compile.
// `ONKOS_BLESS=1 cargo test --test house entry_points` writes it anew.
#pragma once

// add.cu
extern "C" __global__ void add_forward(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ y, unsigned long long n);
extern "C" __global__ void add_accumulate(const float* __restrict__ x, float* __restrict__ sum, unsigned long long n);

// grouped_linear.cu
extern "C" __global__ void grouped_linear_forward(const float* __restrict__ x, const unsigned int* __restrict__ offsets, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int samples, unsigned int groups, unsigned int inputs, unsigned int outputs, unsigned int function);
extern "C" __global__ void grouped_linear_input(const float* __restrict__ inner, const unsigned int* __restrict__ offsets, const float* __restrict__ weight, float* __restrict__ dx, unsigned int samples, unsigned int groups, unsigned int inputs, unsigned int outputs);
extern "C" __global__ void grouped_linear_weight(const float* __restrict__ inner, const unsigned int* __restrict__ offsets, const float* __restrict__ x, float* __restrict__ dw, unsigned int samples, unsigned int groups, unsigned int inputs, unsigned int outputs);

// layer_norm.cu
extern "C" __global__ void layer_norm_forward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, unsigned int rows, unsigned int columns, float eps);
extern "C" __global__ void layer_norm_backward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad, float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int chunk, float eps);
extern "C" __global__ void layer_norm_sum(const float* __restrict__ partials, float* __restrict__ dw, float* __restrict__ db, unsigned int chunks, unsigned int columns);

// linear.cu
extern "C" __global__ void linear_inner(const float* __restrict__ grad, const float* __restrict__ kept, float* __restrict__ inner, float* __restrict__ sums, unsigned int rows, unsigned int columns, unsigned int chunk, unsigned int function);
extern "C" __global__ void linear_bias(const float* __restrict__ sums, float* __restrict__ bias, unsigned int chunks, unsigned int columns);

// standardize.cu
extern "C" __global__ void standardize_forward(const float* __restrict__ weight, const float* __restrict__ bias, const float* __restrict__ mean, const float* __restrict__ deviation, float* __restrict__ w, float* __restrict__ b, unsigned int inputs);
extern "C" __global__ void standardize_backward(const float* __restrict__ gw, const float* __restrict__ gb, const float* __restrict__ mean, const float* __restrict__ deviation, float* __restrict__ dw, unsigned int inputs);

// matmul_plain.cu
extern "C" __global__ void matmul_nt_plain_f32(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_plain_f16(const __half* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_plain_bf16(const __nv_bfloat16* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_plain(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);
extern "C" __global__ void matmul_tn_plain_f32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_plain_f16(const float* __restrict__ a, const __half* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_plain_bf16(const float* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);

// matmul_split.cu
extern "C" __global__ void matmul_nt_split_f32(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_split_f16(const __half* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_split_bf16(const __nv_bfloat16* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_split(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);
extern "C" __global__ void matmul_tn_split_f32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_split_f16(const float* __restrict__ a, const __half* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_split_bf16(const float* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_nt_split_small(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_split_small(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);

// matmul_tf32.cu
extern "C" __global__ void matmul_nt_tf32_f32(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_tf32_f16(const __half* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_tf32_bf16(const __nv_bfloat16* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_tf32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);
extern "C" __global__ void matmul_tn_tf32_f32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_tf32_f16(const float* __restrict__ a, const __half* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_tf32_bf16(const float* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_nt_tf32_small(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_tf32_small(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);

// matmul_bf16.cu
extern "C" __global__ void matmul_nt_bf16_f32(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_bf16_f16(const __half* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_bf16_bf16(const __nv_bfloat16* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_bf16(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);
extern "C" __global__ void matmul_tn_bf16_f32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_bf16_f16(const float* __restrict__ a, const __half* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_bf16_bf16(const float* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_nt_bf16_small(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_bf16_small(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);

// matmul_f16.cu
extern "C" __global__ void matmul_nt_f16_f32(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_f16_f16(const __half* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nt_f16_bf16(const __nv_bfloat16* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_f16(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);
extern "C" __global__ void matmul_tn_f16_f32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_f16_f16(const float* __restrict__ a, const __half* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_tn_f16_bf16(const float* __restrict__ a, const __nv_bfloat16* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk);
extern "C" __global__ void matmul_nt_f16_small(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k, unsigned int function);
extern "C" __global__ void matmul_nn_f16_small(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k);

// matmul_sum.cu
extern "C" __global__ void matmul_sum(const float* __restrict__ parts, float* __restrict__ c, unsigned int count, unsigned long long size);
