// The rows of some bags of a matrix, copied into one matrix.
// Page: src/ops/gather/mod.rs.
// One warp, four neighbouring rows of the result, which mostly lie in one bag; its lanes copy 16 bytes each, or element
// by element where rows are no multiple of that. Floor: 2 N L elements of traffic.
#include "device.cuh"

struct alignas(16) Sixteen {
    unsigned int w[4];
};

// A row of `n` things, four in flight a lane.
template <class T>
__device__ __forceinline__ void copy_row(const T* __restrict__ from, T* __restrict__ to, size_t n) {
    size_t j = threadIdx.x % 32;
    for (; j + 96 < n; j += 128) {
        const T a = from[j], b = from[j + 32], c = from[j + 64], d = from[j + 96];
        to[j] = a, to[j + 32] = b, to[j + 64] = c, to[j + 96] = d;
    }
    for (; j < n; j += 32) to[j] = from[j];
}

template <class T>
__device__ __forceinline__ void gather(const T* __restrict__ x, const unsigned int* __restrict__ start,
                                       const unsigned int* __restrict__ offset, T* __restrict__ y, unsigned bags,
                                       unsigned rows, unsigned columns) {
    const size_t first = 4 * ((size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
    const size_t end = first + 4 < rows ? first + 4 : rows;  // before `first` for warps behind the last row
    // The last bag that begins at the first row or before it; empty ones share their beginning with the next.
    unsigned bag = 0, beyond = bags;
    while (beyond - bag > 1) {
        const unsigned middle = bag + (beyond - bag) / 2;
        if (offset[middle] <= first) bag = middle;
        else beyond = middle;
    }
    // Memory starts on 256 bytes, so rows of a multiple of 16 bytes are aligned to 16.
    const bool wide = (size_t)columns * sizeof(T) % sizeof(Sixteen) == 0;
    for (size_t row = first; row < end; ++row) {
        while (offset[bag + 1] <= row) ++bag;
        const T* const from = x + ((size_t)start[bag] + (row - offset[bag])) * columns;
        T* const to = y + row * columns;
        if (wide) {
            copy_row(reinterpret_cast<const Sixteen*>(from), reinterpret_cast<Sixteen*>(to),
                     (size_t)columns * sizeof(T) / sizeof(Sixteen));
        } else {
            copy_row(from, to, columns);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
gather_rows_f32(const float* __restrict__ x, const unsigned int* __restrict__ start,
                const unsigned int* __restrict__ offset, float* __restrict__ y, unsigned int stored, unsigned int bags,
                unsigned int rows, unsigned int columns) {
    (void)stored;
    gather(x, start, offset, y, bags, rows, columns);
}

extern "C" __global__ void __launch_bounds__(256, 1)
gather_rows_f16(const __half* __restrict__ x, const unsigned int* __restrict__ start,
                const unsigned int* __restrict__ offset, __half* __restrict__ y, unsigned int stored, unsigned int bags,
                unsigned int rows, unsigned int columns) {
    (void)stored;
    gather(x, start, offset, y, bags, rows, columns);
}

extern "C" __global__ void __launch_bounds__(256, 1)
gather_rows_bf16(const __nv_bfloat16* __restrict__ x, const unsigned int* __restrict__ start,
                 const unsigned int* __restrict__ offset, __nv_bfloat16* __restrict__ y, unsigned int stored,
                 unsigned int bags, unsigned int rows, unsigned int columns) {
    (void)stored;
    gather(x, start, offset, y, bags, rows, columns);
}
