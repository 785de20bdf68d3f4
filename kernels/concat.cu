// Columns of up to four matrices into one, and back.
// Page: src/ops/concat/mod.rs.
// One warp a row, lanes over its columns: 16 bytes a lane where every width allows it, else 4. Floor: 8 bytes an element.
#include "block.cuh"

// Copies `width` columns between rows, T at a time; `side` is the narrow row, `whole` the wide one.
template <class T, bool JOIN> __device__ __forceinline__ void copy(float* side, float* whole, unsigned width) {
    if (!side) return;
#pragma unroll 4
    for (unsigned j = threadIdx.x % 32; j < width / (sizeof(T) / 4); j += 32) {
        T *const from = reinterpret_cast<T*>(JOIN ? side : whole) + j, *const to = reinterpret_cast<T*>(JOIN ? whole : side) + j;
        *to = *from;
    }
}

// Four parts, of which the first begins at column `at` of the rows of `whole`. JOIN copies into it, else out of it.
template <bool JOIN>
__device__ __forceinline__ void rows_of(float* a, float* b, float* c, float* d, float* whole, unsigned rows, unsigned columns,
                                        unsigned at, unsigned width_a, unsigned width_b, unsigned width_c, unsigned width_d) {
    const size_t row = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const bool aligned = (columns | at | width_a | width_b | width_c | width_d) % 4 == 0;
    float* const parts[4] = {a, b, c, d};
    const unsigned widths[4] = {width_a, width_b, width_c, width_d};
    whole += row * columns + at;
#pragma unroll
    for (int p = 0; p < 4; ++p) {
        float* const part = parts[p] ? parts[p] + row * widths[p] : nullptr;
        if (aligned) copy<float4, JOIN>(part, whole, widths[p]);
        else copy<float, JOIN>(part, whole, widths[p]);
        whole += widths[p];
    }
}

extern "C" __global__ void __launch_bounds__(256)
concat_join(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ c, const float* __restrict__ d,
            float* __restrict__ y, unsigned int rows, unsigned int columns, unsigned int at, unsigned int width_a,
            unsigned int width_b, unsigned int width_c, unsigned int width_d) {
    rows_of<true>(const_cast<float*>(a), const_cast<float*>(b), const_cast<float*>(c), const_cast<float*>(d), y, rows, columns, at,
                  width_a, width_b, width_c, width_d);
}

extern "C" __global__ void __launch_bounds__(256)
concat_split(const float* __restrict__ grad, float* __restrict__ a, float* __restrict__ b, float* __restrict__ c,
             float* __restrict__ d, unsigned int rows, unsigned int columns, unsigned int at, unsigned int width_a,
             unsigned int width_b, unsigned int width_c, unsigned int width_d) {
    rows_of<false>(a, b, c, d, const_cast<float*>(grad), rows, columns, at, width_a, width_b, width_c, width_d);
}
