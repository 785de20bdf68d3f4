// Convolution along the tokens of each bag, one kernel a head, and its gradients.
// Page: src/ops/sequence_conv/mod.rs.
// One block a tile of 128 rows and 32 columns, a warp 16 of the rows, a lane a column of them; the tile lies in shared memory
// with the rows around it. Sums for the weights over chunks of tiles, joined in order. Floor: 8 bytes an element forward.
#include "segment.cuh"

constexpr unsigned COLUMNS = 32;  // of a block
constexpr int RUN = 16;           // rows that a thread has of one
constexpr unsigned WARPS = TILE_ROWS / RUN;

// Row r of `rows` is row `tile.begin - reach + r`: zeros where that is none of the bag, whose rows are first to last - 1.
__device__ __forceinline__ void load_tile(float* rows, const float* __restrict__ x, Tile tile, unsigned first, unsigned last,
                                          unsigned columns, unsigned reach) {
    const bool aligned = Vec<float>::fits(x, columns);
    const unsigned four = 4 * (threadIdx.x % 8), column = blockIdx.y * COLUMNS + four;
#pragma unroll 5
    for (unsigned r = threadIdx.x / 8; r < TILE_ROWS + 2 * reach; r += 32) {
        const size_t row = (size_t)tile.begin + r;  // and reach more than it is
        Vec<float> v;
        v.bits.whole = make_uint4(0u, 0u, 0u, 0u);
        if (row >= first + reach && row < (size_t)last + reach) {
            v = Vec<float>::load(x + (row - reach) * columns, column, columns, aligned);
        }
        *reinterpret_cast<uint4*>(rows + r * COLUMNS + four) = v.bits.whole;
    }
}

// The weighted sums of a tile; with the kernels backwards, of a gradient, the gradient of x.
extern "C" __global__ void __launch_bounds__(256)
sequence_conv_rows(const float* __restrict__ x, const unsigned int* __restrict__ offset, const float* __restrict__ weight,
                   float* __restrict__ y, unsigned int /* n */, unsigned int bags, unsigned int columns, unsigned int heads,
                   unsigned int length, unsigned int backwards) {
    DYNAMIC_SHARED(float, memory);
    const Tile tile = tile_of(offset, bags, blockIdx.x);
    if (tile.begin == tile.end) return;  // the whole block
    float* const kernels = memory + (TILE_ROWS + length - 1) * COLUMNS;
    float* const rows = memory;
    load_tile(rows, x, tile, offset[tile.bag], offset[tile.bag + 1], columns, length / 2);
    const unsigned lane = threadIdx.x % COLUMNS, column = blockIdx.y * COLUMNS + lane, begin = threadIdx.x / COLUMNS * RUN;
    const float* const kernel = weight + (size_t)(column / (columns / heads)) * length;
    for (unsigned k = threadIdx.x / COLUMNS; column < columns && k < length; k += WARPS) {
        kernels[k * COLUMNS + lane] = kernel[backwards ? length - 1 - k : k];
    }
    __syncthreads();  // the tile and the kernels are there
    if (column >= columns || tile.begin + begin >= tile.end) return;
    // Of output r and term k + i, row begin + r + k + i is in window[(r + i) % RUN].
    float window[RUN], sum[RUN] = {};
#pragma unroll
    for (int r = 0; r + 1 < RUN; ++r) window[r] = rows[(begin + r) * COLUMNS + lane];
    for (unsigned k = 0; k < length; k += RUN) {
#pragma unroll
        for (int i = 0; i < RUN; ++i) {
            if (k + i < length) {
                window[(i + RUN - 1) % RUN] = rows[(begin + k + i + RUN - 1) * COLUMNS + lane];
                const float w = kernels[(k + i) * COLUMNS + lane];
#pragma unroll
                for (int r = 0; r < RUN; ++r) sum[r] += w * window[(r + i) % RUN];
            }
        }
    }
    y += (size_t)(tile.begin + begin) * columns + column;
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        if (tile.begin + begin + r < tile.end) y[(size_t)r * columns] = sum[r];
    }
}

