// Layer normalisation and its gradients.
// Page: src/ops/layer_norm/mod.rs.
// Rows of up to 1024 columns in the registers of 8 to 32 lanes, of longer ones each by a block; sums for weight and bias
// over chunks of rows, in registers, then over chunks by a second kernel. Floor: 8 bytes an element forward, 12 backward.
#include "row.cuh"

// Subtracts the mean of the n columns, leaves zeros behind them, and gives 1 / sqrt(var + eps).
template <int LANES, int CHUNKS> __device__ __forceinline__ float centre(Row<LANES, CHUNKS>& r, unsigned n, float eps HERE_) {
    const float mean = r.sum(THERE_ONLY_) / n;
    float squares = 0.f;
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            r.v[k][i] = r.column(k, i) < n ? r.v[k][i] - mean : 0.f;
            squares += r.v[k][i] * r.v[k][i];
        }
    }
    return 1.f / sqrtf(warp_fold<Add, LANES>(squares THERE_) / n + eps);
}

template <int LANES, int CHUNKS>
__device__ __forceinline__ void forward(const float* __restrict__ x, const float* __restrict__ weight,
                                        const float* __restrict__ bias, float* __restrict__ y, unsigned rows,
                                        unsigned columns, float eps) {
    const size_t row = row_of_lanes<LANES>();
    const bool aligned = Vec<float>::fits(x, columns) && Vec<float>::fits(y, columns);
    const bool line = Vec<float>::fits(weight, columns) && Vec<float>::fits(bias, columns);
    // Lanes without a row stay, with no columns: those of other rows exchange with the whole warp.
    const unsigned n = row < rows ? columns : 0;
    Row<LANES, CHUNKS> r;
    r.load(x + row * columns, n, aligned, 0.f);
    const float inverse = centre(r, n, eps);
#pragma unroll
    for (int k = 0; k < CHUNKS; ++k) {
        const unsigned j = r.column(k, 0);
#pragma unroll
        for (int i = 0; i < 4; ++i) r.v[k][i] *= inverse;
        if (weight) {
            const Vec<float> w = Vec<float>::load(weight, j, n, line);
#pragma unroll
            for (int i = 0; i < 4; ++i) r.v[k][i] *= w[i];
        }
        if (bias) {
            const Vec<float> b = Vec<float>::load(bias, j, n, line);
#pragma unroll
            for (int i = 0; i < 4; ++i) r.v[k][i] += b[i];
        }
    }
    r.store(y + row * columns, n, aligned);
}

// Up to 128 columns: few registers, many rows at once.
extern "C" __global__ void __launch_bounds__(256)
layer_norm_forward_narrow(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                          float* __restrict__ y, unsigned int rows, unsigned int columns, unsigned int lanes, float eps) {
    if (lanes == 8) return forward<8, 1>(x, weight, bias, y, rows, columns, eps);
    if (lanes == 16) return forward<16, 1>(x, weight, bias, y, rows, columns, eps);
    forward<32, 1>(x, weight, bias, y, rows, columns, eps);
}

// Up to 1024 columns.
extern "C" __global__ void __launch_bounds__(256)
layer_norm_forward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                   float* __restrict__ y, unsigned int rows, unsigned int columns, float eps) {
    forward<32, ROW_CHUNKS>(x, weight, bias, y, rows, columns, eps);
}

