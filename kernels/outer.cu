// The outer product of two rows, and its gradients.
// Page: src/ops/outer/mod.rs.
// Forward a thread an element of the result; back a warp an element of u, whose products lie side by side, and a thread an
// element of v, beside those of its neighbours. Floor: 4 bytes an element of the result.
#include "block.cuh"

// Element i of a row of n, behind which a 1 may stand.
__device__ __forceinline__ float element(const float* __restrict__ row, unsigned i, unsigned n) { return i < n ? row[i] : 1.f; }

extern "C" __global__ void __launch_bounds__(256)
outer_forward(const float* __restrict__ u, const float* __restrict__ v, float* __restrict__ y, unsigned int rows, unsigned int p,
              unsigned int q, unsigned int ones) {
    const size_t at = blockIdx.x * (size_t)256 + threadIdx.x, each = (size_t)(p + ones) * (q + ones);
    if (at >= rows * each) return;
    const size_t row = at / each;
    const unsigned i = unsigned(at % each) / (q + ones), j = unsigned(at % each) % (q + ones);
    y[at] = element(u + row * p, i, p) * element(v + row * q, j, q);
}

extern "C" __global__ void __launch_bounds__(256)
outer_left(const float* __restrict__ v, const float* __restrict__ grad, float* __restrict__ du, unsigned int rows, unsigned int p,
           unsigned int q, unsigned int ones) {
    const size_t at = blockIdx.x * (size_t)8 + threadIdx.x / 32;
    if (at >= (size_t)rows * p) return;
    const size_t row = at / p, i = at % p;
    const float* const g = grad + (row * (p + ones) + i) * (q + ones);
    float sum = 0.f;
    for (unsigned j = threadIdx.x % 32; j < q + ones; j += 32) sum += g[j] * element(v + row * q, j, q);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) du[at] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
outer_right(const float* __restrict__ u, const float* __restrict__ grad, float* __restrict__ dv, unsigned int rows, unsigned int p,
            unsigned int q, unsigned int ones) {
    const size_t at = blockIdx.x * (size_t)256 + threadIdx.x;
    if (at >= (size_t)rows * q) return;
    const size_t row = at / q, j = at % q;
    float sum = 0.f;
    for (unsigned i = 0; i < p + ones; ++i) sum += grad[(row * (p + ones) + i) * (q + ones) + j] * element(u + row * p, i, p);
    dv[at] = sum;
}
