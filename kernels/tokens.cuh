// What the kernels on tokens share: bags and the words of their patients, and a row in the registers of a warp.
#pragma once
#include "block.cuh"
#include "philox.cuh"

// The bag of a row: offset[0] = 0, and row < offset[bags].
__device__ __forceinline__ unsigned bag_of(const unsigned* __restrict__ offset, unsigned bags, unsigned row) {
    unsigned low = 0, high = bags;  // offset[low] <= row < offset[high]
    while (high - low > 1) {
        const unsigned middle = (low + high) / 2;
        if (__ldg(offset + middle) <= row) low = middle;
        else high = middle;
    }
    return low;
}

// Word i of a stream. Selected, not indexed: an index that is not a constant would move the words to memory.
__device__ __forceinline__ unsigned word_of(const onkos::Stream& stream, unsigned i) {
    const onkos::Words w = stream.block(i >> 2);
    const unsigned low = i & 1 ? w.word[1] : w.word[0], high = i & 1 ? w.word[3] : w.word[2];
    return i & 2 ? high : low;
}

// Which row a warp has, for blocks of whole warps.
__device__ __forceinline__ size_t row_of_warp() { return (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }

// A row of a warp, times a factor as it enters: lane l has the columns 4 l to 4 l + 3 of each 128. The first 512 stay
// in registers; what lies beyond is read again, out of the first cache, each time the row is gone over.
struct TokenRow {
    static constexpr unsigned HELD = 4, STEP = 128;
    const float* from;
    unsigned columns;
    float factor;
    bool aligned;
    Vec<float> held[HELD];

    // `all` is the first row: whether the rows suit 16-byte accesses is one answer for the launch.
    __device__ __forceinline__ TokenRow(const float* all, size_t row, unsigned columns, float factor)
        : from(all + row * columns), columns(columns), factor(factor), aligned(Vec<float>::fits(all, columns)) {
#pragma unroll
        for (unsigned k = 0; k < HELD; ++k)
            if (k * STEP < columns) held[k] = fetch(k * STEP + column());
    }
    // This lane's first column.
    __device__ __forceinline__ static unsigned column() { return threadIdx.x % 32 * 4; }
    __device__ __forceinline__ Vec<float> fetch(unsigned i) const {
        Vec<float> v = Vec<float>::load(from, i, columns, aligned);
#pragma unroll
        // Rounded here and never fused with what follows: the same bits as of a row that was scaled before.
        for (int e = 0; e < 4; ++e) v.set(e, __fmul_rn(factor, v[e]));
        return v;
    }
    // f(v, i): four columns from i on, zeros past the end.
    template <class F> __device__ __forceinline__ void each(F f) const {
#pragma unroll
        for (unsigned k = 0; k < HELD; ++k)
            if (k * STEP < columns) f(held[k], k * STEP + column());
        for (unsigned first = HELD * STEP; first < columns; first += STEP) f(fetch(first + column()), first + column());
    }
    // f(v, w, i): the same columns of this row and of another as wide.
    template <class F> __device__ __forceinline__ void with(const TokenRow& other, F f) const {
#pragma unroll
        for (unsigned k = 0; k < HELD; ++k)
            if (k * STEP < columns) f(held[k], other.held[k], k * STEP + column());
        for (unsigned first = HELD * STEP; first < columns; first += STEP)
            f(fetch(first + column()), other.fetch(first + column()), first + column());
    }
};

// y[row][i + e] = f(e) for the four columns from i on, as far as the row goes.
template <class F> __device__ __forceinline__ void write(float* y, size_t row, unsigned columns, unsigned i, F f) {
    Vec<float> v;
#pragma unroll
    for (int e = 0; e < 4; ++e) v.set(e, f(e));
    v.store(y + row * columns, i, columns, Vec<float>::fits(y, columns));
}
// A row with the same number everywhere.
__device__ __forceinline__ void fill(float* y, size_t row, unsigned columns, float value) {
    for (unsigned i = TokenRow::column(); i < columns; i += TokenRow::STEP)
        write(y, row, columns, i, [&](int) { return value; });
}
