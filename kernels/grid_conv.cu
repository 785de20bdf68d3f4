// Convolutions over the grids of bags, each channel alone, all of them as one, and their gradients.
// Page: src/ops/grid_conv/mod.rs.
// One block a tile of 16 by 16 cells and 16 channels, a thread a row of it in one channel; the tile lies in shared memory with
// the cells around it. Sums for the weights over chunks of tiles, joined in order. Floor: 8 bytes an element forward.
#include "block.cuh"

constexpr int SIDE = 16, CHANNELS = 16;  // cells of a tile each way; channels of a block

// Which of size * size weights lies where weight t of a square of `side` does, centre on centre.
__device__ __forceinline__ unsigned place(unsigned t, unsigned side, unsigned size) {
    const unsigned ring = (size - side) / 2;
    return (t / side + ring) * size + t % side + ring;
}

// Adds a convolution to the sum of all; behind its weights comes the bias. One thread an element of it.
extern "C" __global__ void __launch_bounds__(256)
grid_conv_merge(const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ merged,
                unsigned int columns, unsigned int side, unsigned int size) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned weights = side * side, t = i / columns, column = i % columns;
    if (t > weights) return;
    if (t < weights) merged[(size_t)place(t, side, size) * columns + column] += weight[(size_t)column * weights + t];
    else if (bias) merged[(size_t)size * size * columns + column] += bias[column];
}

// A tile, from its table.
struct Tile {
    unsigned row, side, p, q;  // the first row of the bag, the side of its grid, the first cell of the tile
};
__device__ __forceinline__ Tile tile_at(const unsigned* __restrict__ tile, unsigned t) {
    return {tile[4 * (size_t)t], tile[4 * (size_t)t + 1], tile[4 * (size_t)t + 2], tile[4 * (size_t)t + 3]};
}
// The row of a cell of its grid.
__device__ __forceinline__ size_t row_of(Tile tile, unsigned lead, unsigned p, unsigned q) {
    return (size_t)tile.row + lead + (size_t)p * tile.side + q;
}

// Cells of a row in shared memory. One is spare: as the number is odd, the two rows of a warp lie in different banks.
template <int SIZE> constexpr int PITCH = SIDE + SIZE;

// The tile and the cells that weights reach from it, zeros outside of the grid.
template <int SIZE>
__device__ __forceinline__ void load_tile(float* cells, const float* __restrict__ x, Tile tile, unsigned lead, unsigned columns) {
    constexpr unsigned REACH = SIZE / 2, WITH = SIDE + SIZE - 1;
    const bool aligned = Vec<float>::fits(x, columns);
    const unsigned four = 4 * (threadIdx.x % 4), column = blockIdx.y * CHANNELS + four;
#pragma unroll 4
    for (unsigned i = threadIdx.x / 4; i < WITH * WITH; i += 64) {
        const unsigned p = tile.p + i / WITH - REACH, q = tile.q + i % WITH - REACH;  // above any side where they are below 0
        Vec<float> v;
        v.bits.whole = make_uint4(0u, 0u, 0u, 0u);
        if (p < tile.side && q < tile.side) v = Vec<float>::load(x + row_of(tile, lead, p, q) * columns, column, columns, aligned);
        *reinterpret_cast<uint4*>(cells + (i / WITH * PITCH<SIZE> + i % WITH) * CHANNELS + four) = v.bits.whole;
    }
}

