// Softmax of rows and its gradient.
// Page: src/ops/softmax/mod.rs.
// Rows of up to 1024 columns in the registers of 8 to 32 lanes; of longer ones each is read three times by a block (out
// of its caches, mostly). Floor: 8 bytes an element forward, 12 backward.
#include "row.cuh"

template <int LANES, int CHUNKS>
__device__ __forceinline__ void forward(const float* __restrict__ x, float* __restrict__ y, unsigned rows, unsigned columns) {
    const size_t row = row_of_lanes<LANES>();
    const bool aligned = Vec<float>::fits(x, columns) && Vec<float>::fits(y, columns);
    // Lanes without a row stay, with no columns: those of other rows exchange with the whole warp.
    const unsigned n = row < rows ? columns : 0;
    Row<LANES, CHUNKS> r;
    r.load(x + row * columns, n, aligned, -INFINITY);
    const float max = r.max();
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) r.v[k][i] = expf(r.v[k][i] - max);
    }
    const float sum = r.sum();  // behind the last column stand zeros: e^-inf
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) r.v[k][i] /= sum;
    }
    r.store(y + row * columns, n, aligned);
}

// Up to 128 columns: few registers, many rows at once.
extern "C" __global__ void __launch_bounds__(256)
softmax_forward_narrow(const float* __restrict__ x, float* __restrict__ y, unsigned int rows, unsigned int columns,
                       unsigned int lanes) {
    if (lanes == 8) return forward<8, 1>(x, y, rows, columns);
    if (lanes == 16) return forward<16, 1>(x, y, rows, columns);
    forward<32, 1>(x, y, rows, columns);
}

// Up to 1024 columns.
extern "C" __global__ void __launch_bounds__(256)
softmax_forward(const float* __restrict__ x, float* __restrict__ y, unsigned int rows, unsigned int columns) {
    forward<32, ROW_CHUNKS>(x, y, rows, columns);
}

template <int LANES, int CHUNKS>
__device__ __forceinline__ void backward(const float* __restrict__ y, const float* __restrict__ grad, float* __restrict__ dx,
                                         unsigned rows, unsigned columns) {
    const size_t row = row_of_lanes<LANES>();
    const bool aligned = Vec<float>::fits(y, columns) && Vec<float>::fits(grad, columns) && Vec<float>::fits(dx, columns);
    const unsigned n = row < rows ? columns : 0;
    Row<LANES, CHUNKS> p, g;
    p.load(y + row * columns, n, aligned, 0.f);
    g.load(grad + row * columns, n, aligned, 0.f);
    float mean = 0.f;
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) mean += g.v[k][i] * p.v[k][i];
    }
    mean = warp_fold<Add, LANES>(mean);
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) g.v[k][i] = p.v[k][i] * (g.v[k][i] - mean);
    }
    g.store(dx + row * columns, n, aligned);
}

extern "C" __global__ void __launch_bounds__(256)
softmax_backward_narrow(const float* __restrict__ y, const float* __restrict__ grad, float* __restrict__ dx, unsigned int rows,
                        unsigned int columns, unsigned int lanes) {
    if (lanes == 8) return backward<8, 1>(y, grad, dx, rows, columns);
    if (lanes == 16) return backward<16, 1>(y, grad, dx, rows, columns);
    backward<32, 1>(y, grad, dx, rows, columns);
}

extern "C" __global__ void __launch_bounds__(256)
softmax_backward(const float* __restrict__ y, const float* __restrict__ grad, float* __restrict__ dx, unsigned int rows,
                 unsigned int columns) {
    backward<32, ROW_CHUNKS>(y, grad, dx, rows, columns);
}

// One block a row.
extern "C" __global__ void __launch_bounds__(256)
softmax_forward_wide(const float* __restrict__ x, float* __restrict__ y, unsigned int /* rows */, unsigned int columns) {
    const bool aligned = Vec<float>::fits(x, columns) && Vec<float>::fits(y, columns);
    const size_t row = blockIdx.x;
    x += row * columns, y += row * columns;
    float max = -INFINITY, sum = 0.f;
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        const Vec<float> v = Vec<float>::load(x, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) max = j + i < columns ? fmaxf(max, v[i]) : max;
    }
    max = block_max(max);
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        const Vec<float> v = Vec<float>::load(x, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum += j + i < columns ? expf(v[i] - max) : 0.f;
    }
    sum = block_sum(sum);
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        Vec<float> v = Vec<float>::load(x, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) v.set(i, expf(v[i] - max) / sum);
        v.store(y, j, columns, aligned);
    }
}

extern "C" __global__ void __launch_bounds__(256)
softmax_backward_wide(const float* __restrict__ y, const float* __restrict__ grad, float* __restrict__ dx,
                      unsigned int /* rows */, unsigned int columns) {
    const bool aligned = Vec<float>::fits(y, columns) && Vec<float>::fits(grad, columns) && Vec<float>::fits(dx, columns);
    const size_t row = blockIdx.x;
    y += row * columns, grad += row * columns, dx += row * columns;
    float mean = 0.f;
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        const Vec<float> p = Vec<float>::load(y, j, columns, aligned), g = Vec<float>::load(grad, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) mean += g[i] * p[i];  // zeros behind the last column
    }
    mean = block_sum(mean);
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        const Vec<float> p = Vec<float>::load(y, j, columns, aligned);
        Vec<float> g = Vec<float>::load(grad, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) g.set(i, p[i] * (g[i] - mean));
        g.store(dx, j, columns, aligned);
    }
}
