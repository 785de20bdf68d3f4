// The largest element of each column over the rows of each bag, and its gradient.
// Page: src/ops/segment_max/mod.rs.
// One block a tile of 128 rows of one bag, its threads over rows and columns; a second kernel compares the tiles of a long
// bag. Nothing is rounded and ties go to the first row, so no order shows in the bits. Floor: 4 bytes an element forward.
#include "segment.cuh"

// The largest element so far and its row. Of no row: any element, -inf too, has a lower row and takes its place.
struct Best {
    float value;
    unsigned row;
};
constexpr unsigned NO_ROW = 0xffffffffu;
__device__ __forceinline__ Best best_of_none() { return {-INFINITY, NO_ROW}; }
// A NaN is larger than any number; of equal elements, and of NaN, the first row's is kept.
__device__ __forceinline__ Best larger(Best a, Best b) {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    const bool tie = (a_nan && b_nan) || a.value == b.value;
    const bool second = tie ? b.row < a.row : b_nan || b.value > a.value;  // beside a NaN no number is larger
    return second ? b : a;
}

// Compares what the threads of one column have; the first row's get the result.
__device__ __forceinline__ void column_best(Best (&best)[4], Place at, unsigned lanes) {
    __shared__ Best all[4][256];
#pragma unroll
    for (int i = 0; i < 4; ++i) all[i][threadIdx.x] = best[i];
    __syncthreads();  // what all threads have is there
    if (at.row > 0) return;
    for (unsigned r = 1; r < at.stride; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) best[i] = larger(best[i], all[i][r * lanes + threadIdx.x]);
    }
}
// The result of a bag: 0 where it has no row.
__device__ __forceinline__ void store(const Best (&best)[4], float* __restrict__ y, unsigned* __restrict__ row, size_t column,
                                      unsigned columns) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (column + i >= columns) return;
        y[column + i] = best[i].row == NO_ROW ? 0.f : best[i].value;
        row[column + i] = best[i].row;
    }
}

// The largest of each tile; of a bag of one tile or none the result.
extern "C" __global__ void __launch_bounds__(256)
segment_max_tiles(const float* __restrict__ x, const unsigned int* __restrict__ offset, float* __restrict__ partials,
                  unsigned int* __restrict__ partial_rows, float* __restrict__ y, unsigned int* __restrict__ chosen,
                  unsigned int /* n */, unsigned int bags, unsigned int columns, unsigned int lanes) {
    const Tile tile = tile_of(offset, bags, blockIdx.x);
    const unsigned length = offset[tile.bag + 1] - offset[tile.bag];
    const bool first = tile.begin == offset[tile.bag] && blockIdx.x == first_tile(offset, tile.bag);
    if (tile.begin == tile.end && !first) return;  // the whole block
    const Place at = place(lanes);
    Best best[4] = {best_of_none(), best_of_none(), best_of_none(), best_of_none()};
    if (at.column < columns) {
        const bool aligned = Vec<float>::fits(x, columns);
#pragma unroll 4
        for (unsigned row = tile.begin + at.row; row < tile.end; row += at.stride) {
            const Vec<float> v = Vec<float>::load(x + (size_t)row * columns, at.column, columns, aligned);
#pragma unroll
            for (int i = 0; i < 4; ++i) best[i] = larger(best[i], Best{v[i], row});
        }
    }
    column_best(best, at, lanes);
    if (at.row > 0) return;
    const size_t tiles = (size_t)blockIdx.x * columns, bag = (size_t)tile.bag * columns;
    if (length > TILE_ROWS) return store(best, partials + tiles, partial_rows + tiles, at.column, columns);
    store(best, y + bag, chosen + bag, at.column, columns);
}

// The largest of each bag of several tiles; one block a bag.
extern "C" __global__ void __launch_bounds__(256)
segment_max_join(const float* __restrict__ partials, const unsigned int* __restrict__ partial_rows,
                 const unsigned int* __restrict__ offset, float* __restrict__ y, unsigned int* __restrict__ chosen,
                 unsigned int /* tiles */, unsigned int /* bags */, unsigned int columns, unsigned int lanes) {
    const unsigned bag = blockIdx.x, length = offset[bag + 1] - offset[bag], begin = first_tile(offset, bag);
    if (length <= TILE_ROWS) return;  // the whole block
    const Place at = place(lanes);
    Best best[4] = {best_of_none(), best_of_none(), best_of_none(), best_of_none()};
    for (unsigned tile = begin + at.row; tile < begin + (length + TILE_ROWS - 1) / TILE_ROWS; tile += at.stride) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const size_t here = (size_t)tile * columns + at.column + i;
            if (at.column + i < columns) best[i] = larger(best[i], Best{partials[here], partial_rows[here]});
        }
    }
    column_best(best, at, lanes);
    if (at.row > 0) return;
    store(best, y + (size_t)bag * columns, chosen + (size_t)bag * columns, at.column, columns);
}

// The gradient of each result goes to the element that it was; one thread a result. The rest of dx is zero already, and
// no two threads write one element, since bags have no row in common.
extern "C" __global__ void __launch_bounds__(256)
segment_max_backward(const float* __restrict__ grad, const unsigned int* __restrict__ chosen, float* __restrict__ dx,
                     unsigned int /* n */, unsigned int bags, unsigned int columns) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)bags * columns) return;
    const unsigned row = chosen[i];
    if (row != NO_ROW) dx[(size_t)row * columns + i % columns] = grad[i];
}
