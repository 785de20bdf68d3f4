// Rows of a source at their places, and back.
// Page: src/ops/arrange/mod.rs.
// One warp a row: of the result forward, of the source backward, which adds up its places in order; 16 bytes a lane where
// rows allow it. Floor: 8 bytes an element of the result.
#include "block.cuh"

constexpr unsigned ZEROS = 0xffffffffu, OTHERS = 0xfffffffeu;  // nothing stands there; another source does

extern "C" __global__ void __launch_bounds__(256)
arrange_forward(const float* __restrict__ x, const unsigned int* __restrict__ row, float* __restrict__ y, unsigned int /* rows */,
                unsigned int places, unsigned int columns) {
    const size_t place = blockIdx.x * (size_t)8 + threadIdx.x / 32;
    if (place >= places || row[place] == OTHERS) return;
    const bool stands = row[place] != ZEROS, aligned = Vec<float>::fits(x, columns);
    for (unsigned j = threadIdx.x % 32 * 4; j < columns; j += 128) {
        Vec<float> v = Vec<float>::load_some(x, 0);
        if (stands) v = Vec<float>::load(x + row[place] * (size_t)columns, j, columns, aligned);
        v.store(y + place * columns, j, columns, aligned);
    }
}

extern "C" __global__ void __launch_bounds__(256)
arrange_backward(const float* __restrict__ grad, const unsigned int* __restrict__ starts, const unsigned int* __restrict__ at,
                 float* __restrict__ dx, unsigned int rows, unsigned int /* places */, unsigned int /* stands */, unsigned int columns) {
    const size_t row = blockIdx.x * (size_t)8 + threadIdx.x / 32;
    if (row >= rows) return;
    const bool aligned = Vec<float>::fits(grad, columns);
    for (unsigned j = threadIdx.x % 32 * 4; j < columns; j += 128) {
        Vec<float> sum = Vec<float>::load_some(grad, 0);
        for (unsigned p = starts[row]; p < starts[row + 1]; ++p) {
            const Vec<float> v = Vec<float>::load(grad + at[p] * (size_t)columns, j, columns, aligned);
#pragma unroll
            for (int i = 0; i < 4; ++i) sum.set(i, sum[i] + v[i]);
        }
        sum.store(dx + row * columns, j, columns, aligned);
    }
}