template <int SIZE>
__device__ __forceinline__ void convolve(float* memory, const float* __restrict__ x, Tile tile, const float* __restrict__ merged,
                                         float* __restrict__ y, unsigned columns, unsigned lead, bool backwards) {
    constexpr int WEIGHTS = SIZE * SIZE, WITH = SIDE + SIZE - 1;
    float* const cells = memory;                                        // [WITH][PITCH][CHANNELS]
    float* const table = memory + WITH * PITCH<SIZE> * CHANNELS;        // [WEIGHTS + 1][CHANNELS]
    load_tile<SIZE>(cells, x, tile, lead, columns);
    const unsigned lane = threadIdx.x % CHANNELS, column = blockIdx.y * CHANNELS + lane, row = threadIdx.x / CHANNELS;
    for (int t = row; column < columns && t <= WEIGHTS; t += SIDE) {
        const int from = backwards ? WEIGHTS - 1 - t : t;
        table[t * CHANNELS + lane] = from < 0 ? 0.f : merged[(size_t)from * columns + column];  // no bias backwards
    }
    __syncthreads();  // the tile and the weights are there
    const unsigned p = tile.p + row;
    if (column >= columns || p >= tile.side) return;
    float sum[SIDE] = {};
#pragma unroll 1
    for (int u = 0; u < SIZE; ++u) {
        const float* const from = cells + (row + u) * PITCH<SIZE> * CHANNELS + lane;
        float line[WITH];
#pragma unroll
        for (int q = 0; q < WITH; ++q) line[q] = from[q * CHANNELS];
#pragma unroll
        for (int v = 0; v < SIZE; ++v) {
            const float w = table[(u * SIZE + v) * CHANNELS + lane];
#pragma unroll
            for (int q = 0; q < SIDE; ++q) sum[q] += w * line[q + v];
        }
    }
    const float bias = table[WEIGHTS * CHANNELS + lane];
    const float* const own = cells + ((row + SIZE / 2) * PITCH<SIZE> + SIZE / 2) * CHANNELS + lane;
    y += row_of(tile, lead, p, tile.q) * columns + column;
#pragma unroll
    for (int q = 0; q < SIDE; ++q) {
        if (tile.q + q < tile.side) y[(size_t)q * columns] = own[q * CHANNELS] + (sum[q] + bias);
    }
}

// The cells of a tile with what the convolutions make of those around them; with the weights backwards and no bias, of a
// gradient, the gradient of x. The first tile of a bag has its leading rows, too.
extern "C" __global__ void __launch_bounds__(256)
grid_conv_cells(const float* __restrict__ x, const unsigned int* __restrict__ tile, const float* __restrict__ merged,
                float* __restrict__ y, unsigned int /* n */, unsigned int columns, unsigned int lead, unsigned int /* tiles */,
                unsigned int size, unsigned int backwards) {
    DYNAMIC_SHARED(float, memory);
    const Tile here = tile_at(tile, blockIdx.x);
    if (here.p == 0 && here.q == 0) {
        const bool aligned = Vec<float>::fits(x, columns) && Vec<float>::fits(y, columns);
        const unsigned column = blockIdx.y * CHANNELS + 4 * (threadIdx.x % 4);
        for (unsigned i = threadIdx.x / 4; i < lead; i += 64) {
            const size_t row = (size_t)here.row + i;
            Vec<float>::load(x + row * columns, column, columns, aligned).store(y + row * columns, column, columns, aligned);
        }
    }
    if (size == 3) return convolve<3>(memory, x, here, merged, y, columns, lead, backwards);
    if (size == 5) return convolve<5>(memory, x, here, merged, y, columns, lead, backwards);
    convolve<7>(memory, x, here, merged, y, columns, lead, backwards);
}

// What the threads of all rows of a tile have, added in the order of the rows: COUNT numbers of a channel.
template <int COUNT>
__device__ __forceinline__ void fold(const float (&part)[COUNT], float* parts, float* __restrict__ out, unsigned columns) {
    const unsigned lane = threadIdx.x % CHANNELS, column = blockIdx.y * CHANNELS + lane;
    __syncthreads();  // a tile or other parts may still be read
#pragma unroll
    for (int v = 0; v < COUNT; ++v) parts[v * blockDim.x + threadIdx.x] = part[v];
    __syncthreads();  // the parts of all rows are there
    const unsigned v = threadIdx.x / CHANNELS;
    if (v >= COUNT || column >= columns) return;
    float sum = 0.f;
    for (int row = 0; row < SIDE; ++row) sum += parts[v * blockDim.x + row * CHANNELS + lane];
    out[(size_t)v * columns + column] = sum;
}

