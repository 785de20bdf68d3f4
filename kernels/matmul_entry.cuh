// The three products that layers need, as entry points of one mode. Tiles are numbered across first: blocks that run
// together share rows of a, which is the large operand; b is a weight and stays in the cache.
//
// nt: c[m, n] = f(a[m, k] b[n, k]' + bias)   forward, f an activation; its argument is stored too if asked for
// nn: c[m, n] = a[m, k] b[k, n]              gradient of the input
// tn: c[m, n] = a[k, m]' b[k, n]             gradient of a weight: k is the long side, blockIdx.y its chunk. Each chunk
//                                            has an m x n of its own in c; matmul_sum adds them in order.
#pragma once
#include "activation.cuh"
#include "matmul.cuh"

namespace matmul {

// What happens to four sums of the product nt on their way out.
struct LayerEnd {
    const float* bias;
    float* y;
    float* argument;
    unsigned n, function;
    __device__ __forceinline__ void operator()(unsigned row, unsigned column, float4 v) const {
        if (bias) {
            v.x += bias[column];
            if (column + 1 < n) v.y += bias[column + 1];
            if (column + 2 < n) v.z += bias[column + 2];
            if (column + 3 < n) v.w += bias[column + 3];
        }
        if (argument) store_four(argument, n, row, column, v);
        v.x = activation::value(function, v.x), v.y = activation::value(function, v.y);
        v.z = activation::value(function, v.z), v.w = activation::value(function, v.w);
        store_four(y, n, row, column, v);
    }
};

template <class Mode, int TILE, class E>
__device__ __forceinline__ void nt(const E* a, const float* b, const LayerEnd& end, unsigned m, unsigned n, unsigned k) {
    using Left = Panel<Mode, E, TILE, true, 2 * TILE>;
    using Right = Panel<Mode, float, TILE, true, 2 * TILE>;
    DYNAMIC_SHARED(unsigned char, shared);
    const unsigned across = (n + TILE - 1) / TILE, row0 = blockIdx.x / across * TILE, column0 = blockIdx.x % across * TILE;
    Sums<TILE> sum;
    multiply<Left, Right>(sum, shared, Operand<E>(a, k, m), Operand<float>(b, k, n), row0, column0, 0, k);
    each_four(sum, reinterpret_cast<float*>(shared), row0, column0, m, n, end);
}
template <class Mode, int TILE>
__device__ __forceinline__ void nn(const float* a, const float* b, float* c, unsigned m, unsigned n, unsigned k) {
    using Left = Panel<Mode, float, TILE, true, 2 * TILE>;
    using Right = Panel<Mode, float, TILE, false, 2 * TILE>;
    DYNAMIC_SHARED(unsigned char, shared);
    const unsigned across = (n + TILE - 1) / TILE, row0 = blockIdx.x / across * TILE, column0 = blockIdx.x % across * TILE;
    Sums<TILE> sum;
    multiply<Left, Right>(sum, shared, Operand<float>(a, k, m), Operand<float>(b, n, n), row0, column0, 0, k);
    each_four(sum, reinterpret_cast<float*>(shared), row0, column0, m, n, [=](unsigned row, unsigned column, const float4& v) { store_four(c, n, row, column, v); });
}
template <class Mode, int TILE, class E>
__device__ __forceinline__ void tn(const float* a, const E* b, float* c, unsigned m, unsigned n, unsigned k, unsigned chunk) {
    using Left = Panel<Mode, float, TILE, false, 2 * TILE>;
    using Right = Panel<Mode, E, TILE, false, 2 * TILE>;
    DYNAMIC_SHARED(unsigned char, shared);
    const unsigned across = (n + TILE - 1) / TILE, row0 = blockIdx.x / across * TILE, column0 = blockIdx.x % across * TILE;
    const unsigned k_begin = blockIdx.y * chunk, k_end = k - k_begin > chunk ? k_begin + chunk : k;
    Sums<TILE> sum;
    multiply<Left, Right>(sum, shared, Operand<float>(a, m, m), Operand<E>(b, n, n), row0, column0, k_begin, k_end);
    float* part = c + (size_t)blockIdx.y * m * n;
    each_four(sum, reinterpret_cast<float*>(shared), row0, column0, m, n, [=](unsigned row, unsigned column, const float4& v) { store_four(part, n, row, column, v); });
}

}  // namespace matmul

#define MATMUL_FEATURES_(mode, Mode, suffix, E)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) matmul_nt_##mode##_##suffix(const E* __restrict__ a, const float* __restrict__ b,            \
        const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k,       \
        unsigned int function) {                                                                                                                 \
        matmul::nt<matmul::Mode, 128>(a, b, matmul::LayerEnd{bias, y, argument, n, function}, m, n, k);                                                           \
    }                                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256) matmul_tn_##mode##_##suffix(const float* __restrict__ a, const E* __restrict__ b,            \
        float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk) {                                               \
        matmul::tn<matmul::Mode, 128>(a, b, c, m, n, k, chunk);                                                                                             \
    }
// All of a mode. `_small` has tiles of 64 x 64 and gives the same bits: for products with too few tiles for the card.
#define MATMUL_ENTRY_POINTS(mode, Mode)                                                                                                            \
    MATMUL_FEATURES_(mode, Mode, f32, float)                                                                                                       \
    MATMUL_FEATURES_(mode, Mode, f16, __half)                                                                                                      \
    MATMUL_FEATURES_(mode, Mode, bf16, __nv_bfloat16)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128) matmul_nt_##mode##_small(const float* __restrict__ a, const float* __restrict__ b,           \
        const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k,       \
        unsigned int function) {                                                                                                                 \
        matmul::nt<matmul::Mode, 64>(a, b, matmul::LayerEnd{bias, y, argument, n, function}, m, n, k);                                                            \
    }                                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256) matmul_nn_##mode(const float* __restrict__ a, const float* __restrict__ b,                   \
        float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k) {                                                                   \
        matmul::nn<matmul::Mode, 128>(a, b, c, m, n, k);                                                                                                    \
    }                                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(128) matmul_nn_##mode##_small(const float* __restrict__ a, const float* __restrict__ b,           \
        float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k) {                                                                   \
        matmul::nn<matmul::Mode, 64>(a, b, c, m, n, k);                                                                                                     \
    }