// The gradient of x for rows first, first + GROUPS, ... of a chunk, and this thread's part of the sums for weight and
// bias: a lane has the same columns of every row, so they stay in its registers.
template <int LANES, int CHUNKS>
__device__ __forceinline__ void backward(const float* __restrict__ x, const float* __restrict__ weight,
                                         const float* __restrict__ grad, float* __restrict__ dx,
                                         float* __restrict__ partials, unsigned rows, unsigned columns, unsigned chunk,
                                         float eps) {
    constexpr int GROUPS = 256 / LANES, MOST = Row<LANES, CHUNKS>::MOST;
    __shared__ float sums[GROUPS][MOST];
    const bool aligned = Vec<float>::fits(x, columns) && Vec<float>::fits(grad, columns) && Vec<float>::fits(dx, columns);
    const bool line = Vec<float>::fits(weight, columns);
    const unsigned group = threadIdx.x / LANES;
    const size_t first = (size_t)blockIdx.x * chunk, end = first + chunk < rows ? first + chunk : rows;
    float dw[CHUNKS][4] = {}, db[CHUNKS][4] = {};
    // As many rounds in every group: lanes without a row stay, with no columns.
    for (size_t start = first; start < end; start += GROUPS) {
        const size_t row = start + group;
        const unsigned n = row < end ? columns : 0;
        Row<LANES, CHUNKS> z, g;
        z.load(x + row * columns, n, aligned, 0.f);
        g.load(grad + row * columns, n, aligned, 0.f);
        const float inverse = centre(z, n, eps);
        Pair<float> mean = {0.f, 0.f};  // of g, and of g z
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) {
            Vec<float> w;
            if (weight) w = Vec<float>::load(weight, z.column(k, 0), n, line);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (n) {  // without a row, inverse is no number
                    z.v[k][i] *= inverse;
                    dw[k][i] += g.v[k][i] * z.v[k][i];
                    db[k][i] += g.v[k][i];
                }
                if (weight) g.v[k][i] *= w[i];
                mean.first += g.v[k][i];
                mean.second += g.v[k][i] * z.v[k][i];
            }
        }
        mean = warp_fold<Add, LANES>(mean);
        mean.first /= n, mean.second /= n;
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) {
#pragma unroll
            for (int i = 0; i < 4; ++i) g.v[k][i] = (g.v[k][i] - mean.first - z.v[k][i] * mean.second) * inverse;
        }
        g.store(dx + row * columns, n, aligned);
    }
    float* const out = partials + (size_t)blockIdx.x * 2 * columns;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
        if (which) __syncthreads();  // the sums of the weight are read above
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) {
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[group][Row<LANES, CHUNKS>::column(k, i)] = which ? db[k][i] : dw[k][i];
        }
        __syncthreads();  // the sums of all groups are there
        for (unsigned j = threadIdx.x; j < columns; j += blockDim.x) {
            float sum = 0.f;
            for (int w = 0; w < GROUPS; ++w) sum += sums[w][j];
            out[which * columns + j] = sum;
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
layer_norm_backward_narrow(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad,
                           float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns,
                           unsigned int chunk, unsigned int lanes, float eps) {
    if (lanes == 8) return backward<8, 1>(x, weight, grad, dx, partials, rows, columns, chunk, eps);
    if (lanes == 16) return backward<16, 1>(x, weight, grad, dx, partials, rows, columns, chunk, eps);
    backward<32, 1>(x, weight, grad, dx, partials, rows, columns, chunk, eps);
}

extern "C" __global__ void __launch_bounds__(256)
layer_norm_backward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad,
                    float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns,
                    unsigned int chunk, float eps) {
    backward<32, ROW_CHUNKS>(x, weight, grad, dx, partials, rows, columns, chunk, eps);
}

// The sums of all chunks, in their order: 32 columns a block, its warps share the chunks.
extern "C" __global__ void __launch_bounds__(256)
layer_norm_sum(const float* __restrict__ partials, float* __restrict__ dw, float* __restrict__ db, unsigned int chunks,
               unsigned int columns) {
    __shared__ Pair<float> sums[8][32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, j = blockIdx.x * 32 + lane;
    Pair<float> sum = {0.f, 0.f};
    if (j < columns) {
        for (unsigned c = warp; c < chunks; c += 8) {
            const float* const at = partials + (size_t)c * 2 * columns + j;
            sum = sum + Pair<float>{at[0], at[columns]};
        }
    }
    sums[warp][lane] = sum;
    __syncthreads();  // the sums of all warps are there
    if (warp > 0 || j >= columns) return;
    for (int w = 1; w < 8; ++w) sum = sum + sums[w][lane];
    dw[j] = sum.first, db[j] = sum.second;
}

// ---- rows of more than 1024 columns: a block a row, which is read again out of its caches ----
struct Moments {
    float mean, inverse;
};
__device__ __forceinline__ Moments moments(const float* __restrict__ row, unsigned columns, bool aligned, float eps) {
    float sum = 0.f;
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        const Vec<float> v = Vec<float>::load(row, j, columns, aligned);
        sum += (v[0] + v[1]) + (v[2] + v[3]);  // zeros behind the last column
    }
    const float mean = block_sum(sum) / columns;
    sum = 0.f;
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        const Vec<float> v = Vec<float>::load(row, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum += j + i < columns ? (v[i] - mean) * (v[i] - mean) : 0.f;
    }
    return {mean, 1.f / sqrtf(block_sum(sum) / columns + eps)};
}

