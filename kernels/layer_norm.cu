// Layer normalisation and its gradients.
// Page: src/ops/layer_norm/mod.rs.
// One warp a row, lanes over its columns; backward gives each block a chunk of rows, whose sums for weight and bias are
// added warp by warp and then, by a second kernel, chunk by chunk. Floor: 8 bytes an element forward, 12 backward.
#include "block.cuh"

struct Moments {
    float mean, inverse;
};

// Mean and 1 / sqrt(var + eps) of a row, the same in every lane; the variance about the mean.
__device__ __forceinline__ Moments moments(const float* __restrict__ row, unsigned columns, float eps) {
    const unsigned lane = threadIdx.x % 32;
    float sum = 0.f;
    for (unsigned j = lane; j < columns; j += 32) sum += row[j];
    const float mean = warp_sum(sum) / columns;
    sum = 0.f;
    for (unsigned j = lane; j < columns; j += 32) sum += (row[j] - mean) * (row[j] - mean);
    return {mean, 1.f / sqrtf(warp_sum(sum) / columns + eps)};
}

extern "C" __global__ void __launch_bounds__(256)
layer_norm_forward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                   float* __restrict__ y, unsigned int rows, unsigned int columns, float eps) {
    const size_t row = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    x += row * columns, y += row * columns;
    const Moments m = moments(x, columns, eps);
    for (unsigned j = threadIdx.x % 32; j < columns; j += 32) {
        float v = (x[j] - m.mean) * m.inverse;
        if (weight) v *= weight[j];
        if (bias) v += bias[j];
        y[j] = v;
    }
}

extern "C" __global__ void __launch_bounds__(256)
layer_norm_backward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad,
                    float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns,
                    unsigned int chunk, float eps) {
    DYNAMIC_SHARED(float, sums);  // of weight and bias, for each warp
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float *const dw = sums + (size_t)warp * 2 * columns, *const db = dw + columns;
    // A lane only ever touches its own columns of its own warp's sums, so no barrier is needed before the loop.
    for (unsigned j = lane; j < columns; j += 32) dw[j] = db[j] = 0.f;
    const size_t first = (size_t)blockIdx.x * chunk, end = first + chunk < rows ? first + chunk : rows;
    for (size_t row = first + warp; row < end; row += warps) {
        const float *const in = x + row * columns, *const g = grad + row * columns;
        const Moments m = moments(in, columns, eps);
        float mean_g = 0.f, mean_gz = 0.f;
        for (unsigned j = lane; j < columns; j += 32) {
            const float z = (in[j] - m.mean) * m.inverse, owed = weight ? g[j] * weight[j] : g[j];
            dw[j] += g[j] * z;
            db[j] += g[j];
            mean_g += owed;
            mean_gz += owed * z;
        }
        mean_g = warp_sum(mean_g) / columns, mean_gz = warp_sum(mean_gz) / columns;
        for (unsigned j = lane; j < columns; j += 32) {
            const float z = (in[j] - m.mean) * m.inverse, owed = weight ? g[j] * weight[j] : g[j];
            dx[row * columns + j] = (owed - mean_g - z * mean_gz) * m.inverse;
        }
    }
    __syncthreads();  // the sums of all warps are there
    for (unsigned j = threadIdx.x; j < 2 * columns; j += blockDim.x) {
        float sum = 0.f;
        for (unsigned w = 0; w < warps; ++w) sum += sums[(size_t)w * 2 * columns + j];
        partials[(size_t)blockIdx.x * 2 * columns + j] = sum;
    }
}

extern "C" __global__ void layer_norm_sum(const float* __restrict__ partials, float* __restrict__ dw,
                                          float* __restrict__ db, unsigned int chunks, unsigned int columns) {
    const unsigned j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= columns) return;
    float w = 0.f, b = 0.f;
    for (unsigned c = 0; c < chunks; ++c) {
        w += partials[(size_t)c * 2 * columns + j];
        b += partials[(size_t)c * 2 * columns + columns + j];
    }
    dw[j] = w, db[j] = b;
}
