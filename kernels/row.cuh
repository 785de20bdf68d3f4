// A row of a matrix in registers, spread over some lanes of a warp: it is read once, however often it is needed.
// Page: kernels/row.cuh.
// LANES neighbouring lanes a row, each with 4 columns of every 4 LANES: accesses of 16 bytes, side by side.
#pragma once
#include "block.cuh"

template <int LANES, int CHUNKS> struct Row {
    static constexpr int MOST = 4 * LANES * CHUNKS;  // columns that there is room for
    float v[CHUNKS][4];

    // The column of v[k][i].
    __device__ __forceinline__ static unsigned column(int k, int i) { return 4 * (LANES * k + threadIdx.x % LANES) + i; }

    // The first n columns, and `fill` behind them; `aligned` as Vec::fits says.
    __device__ __forceinline__ void load(const float* row, unsigned n, bool aligned, float fill HERE_) {
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) {
            const Vec<float> four = Vec<float>::load(row, column(k, 0), n, aligned THERE_);
#pragma unroll
            for (int i = 0; i < 4; ++i) v[k][i] = column(k, i) < n ? four[i] : fill;
        }
    }
    __device__ __forceinline__ void store(float* row, unsigned n, bool aligned HERE_) const {
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) {
            Vec<float> four;
#pragma unroll
            for (int i = 0; i < 4; ++i) four.set(i, v[k][i]);
            four.store(row, column(k, 0), n, aligned THERE_);
        }
    }
    // Over all columns, what is behind the last one included: every lane of the row gets it.
    __device__ __forceinline__ float sum(HERE_ONLY_) const {
        float sum = 0.f;
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) sum += (v[k][0] + v[k][1]) + (v[k][2] + v[k][3]);
        return warp_fold<Add, LANES>(sum THERE_);
    }
    __device__ __forceinline__ float max(HERE_ONLY_) const {  // of numbers: a NaN is passed over
        float max = v[0][0];
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) max = fmaxf(max, fmaxf(fmaxf(v[k][0], v[k][1]), fmaxf(v[k][2], v[k][3])));
        return warp_fold<Max, LANES>(max THERE_);
    }
};

// The most columns of a row that a warp holds.
constexpr int ROW_CHUNKS = 8;

// The row of this thread, for LANES lanes a row.
template <int LANES> __device__ __forceinline__ size_t row_of_lanes() {
    return ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
}
