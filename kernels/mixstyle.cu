// MixStyle: the channels of a bag get a mean and a deviation between its own and those of another bag.
// Page: src/ops/mixstyle/mod.rs.
// One block a tile of 128 rows of one bag for sums, for mixing and for the gradient; one block a bag and 32 columns joins the
// tiles in a fixed order, one thread a bag and column mixes. Floor: 8 bytes an element each way, with the tile read twice.
#include "segment.cuh"

// Adds what the threads of one column have in the order of their rows; every thread gets the total.
__device__ __forceinline__ float4 column_sum(float4 sum, Place at, unsigned lanes) {
    __shared__ float4 sums[256];
    __syncthreads();  // sums[] may still be read from the call before
    sums[threadIdx.x] = sum;
    __syncthreads();  // the sums of all threads are there
    sum = sums[threadIdx.x % lanes];
    for (unsigned r = 1; r < at.stride; ++r) {
        const float4 other = sums[r * lanes + threadIdx.x % lanes];
        sum = make_float4(sum.x + other.x, sum.y + other.y, sum.z + other.z, sum.w + other.w);
    }
    return sum;
}

// Mean and sum of squared differences from it over so many rows. What is left of the mean's own rounding is taken out, so
// that nothing cancels however far the mean is from 0.
extern "C" __global__ void __launch_bounds__(256)
mixstyle_tiles(const float* __restrict__ x, const unsigned int* __restrict__ offset, double* __restrict__ mean,
               double* __restrict__ squares, unsigned int /* n */, unsigned int bags, unsigned int columns, unsigned int lanes) {
    const Tile tile = tile_of(offset, bags, blockIdx.x);
    if (tile.begin == tile.end) return;  // the whole block
    const Place at = place(lanes);
    const bool aligned = Vec<float>::fits(x, columns), has = at.column < columns;
    const unsigned begin = tile.begin + at.row, end = has ? tile.end : 0;
    const float rows = tile.end - tile.begin;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 4
    for (size_t row = begin; row < end; row += at.stride) {
        const Vec<float> v = Vec<float>::load(x + row * columns, at.column, columns, aligned);
        sum = make_float4(sum.x + v[0], sum.y + v[1], sum.z + v[2], sum.w + v[3]);
    }
    sum = column_sum(sum, at, lanes);
    const float4 m = make_float4(sum.x / rows, sum.y / rows, sum.z / rows, sum.w / rows);
    float4 rest = make_float4(0.f, 0.f, 0.f, 0.f), square = rest;
#pragma unroll 4
    for (size_t row = begin; row < end; row += at.stride) {
        const Vec<float> v = Vec<float>::load(x + row * columns, at.column, columns, aligned);
        const float4 d = make_float4(v[0] - m.x, v[1] - m.y, v[2] - m.z, v[3] - m.w);
        rest = make_float4(rest.x + d.x, rest.y + d.y, rest.z + d.z, rest.w + d.w);
        square = make_float4(square.x + d.x * d.x, square.y + d.y * d.y, square.z + d.z * d.z, square.w + d.w * d.w);
    }
    rest = column_sum(rest, at, lanes);
    square = column_sum(square, at, lanes);
    if (at.row > 0 || !has) return;
    const float means[4] = {m.x, m.y, m.z, m.w}, rests[4] = {rest.x, rest.y, rest.z, rest.w};
    const float square_sums[4] = {square.x, square.y, square.z, square.w};
    const size_t here = (size_t)blockIdx.x * columns + at.column;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (at.column + i >= columns) return;
        const double left = (double)rests[i] / rows, around = square_sums[i] - left * left * rows;
        mean[here + i] = means[i] + left;
        squares[here + i] = around < 0. ? 0. : around;  // below 0 by rounding alone
    }
}

// Count, mean and sum of squared differences of some rows, and of two such sets together.
struct Moments {
    double rows, mean, squares;
};
__device__ __forceinline__ Moments joined(Moments a, Moments b) {
    const double rows = a.rows + b.rows, apart = b.mean - a.mean;
    if (b.rows == 0.) return a;
    return {rows, a.mean + apart * (b.rows / rows), a.squares + b.squares + apart * apart * (a.rows * b.rows / rows)};
}

