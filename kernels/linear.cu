// linear: what a fully connected layer needs beside its products (matmul_*.cu): dL/d(argument of f), sums of its rows.
// Page: src/ops/linear/mod.rs. A block takes 128 columns of a chunk of rows, a warp every eighth row, a lane four columns;
// a second launch adds the chunks. Floor on an H200, 1M x 512: 6.1 GB at 4.3 TB/s 1.4 ms (2.0 GB, 0.5 ms for f = identity).
#include "activation.cuh"
#include "matmul.cuh"

// inner = grad * f'(kept), unless f is the identity and inner is null; sums[chunk, column] = sum of its rows.
extern "C" __global__ void __launch_bounds__(256) linear_inner(const float* __restrict__ grad, const float* __restrict__ kept, float* __restrict__ inner,
    float* __restrict__ sums, unsigned int rows, unsigned int columns, unsigned int chunk, unsigned int function) {
    __shared__ __align__(16) float parts[8][128];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned column = blockIdx.x * 128 + lane * 4, first = blockIdx.y * chunk, last = rows - first > chunk ? first + chunk : rows;
    const unsigned valid = column < columns ? min(columns - column, 4u) : 0;
    const bool wide = columns % 4 == 0;
    float sum[4] = {};
    if (valid)
#pragma unroll 4
        for (unsigned row = first + warp; row < last; row += 8) {
            const size_t at = (size_t)row * columns + column;
            float g[4] = {}, k[4] = {};
            if (wide) {
                *reinterpret_cast<float4*>(g) = *reinterpret_cast<const float4*>(grad + at);
                if (inner) *reinterpret_cast<float4*>(k) = *reinterpret_cast<const float4*>(kept + at);
            } else
#pragma unroll
                for (unsigned i = 0; i < 4; ++i)
                    if (i < valid) {
                        g[i] = grad[at + i];
                        if (inner) k[i] = kept[at + i];
                    }
            if (inner) {
#pragma unroll
                for (int i = 0; i < 4; ++i) g[i] *= activation::slope(function, k[i]);
                matmul::store_four(inner, columns, row, column, make_float4(g[0], g[1], g[2], g[3]));
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i] += g[i];
        }
    *reinterpret_cast<float4*>(&parts[warp][lane * 4]) = make_float4(sum[0], sum[1], sum[2], sum[3]);
    __syncthreads();  // the sums of all warps are there
    const unsigned mine = blockIdx.x * 128 + threadIdx.x;
    if (threadIdx.x < 128 && mine < columns) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < 8; ++w) total += parts[w][threadIdx.x];
        sums[(size_t)blockIdx.y * columns + mine] = total;
    }
}

// The sums of the columns of `sums`, chunk by chunk: a block takes 32 columns, a warp every eighth chunk.
extern "C" __global__ void __launch_bounds__(256) linear_bias(const float* __restrict__ sums, float* __restrict__ bias, unsigned int chunks, unsigned int columns) {
    __shared__ float parts[8][32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    float sum = 0;
    if (column < columns)
#pragma unroll 4
        for (unsigned c = warp; c < chunks; c += 8) sum += sums[(size_t)c * columns + column];
    parts[warp][lane] = sum;
    __syncthreads();  // the sums of all warps are there
    if (warp == 0 && column < columns) {
        float total = 0;
#pragma unroll
        for (int w = 0; w < 8; ++w) total += parts[w][lane];
        bias[column] = total;
    }
}