template <int SIZE>
__device__ __forceinline__ void multiply(float* memory, const float* __restrict__ x, const float* __restrict__ grad,
                                         const unsigned* __restrict__ tile, float* __restrict__ partials, unsigned columns,
                                         unsigned lead, unsigned first, unsigned last) {
    constexpr int WITH = SIDE + SIZE - 1;
    const unsigned lane = threadIdx.x % CHANNELS, column = blockIdx.y * CHANNELS + lane, row = threadIdx.x / CHANNELS;
    float sums[SIZE][SIZE] = {}, bias[1] = {};
    for (unsigned t = first; t < last; ++t) {
        const Tile here = tile_at(tile, t);
        if (here.side == 0) continue;  // the whole block
        __syncthreads();  // the tile before may still be read
        load_tile<SIZE>(memory, x, here, lead, columns);
        const bool has = here.p + row < here.side && column < columns;
        float g[SIDE];
#pragma unroll
        for (int q = 0; q < SIDE; ++q) {
            g[q] = has && here.q + q < here.side ? grad[row_of(here, lead, here.p + row, here.q + q) * columns + column] : 0.f;
        }
        __syncthreads();  // the tile is there
        if (!has) continue;
#pragma unroll
        for (int q = 0; q < SIDE; ++q) bias[0] += g[q];
#pragma unroll
        for (int u = 0; u < SIZE; ++u) {
            const float* const from = memory + (row + u) * PITCH<SIZE> * CHANNELS + lane;
            float line[WITH];
#pragma unroll
            for (int q = 0; q < WITH; ++q) line[q] = from[q * CHANNELS];
#pragma unroll
            for (int v = 0; v < SIZE; ++v) {
#pragma unroll
                for (int q = 0; q < SIDE; ++q) sums[u][v] += g[q] * line[q + v];
            }
        }
    }
    partials += (size_t)blockIdx.x * (SIZE * SIZE + 1) * columns;
#pragma unroll
    for (int u = 0; u < SIZE; ++u) fold(sums[u], memory, partials + (size_t)u * SIZE * columns, columns);
    fold(bias, memory, partials + (size_t)SIZE * SIZE * columns, columns);
}

// The gradients of the weights and the bias of the sum of all convolutions, over so many tiles.
extern "C" __global__ void __launch_bounds__(256)
grid_conv_products(const float* __restrict__ x, const float* __restrict__ grad, const unsigned int* __restrict__ tile,
                   float* __restrict__ partials, unsigned int /* n */, unsigned int columns, unsigned int lead,
                   unsigned int tiles, unsigned int size, unsigned int chunk) {
    DYNAMIC_SHARED(float, memory);
    const unsigned first = blockIdx.x * chunk, last = tiles - first < chunk ? tiles : first + chunk;
    if (size == 3) return multiply<3>(memory, x, grad, tile, partials, columns, lead, first, last);
    if (size == 5) return multiply<5>(memory, x, grad, tile, partials, columns, lead, first, last);
    multiply<7>(memory, x, grad, tile, partials, columns, lead, first, last);
}

// The part of one convolution in them: chunks in their order. One thread an element of it.
extern "C" __global__ void __launch_bounds__(256)
grid_conv_join(const float* __restrict__ partials, float* __restrict__ dw, float* __restrict__ db, unsigned int chunks,
               unsigned int columns, unsigned int side, unsigned int size) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned weights = side * side, t = i / columns, column = i % columns;
    if (t > weights || (t == weights && !db)) return;
    const float* const at = partials + (size_t)(t < weights ? place(t, side, size) : size * size) * columns + column;
    float sum = 0.f;
#pragma unroll 4
    for (unsigned c = 0; c < chunks; ++c) sum += at[(size_t)c * (size * size + 1) * columns];
    if (t < weights) dw[(size_t)column * weights + t] = sum;
    else db[column] = sum;
}