// Mean and deviation of each bag; 32 columns of a bag a block, its threads over the tiles of it.
extern "C" __global__ void __launch_bounds__(256)
mixstyle_join(const double* __restrict__ tile_mean, const double* __restrict__ tile_squares,
              const unsigned int* __restrict__ offset, double* __restrict__ mean, double* __restrict__ deviation,
              unsigned int /* tiles */, unsigned int /* bags */, unsigned int columns, double eps) {
    __shared__ Moments parts[256];
    const unsigned bag = blockIdx.x, length = offset[bag + 1] - offset[bag], begin = first_tile(offset, bag);
    const unsigned group = threadIdx.x / 32, groups = blockDim.x / 32, tiles = (length + TILE_ROWS - 1) / TILE_ROWS;
    const size_t column = (size_t)blockIdx.y * 32 + threadIdx.x % 32;
    Moments all = {0., 0., 0.};
    if (column < columns) {
        for (unsigned t = group; t < tiles; t += groups) {
            const size_t here = (size_t)(begin + t) * columns + column;
            const unsigned rows = t + 1 < tiles ? TILE_ROWS : length - t * TILE_ROWS;
            all = joined(all, Moments{(double)rows, tile_mean[here], tile_squares[here]});
        }
    }
    parts[threadIdx.x] = all;
    __syncthreads();  // the moments of all groups are there
    if (group > 0 || column >= columns) return;
    for (unsigned g = 1; g < groups; ++g) all = joined(all, parts[32 * g + threadIdx.x]);
    const size_t here = (size_t)bag * columns + column;
    mean[here] = all.mean;
    // Of fewer than two rows there is none, and it is not looked at.
    deviation[here] = length < 2 ? 0. : sqrt(all.squares / (length - 1) + eps);
}

// What each channel of a bag is taken times and shifted by: y = (x - own) * scale + shift.
extern "C" __global__ void __launch_bounds__(256)
mixstyle_blend(const double* __restrict__ mean, const double* __restrict__ deviation, const unsigned int* __restrict__ offset,
               const unsigned int* __restrict__ partner, const double* __restrict__ lambda, float* __restrict__ own,
               float* __restrict__ scale, float* __restrict__ shift, unsigned int bags, unsigned int columns) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)bags * columns) return;
    const unsigned b = i / columns, p = partner[b];
    if (offset[b + 1] - offset[b] < 2 || offset[p + 1] - offset[p] < 2) {
        // Passes bit for bit, a zero with its sign.
        own[i] = 0.f, scale[i] = 1.f, shift[i] = -0.f;
        return;
    }
    const size_t j = (size_t)p * columns + i % columns;
    const double share = lambda[b];
    own[i] = mean[i];
    scale[i] = (share * deviation[i] + (1. - share) * deviation[j]) / deviation[i];
    shift[i] = share * mean[i] + (1. - share) * mean[j];
}

__device__ __forceinline__ Vec<float> of_bag(const float* __restrict__ table, unsigned bag, unsigned columns, Place at) {
    return Vec<float>::load(table + (size_t)bag * columns, at.column, columns, Vec<float>::fits(table, columns));
}

// Each row of the tile at this thread's columns, changed by `change`.
template <class F>
__device__ __forceinline__ void each_row(const float* __restrict__ from, float* __restrict__ to, Tile tile, unsigned columns,
                                         Place at, F change) {
    const bool aligned = Vec<float>::fits(from, columns) && Vec<float>::fits(to, columns);
    for (size_t row = tile.begin + at.row; row < tile.end; row += at.stride) {
        const Vec<float> v = Vec<float>::load(from + row * columns, at.column, columns, aligned);
        Vec<float> changed;
#pragma unroll
        for (int i = 0; i < 4; ++i) changed.set(i, change(v[i], i));
        changed.store(to + row * columns, at.column, columns, aligned);
    }
}

// The rows with their new statistics.
extern "C" __global__ void __launch_bounds__(256)
mixstyle_forward(const float* __restrict__ x, const unsigned int* __restrict__ offset, const float* __restrict__ own,
                 const float* __restrict__ scale, const float* __restrict__ shift, float* __restrict__ y, unsigned int /* n */,
                 unsigned int bags, unsigned int columns, unsigned int lanes) {
    const Tile tile = tile_of(offset, bags, blockIdx.x);
    const Place at = place(lanes);
    if (at.column >= columns || tile.begin == tile.end) return;
    const Vec<float> m = of_bag(own, tile.bag, columns, at), s = of_bag(scale, tile.bag, columns, at);
    const Vec<float> to = of_bag(shift, tile.bag, columns, at);
    each_row(x, y, tile, columns, at, [&](float v, int i) { return (v - m[i]) * s[i] + to[i]; });
}

// The gradient with the statistics as constants.
extern "C" __global__ void __launch_bounds__(256)
mixstyle_backward(const float* __restrict__ grad, const unsigned int* __restrict__ offset, const float* __restrict__ scale,
                  float* __restrict__ dx, unsigned int /* n */, unsigned int bags, unsigned int columns, unsigned int lanes) {
    const Tile tile = tile_of(offset, bags, blockIdx.x);
    const Place at = place(lanes);
    if (at.column >= columns || tile.begin == tile.end) return;
    const Vec<float> s = of_bag(scale, tile.bag, columns, at);
    each_row(grad, dx, tile, columns, at, [&](float g, int i) { return g * s[i]; });
}
