// grouped_linear: hundreds of small fully connected layers in one launch, forward and backward.
// Page: src/ops/grouped_linear/mod.rs.
// A block has a tile of 32 x 64 of one group's product (blockIdx.x is the group) and goes along the whole sum, a thread
// 4 x 4 of it. Floor on an H200, 331 groups of 15,000 columns in all, 256 outputs: the weights are 15 MB, 4 us once
// from memory; at 32 samples 0.25 GFLOP, 4 us on the f32 adders: no precision but f32 is worth its rounding.
#include "activation.cuh"

constexpr int ROWS = 32, COLUMNS = 64, DEPTH = 32, THREADS = 128;

// A matrix with `step` elements from one line to the next: (row, k) lies at row * step + k, or at k * step + row.
struct Factor {
    const float* data;
    size_t step;
    unsigned rows;
};

// Lines of shared memory are one longer than the tile: threads that store along k or along rows hit different banks.
template <bool ALONG_K, int TILE>
__device__ __forceinline__ void load_tile(float (*tile)[TILE + 1], const Factor& from, unsigned row0, unsigned k0, unsigned k_end) {
#pragma unroll
    for (int at = threadIdx.x; at < TILE * DEPTH; at += THREADS) {
        const unsigned row = ALONG_K ? at / DEPTH : at % TILE, k = ALONG_K ? at % DEPTH : at / TILE;
        const bool inside = row0 + row < from.rows && k0 + k < k_end;
        tile[k][row] = !inside ? 0.f : from.data[ALONG_K ? (row0 + row) * from.step + k0 + k : (k0 + k) * from.step + row0 + row];
    }
}

// Calls end(row, column, sum over k of a(row, k) b(column, k)) for a tile of rows and columns.
template <bool A_ALONG_K, bool B_ALONG_K, class End>
__device__ __forceinline__ void product(const Factor& a, const Factor& b, unsigned row0, unsigned column0, unsigned k, End end) {
    __shared__ float left[DEPTH][ROWS + 1], right[DEPTH][COLUMNS + 1];
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    float sum[4][4] = {};
    for (unsigned k0 = 0; k0 < k; k0 += DEPTH) {
        __syncthreads();  // the last tiles have been read
        load_tile<A_ALONG_K, ROWS>(left, a, row0, k0, k);
        load_tile<B_ALONG_K, COLUMNS>(right, b, column0, k0, k);
        __syncthreads();  // the tiles are there
#pragma unroll 8
        for (int kk = 0; kk < DEPTH; ++kk) {
            float va[4], vb[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) va[i] = left[kk][y + 8 * i], vb[i] = right[kk][x + 16 * i];
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sum[i][j] += va[i] * vb[j];
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const unsigned row = row0 + y + 8 * i, column = column0 + x + 16 * j;
            if (row < a.rows && column < b.rows) end(row, column, sum[i][j]);
        }
}

// y[b, s] = f(x_s[b] W_s' + bias_s); the argument of f too, if asked for. blockIdx.y: outputs, z: samples.
extern "C" __global__ void __launch_bounds__(128) grouped_linear_forward(const float* __restrict__ x, const unsigned int* __restrict__ offsets,
    const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int samples,
    unsigned int groups, unsigned int inputs, unsigned int outputs, unsigned int function) {
    const unsigned s = blockIdx.x, first = offsets[s], width = offsets[s + 1] - first;
    const Factor a{x + first, inputs, samples}, b{weight + (size_t)first * outputs, width, outputs};
    for (unsigned row0 = blockIdx.z * ROWS; row0 < samples; row0 += gridDim.z * ROWS)
        product<true, true>(a, b, row0, blockIdx.y * COLUMNS, width, [=](unsigned row, unsigned column, float v) {
            const size_t at = ((size_t)row * groups + s) * outputs + column;
            if (bias) v += bias[s * outputs + column];
            if (argument) argument[at] = v;
            y[at] = activation::value(function, v);
        });
}

// dx_s[b] = inner[b, s] W_s. blockIdx.y: columns of the group, z: samples.
extern "C" __global__ void __launch_bounds__(128, 1) grouped_linear_input(const float* __restrict__ inner, const unsigned int* __restrict__ offsets,
    const float* __restrict__ weight, float* __restrict__ dx, unsigned int samples, unsigned int groups, unsigned int inputs, unsigned int outputs) {
    const unsigned s = blockIdx.x, first = offsets[s], width = offsets[s + 1] - first;
    if (blockIdx.y * COLUMNS >= width) return;
    const Factor a{inner + (size_t)s * outputs, (size_t)groups * outputs, samples}, b{weight + (size_t)first * outputs, width, width};
    for (unsigned row0 = blockIdx.z * ROWS; row0 < samples; row0 += gridDim.z * ROWS)
        product<true, false>(a, b, row0, blockIdx.y * COLUMNS, outputs,
            [=](unsigned row, unsigned column, float v) { dx[(size_t)row * inputs + first + column] = v; });
}

// dW_s = sum over b of inner[b, s]' x_s[b]. blockIdx.y: columns of the group, z: outputs.
extern "C" __global__ void __launch_bounds__(128) grouped_linear_weight(const float* __restrict__ inner, const unsigned int* __restrict__ offsets,
    const float* __restrict__ x, float* __restrict__ dw, unsigned int samples, unsigned int groups, unsigned int inputs, unsigned int outputs) {
    const unsigned s = blockIdx.x, first = offsets[s], width = offsets[s + 1] - first;
    if (blockIdx.y * COLUMNS >= width) return;
    const Factor a{inner + (size_t)s * outputs, (size_t)groups * outputs, outputs}, b{x + first, inputs, width};
    product<false, false>(a, b, blockIdx.z * ROWS, blockIdx.y * COLUMNS, samples,
        [=](unsigned row, unsigned column, float v) { dw[(size_t)first * outputs + (size_t)row * width + column] = v; });
}
