// Means of bags and their gradient.
// Page: src/ops/segment_mean/mod.rs.
// One block a tile of 128 rows of one bag, its threads over rows and columns; tiles of a long bag are added in their order
// by a second kernel, so a bag gives the same bits in any batch. Floor: 4 bytes an element each way.
#include "segment.cuh"

// Adds the sums of the threads of one column in the order of their rows; the first row's get the total.
__device__ __forceinline__ float4 column_sum(float4 sum, Place at, unsigned lanes) {
    __shared__ float4 sums[256];
    sums[threadIdx.x] = sum;
    __syncthreads();  // the sums of all threads are there
    if (at.row > 0) return sum;
    for (unsigned r = 1; r < at.stride; ++r) {
        const float4 other = sums[r * lanes + threadIdx.x];
        sum = make_float4(sum.x + other.x, sum.y + other.y, sum.z + other.z, sum.w + other.w);
    }
    return sum;
}
__device__ __forceinline__ float4 row_sum(const float* __restrict__ x, unsigned begin, unsigned end, unsigned columns, Place at) {
    const bool aligned = Vec<float>::fits(x, columns);
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    if (at.column >= columns) return sum;
#pragma unroll 4
    for (size_t row = begin + at.row; row < end; row += at.stride) {
        const Vec<float> v = Vec<float>::load(x + row * columns, at.column, columns, aligned);
        sum = make_float4(sum.x + v[0], sum.y + v[1], sum.z + v[2], sum.w + v[3]);
    }
    return sum;
}
__device__ __forceinline__ void store(float4 v, float* __restrict__ row, size_t column, unsigned columns, bool aligned) {
    Vec<float> out;
    out.set(0, v.x), out.set(1, v.y), out.set(2, v.z), out.set(3, v.w);
    out.store(row, column, columns, aligned);
}

// The sum of each tile; of a bag of one tile or none the mean.
extern "C" __global__ void __launch_bounds__(256)
segment_mean_tiles(const float* __restrict__ x, const unsigned int* __restrict__ offset, float* __restrict__ partials,
                   float* __restrict__ y, unsigned int /* n */, unsigned int bags, unsigned int columns, unsigned int lanes) {
    const Tile tile = tile_of(offset, bags, blockIdx.x);
    const unsigned length = offset[tile.bag + 1] - offset[tile.bag];
    const bool first = tile.begin == offset[tile.bag] && blockIdx.x == first_tile(offset, tile.bag);
    if (tile.begin == tile.end && !first) return;  // the whole block
    const Place at = place(lanes);
    float4 sum = column_sum(row_sum(x, tile.begin, tile.end, columns, at), at, lanes);
    if (at.row > 0) return;
    if (length > TILE_ROWS) return store(sum, partials + (size_t)blockIdx.x * columns, at.column, columns, Vec<float>::fits(partials, columns));
    const float rows = length ? length : 1;
    sum = make_float4(sum.x / rows, sum.y / rows, sum.z / rows, sum.w / rows);
    store(sum, y + (size_t)tile.bag * columns, at.column, columns, Vec<float>::fits(y, columns));
}

// The mean of each bag of several tiles; one block a bag.
extern "C" __global__ void __launch_bounds__(256)
segment_mean_join(const float* __restrict__ partials, const unsigned int* __restrict__ offset, float* __restrict__ y,
                  unsigned int /* tiles */, unsigned int /* bags */, unsigned int columns, unsigned int lanes) {
    const unsigned bag = blockIdx.x, length = offset[bag + 1] - offset[bag], begin = first_tile(offset, bag);
    if (length <= TILE_ROWS) return;  // the whole block
    const Place at = place(lanes);
    float4 sum = column_sum(row_sum(partials, begin, begin + (length + TILE_ROWS - 1) / TILE_ROWS, columns, at), at, lanes);
    if (at.row > 0) return;
    const float rows = length;
    sum = make_float4(sum.x / rows, sum.y / rows, sum.z / rows, sum.w / rows);
    store(sum, y + (size_t)bag * columns, at.column, columns, Vec<float>::fits(y, columns));
}

// Each row of a bag gets its gradient over the number of rows.
extern "C" __global__ void __launch_bounds__(256)
segment_mean_backward(const float* __restrict__ grad, const unsigned int* __restrict__ offset, float* __restrict__ dx,
                      unsigned int /* n */, unsigned int bags, unsigned int columns, unsigned int lanes) {
    const Tile tile = tile_of(offset, bags, blockIdx.x);
    const Place at = place(lanes);
    if (at.column >= columns || tile.begin == tile.end) return;
    const float rows = offset[tile.bag + 1] - offset[tile.bag];
    Vec<float> g = Vec<float>::load(grad + (size_t)tile.bag * columns, at.column, columns, Vec<float>::fits(grad, columns));
#pragma unroll
    for (int i = 0; i < 4; ++i) g.set(i, g[i] / rows);
    const bool aligned = Vec<float>::fits(dx, columns);
    for (size_t row = tile.begin + at.row; row < tile.end; row += at.stride) g.store(dx + row * columns, at.column, columns, aligned);
}
