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

// sdir.cu
extern "C" __global__ void sdir_rescue(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patients, unsigned int* __restrict__ rescued, unsigned int bags, unsigned long long seed, unsigned int epoch, unsigned int purpose, unsigned int threshold);
extern "C" __global__ void sdir_keep(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patients, const unsigned int* __restrict__ rescued, unsigned char* __restrict__ keep, unsigned int rows, unsigned int bags, unsigned long long seed, unsigned int epoch, unsigned int purpose, unsigned int threshold);
extern "C" __global__ void sdir_forward(const float* __restrict__ x, const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patients, const unsigned int* __restrict__ rescued, const float* __restrict__ scale, float* __restrict__ y, unsigned int rows, unsigned int columns, unsigned int bags, unsigned long long seed, unsigned int epoch, unsigned int purpose, unsigned int threshold, float factor, unsigned int gain, float gamma, float k, float temperature);
extern "C" __global__ void sdir_backward(const float* __restrict__ grad, const float* __restrict__ x, const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patients, const unsigned int* __restrict__ rescued, const float* __restrict__ scale, float* __restrict__ dx, unsigned int rows, unsigned int columns, unsigned int bags, unsigned long long seed, unsigned int epoch, unsigned int purpose, unsigned int threshold, float factor, unsigned int gain, float gamma, float k, float temperature);
extern "C" __global__ void sdir_energies(const float* __restrict__ x, const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patients, const unsigned int* __restrict__ rescued, double* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int bags, unsigned int chunks, unsigned long long seed, unsigned int epoch, unsigned int purpose, unsigned int threshold);
extern "C" __global__ void sdir_scale(const double* __restrict__ partials, const unsigned int* __restrict__ offset, float* __restrict__ scale, unsigned int bags, unsigned int chunks);
