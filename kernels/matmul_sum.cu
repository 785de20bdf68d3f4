// matmul_sum: joins what the chunks of a product a' b (layout tn of matmul_entry.cuh) gave.
// Page: src/ops/linear/mod.rs. A thread an element, chunk after chunk, so that the order is fixed.
// Floor: 4 bytes an element of each chunk, at most 64 of them: 64 x 512 x 1024 is 134 MB, 0.03 ms on an H200.
#include "device.cuh"

extern "C" __global__ void __launch_bounds__(256) matmul_sum(const float* __restrict__ parts, float* __restrict__ c, unsigned int count, unsigned long long size) {
    const size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= size) return;
    float sum = 0;
#pragma unroll 4
    for (unsigned p = 0; p < count; ++p) sum += parts[p * size + i];
    c[i] = sum;
}