extern "C" __global__ void __launch_bounds__(256)
layer_norm_forward_wide(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                        float* __restrict__ y, unsigned int /* rows */, unsigned int columns, float eps) {
    const bool aligned = Vec<float>::fits(x, columns) && Vec<float>::fits(y, columns) && Vec<float>::fits(weight, columns) &&
                         Vec<float>::fits(bias, columns);
    const size_t row = blockIdx.x;
    x += row * columns, y += row * columns;
    const Moments m = moments(x, columns, aligned, eps);
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        Vec<float> v = Vec<float>::load(x, j, columns, aligned), w, b;
        if (weight) w = Vec<float>::load(weight, j, columns, aligned);
        if (bias) b = Vec<float>::load(bias, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float z = (v[i] - m.mean) * m.inverse;
            if (weight) z *= w[i];
            if (bias) z += b[i];
            v.set(i, z);
        }
        v.store(y, j, columns, aligned);
    }
}

// The gradient of x; mean and inverse deviation of each row stay for the sums over rows.
extern "C" __global__ void __launch_bounds__(256)
layer_norm_backward_wide(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad,
                         float* __restrict__ dx, float* __restrict__ stats, unsigned int /* rows */,
                         unsigned int columns, float eps) {
    const bool aligned = Vec<float>::fits(x, columns) && Vec<float>::fits(grad, columns) && Vec<float>::fits(dx, columns) &&
                         Vec<float>::fits(weight, columns);
    const size_t row = blockIdx.x;
    x += row * columns, grad += row * columns, dx += row * columns;
    const Moments m = moments(x, columns, aligned, eps);
    float mean[2] = {0.f, 0.f};  // of g, and of g z
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        const Vec<float> v = Vec<float>::load(x, j, columns, aligned), g = Vec<float>::load(grad, j, columns, aligned);
        Vec<float> w;
        if (weight) w = Vec<float>::load(weight, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // g is zero behind the last column
            const float owed = weight ? g[i] * w[i] : g[i];
            mean[0] += owed;
            mean[1] += owed * ((v[i] - m.mean) * m.inverse);
        }
    }
    block_sums(mean);
    mean[0] /= columns, mean[1] /= columns;
    for (size_t j = 4 * threadIdx.x; j < columns; j += 4 * blockDim.x) {
        const Vec<float> v = Vec<float>::load(x, j, columns, aligned), g = Vec<float>::load(grad, j, columns, aligned);
        Vec<float> w, out;
        if (weight) w = Vec<float>::load(weight, j, columns, aligned);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float owed = weight ? g[i] * w[i] : g[i], z = (v[i] - m.mean) * m.inverse;
            out.set(i, (owed - mean[0] - z * mean[1]) * m.inverse);
        }
        out.store(dx, j, columns, aligned);
    }
    if (threadIdx.x == 0) stats[2 * row] = m.mean, stats[2 * row + 1] = m.inverse;
}

// The sums for weight and bias over each chunk of rows: a thread a column, blockIdx.y counts the chunks.
extern "C" __global__ void __launch_bounds__(256)
layer_norm_chunks_wide(const float* __restrict__ x, const float* __restrict__ grad, const float* __restrict__ stats,
                       float* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int chunk) {
    const unsigned j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= columns) return;
    const size_t first = (size_t)blockIdx.y * chunk, end = first + chunk < rows ? first + chunk : rows;
    float dw = 0.f, db = 0.f;
#pragma unroll 4
    for (size_t row = first; row < end; ++row) {
        const float g = grad[row * columns + j];
        dw += g * ((x[row * columns + j] - stats[2 * row]) * stats[2 * row + 1]);
        db += g;
    }
    float* const out = partials + (size_t)blockIdx.y * 2 * columns;
    out[j] = dw, out[columns + j] = db;
}