// What each column has for the gradient of each weight, over so many tiles.
extern "C" __global__ void __launch_bounds__(256)
sequence_conv_products(const float* __restrict__ x, const float* __restrict__ grad, const unsigned int* __restrict__ offset,
                       float* __restrict__ partials, unsigned int n, unsigned int bags, unsigned int columns,
                       unsigned int length, unsigned int tiles) {
    DYNAMIC_SHARED(float, memory);
    float* const sums = memory;                                        // [length][COLUMNS]
    float* const rows = sums + length * COLUMNS;                       // [TILE_ROWS + length - 1][COLUMNS]
    float* const parts = rows + (TILE_ROWS + length - 1) * COLUMNS;    // [WARPS][RUN][COLUMNS]
    const unsigned lane = threadIdx.x % COLUMNS, column = blockIdx.y * COLUMNS + lane, warp = threadIdx.x / COLUMNS;
    // RUN * COLUMNS is a multiple of the threads, so each thread has sums of its own, and nobody waits for them.
    for (unsigned i = threadIdx.x; i < length * COLUMNS; i += blockDim.x) sums[i] = 0.f;
    const unsigned first = blockIdx.x * tiles, all = n / TILE_ROWS + bags, last = all - first < tiles ? all : first + tiles;
    for (unsigned t = first; t < last; ++t) {
        const Tile tile = tile_of(offset, bags, t);
        if (tile.begin == tile.end) continue;  // the whole block
        // All of the tile before was read before the barriers below.
        load_tile(rows, x, tile, offset[tile.bag], offset[tile.bag + 1], columns, length / 2);
        const unsigned begin = tile.begin + warp * RUN;
        const bool has = begin < tile.end && column < columns;
        float g[RUN], window[RUN] = {};
#pragma unroll
        for (int r = 0; r < RUN; ++r) g[r] = has && begin + r < tile.end ? grad[(size_t)(begin + r) * columns + column] : 0.f;
        __syncthreads();  // the tile is there
        const float* const own = rows + warp * RUN * COLUMNS + lane;
        if (has) {
#pragma unroll
            for (int r = 0; r + 1 < RUN; ++r) window[r] = own[r * COLUMNS];
        }
        for (unsigned k = 0; k < length; k += RUN) {
            float part[RUN] = {};
#pragma unroll
            for (int i = 0; i < RUN; ++i) {
                if (has && k + i < length) {
                    window[(i + RUN - 1) % RUN] = own[(k + i + RUN - 1) * COLUMNS];
#pragma unroll
                    for (int r = 0; r < RUN; ++r) part[i] += g[r] * window[(r + i) % RUN];
                }
            }
            __syncthreads();  // the parts before may still be read
#pragma unroll
            for (int i = 0; i < RUN; ++i) parts[(warp * RUN + i) * COLUMNS + lane] = part[i];
            __syncthreads();  // the parts of all warps are there
            for (unsigned i = threadIdx.x; i < RUN * COLUMNS && k + i / COLUMNS < length; i += blockDim.x) {
                float sum = parts[i];
                for (unsigned w = 1; w < WARPS; ++w) sum += parts[w * RUN * COLUMNS + i];
                sums[k * COLUMNS + i] += sum;
            }
        }
    }
    for (unsigned i = threadIdx.x; column < columns && i < length * COLUMNS; i += blockDim.x) {
        partials[((size_t)blockIdx.x * length + i / COLUMNS) * columns + column] = sums[i];
    }
}

// The gradient of one weight: chunks in their order for each column of the head, then the columns.
extern "C" __global__ void __launch_bounds__(256)
sequence_conv_sum(const float* __restrict__ partials, float* __restrict__ dw, unsigned int chunks, unsigned int columns,
                  unsigned int heads, unsigned int length) {
    const unsigned width = columns / heads;
    float sum = 0.f;
    for (unsigned j = threadIdx.x; j < width; j += blockDim.x) {
        const float* const at = partials + (size_t)blockIdx.y * columns + blockIdx.x * width + j;
        float of_column = 0.f;
#pragma unroll 4
        for (unsigned c = 0; c < chunks; ++c) of_column += at[(size_t)c * length * columns];
        sum += of_column;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) dw[(size_t)blockIdx.x * length + blockIdx.y] = sum;
}
