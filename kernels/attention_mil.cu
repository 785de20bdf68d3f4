// Attention pooling over ragged bags, f32-grade: forward and backward for any sizes, features in f32, f16 or bf16.
// Page: src/ops/attention_mil/mod.rs.
// Products: a block of 256 threads for 128 rows and 128 columns, V and U interleaved column by column so that a thread
// holds both arguments of a gate. Pooling: a block for a segment of one bag, then a block for a bag, segments in order.
#include "device.cuh"
#include "block.cuh"
#include "attention_tile.cuh"
#include "attention_epilogue.cuh"

// What cuda.rs shares with this file.
constexpr unsigned SEGMENT = 512;    // rows of one bag that are pooled together
constexpr unsigned GATE_ROWS = 256;  // rows that a block of the gates' gradient sums over
constexpr int MOST_HEADS = 4;        // that are held in registers at a time

// ---- scores ----

// Of rows `first` to `first + rows`: part[tile][row][head], what the columns of a tile give to a score, and gates [rows, width],
// tanh and sigmoid interleaved; each where it is not null.
template <class F>
__device__ __forceinline__ void score(const F* x, const float* v, const float* v_bias, const float* u, const float* u_bias, const float* w,
                                      float* part, float* gates, unsigned first, unsigned rows, unsigned l, unsigned d, unsigned width, unsigned tiles,
                                      unsigned heads, unsigned grade) {
    __shared__ TileMemory memory;
    const unsigned first_row = blockIdx.x / tiles * TILE, tile = blockIdx.x % tiles, first_column = tile * TILE;
    TileSums sums;
    const TileSource<float> inner = u ? TileSource<float>(v, u, width, l) : TileSource<float>(v, width, l);
    tile_product(sums, TileOperand<F, true>{TileSource<F>(x + size_t(first) * l, rows, l), first_row}, TileOperand<float, true>{inner, first_column}, 0, l, grade, memory);

    score_of_tile<false>(sums, memory.a[0], v_bias, u_bias, u != nullptr, w, part, gates, first_row, tile, rows, d, width, width, heads);
}
#define SCORE(name, F)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS)                                                                      \
    name(const F* __restrict__ x, const float* __restrict__ v, const float* __restrict__ v_bias, const float* __restrict__ u,       \
         const float* __restrict__ u_bias, const float* __restrict__ w, float* __restrict__ part, float* __restrict__ gates,        \
         unsigned n, unsigned first, unsigned rows, unsigned l, unsigned d, unsigned width, unsigned tiles, unsigned heads,         \
         unsigned grade) {                                                                                                          \
        score(x, v, v_bias, u, u_bias, w, part, gates, first, rows, l, d, width, tiles, heads, grade);                              \
    }
SCORE(attention_mil_score_f32, float)
SCORE(attention_mil_score_f16, __half)
SCORE(attention_mil_score_bf16, __nv_bfloat16)

// ---- pooling ----

template <int HEADS, class F>
__device__ __forceinline__ void pool_heads(const F* x, const float* part, const float* w_bias, float* scores, float* segment_max, float* segment_sum,
                                           float* pooled, unsigned first_row, unsigned rows, unsigned n, unsigned l, unsigned parts, unsigned heads,
                                           unsigned first_head) {
    constexpr int SIZE = Vec<F>::SIZE, WARPS = TILE_THREADS / 32;
    __shared__ float weight[HEADS][SEGMENT];
    __shared__ float other[WARPS][32 * SIZE];
    const unsigned segment = blockIdx.x;
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
        const unsigned head = first_head + h;
        if (head >= heads) break;
        float score[SEGMENT / TILE_THREADS], largest = -INFINITY, sum = 0.f;
#pragma unroll
        for (unsigned i = 0; i < SEGMENT / TILE_THREADS; ++i) {
            const unsigned row = i * TILE_THREADS + threadIdx.x;
            if (row >= rows) continue;
            float s = w_bias ? w_bias[head] : 0.f;
            float terms = 0.f;
            for (unsigned p = 0; p < parts; ++p) terms += part[(size_t(p) * n + first_row + row) * heads + head];
            score[i] = terms + s;
            largest = fmaxf(largest, score[i]);
        }
        largest = block_max(largest);
#pragma unroll
        for (unsigned i = 0; i < SEGMENT / TILE_THREADS; ++i) {
            const unsigned row = i * TILE_THREADS + threadIdx.x;
            if (row >= rows) continue;
            if (blockIdx.y == 0) scores[size_t(first_row + row) * heads + head] = score[i];
            sum += weight[h][row] = expf(score[i] - largest);
        }
        sum = block_sum(sum);
        if (blockIdx.y == 0 && threadIdx.x == 0) {
            segment_max[size_t(segment) * heads + head] = largest;
            segment_sum[size_t(segment) * heads + head] = sum;
        }
    }
    __syncthreads();  // the weights of all rows are there

    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = (blockIdx.y * 32 + lane) * SIZE;
    const bool aligned = Vec<F>::fits(x, l);
    float sum[HEADS][SIZE] = {};
    if (column < l)
#pragma unroll 4
        for (unsigned row = warp; row < rows; row += WARPS) {
            const Vec<F> v = Vec<F>::load(x + size_t(first_row + row) * l, column, l, aligned);
#pragma unroll
            for (int h = 0; h < HEADS; ++h) {
                const float a = first_head + h < heads ? weight[h][row] : 0.f;
#pragma unroll
                for (int i = 0; i < SIZE; ++i) sum[h][i] = fmaf(a, v[i], sum[h][i]);
            }
        }
#pragma unroll
    for (int h = 0; h < HEADS; ++h) {
        const unsigned head = first_head + h;
        if (head >= heads) break;
        __syncthreads();  // other[] is still read for the head before
#pragma unroll
        for (int i = 0; i < SIZE; ++i) other[warp][i * 32 + lane] = sum[h][i];
        __syncthreads();  // the sums of all warps are there
        for (unsigned at = threadIdx.x; at < 32 * SIZE; at += TILE_THREADS) {
            const unsigned to = (blockIdx.y * 32 + at % 32) * SIZE + at / 32;
            float all = 0.f;
#pragma unroll
            for (int i = 0; i < WARPS; ++i) all += other[i][at];
            if (to < l) pooled[(size_t(segment) * heads + head) * l + to] = all;
        }
    }
    __syncthreads();  // weight[] is still read while the next heads would write it
}
// segment_max, segment_sum [segments, K], pooled [segments, K, L]: relative to the largest score of the segment.
template <class F>
__device__ __forceinline__ void pool(const F* x, const float* part, const float* w_bias, const unsigned* start, float* scores, float* segment_max,
                                     float* segment_sum, float* pooled, unsigned n, unsigned l, unsigned parts, unsigned heads) {
    const unsigned first = start[blockIdx.x], rows = start[blockIdx.x + 1] - first;
    if (heads == 1) pool_heads<1>(x, part, w_bias, scores, segment_max, segment_sum, pooled, first, rows, n, l, parts, heads, 0);
    else
        for (unsigned head = 0; head < heads; head += MOST_HEADS)
            pool_heads<MOST_HEADS>(x, part, w_bias, scores, segment_max, segment_sum, pooled, first, rows, n, l, parts, heads, head);
}
#define POOL(name, F)                                                                                                               \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)                                                                   \
    name(const F* __restrict__ x, const float* __restrict__ part, const float* __restrict__ w_bias, const unsigned* __restrict__ start, \
         float* __restrict__ scores, float* __restrict__ segment_max, float* __restrict__ segment_sum, float* __restrict__ pooled,  \
         unsigned n, unsigned segments, unsigned l, unsigned parts, unsigned heads) {                                               \
        pool(x, part, w_bias, start, scores, segment_max, segment_sum, pooled, n, l, parts, heads);                                 \
    }
POOL(attention_mil_pool_f32, float)
POOL(attention_mil_pool_f16, __half)
POOL(attention_mil_pool_bf16, __nv_bfloat16)

// A block of 16 warps for one bag, one head and 32 columns: each warp takes every 16th segment, in order.
extern "C" __global__ void __launch_bounds__(512)
attention_mil_combine(const float* __restrict__ segment_max, const float* __restrict__ segment_sum, const float* __restrict__ part,
                      const unsigned* __restrict__ of_bag, float* __restrict__ pooled, float* __restrict__ bag_max, float* __restrict__ bag_sum,
                      unsigned bags, unsigned segments, unsigned l, unsigned heads) {
    __shared__ float other[16][32];
    const unsigned bag = blockIdx.x / heads, head = blockIdx.x % heads, first = of_bag[bag], end = of_bag[bag + 1];
    MaxSum total = max_sum_of_none();
    for (unsigned s = first + threadIdx.x; s < end; s += blockDim.x)
        total = merged(total, MaxSum{segment_max[size_t(s) * heads + head], segment_sum[size_t(s) * heads + head]});
    total = block_merge(total);
    if (blockIdx.y == 0 && threadIdx.x == 0) bag_max[blockIdx.x] = total.max, bag_sum[blockIdx.x] = total.sum;

    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = blockIdx.y * 32 + lane;
    float sum = 0.f;
    if (column < l)
#pragma unroll 4
        for (unsigned s = first + warp; s < end; s += 16)
            sum = fmaf(expf(segment_max[size_t(s) * heads + head] - total.max), part[(size_t(s) * heads + head) * l + column], sum);
    other[warp][lane] = sum;
    __syncthreads();  // the sums of all warps are there
    if (warp == 0 && column < l) {
        float all = 0.f;
#pragma unroll
        for (int i = 0; i < 16; ++i) all += other[i][lane];
        pooled[size_t(blockIdx.x) * l + column] = first < end ? all / total.sum : 0.f;
    }
}

// A thread for one weight.
extern "C" __global__ void __launch_bounds__(256)
attention_mil_weights(const float* __restrict__ scores, const float* __restrict__ bag_max, const float* __restrict__ bag_sum,
                      const unsigned* __restrict__ offset, float* __restrict__ weights, unsigned n, unsigned bags, unsigned heads) {
    const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(n) * heads) return;
    const size_t of = size_t(bag_holding(offset, bags, unsigned(i / heads))) * heads + i % heads;
    weights[i] = expf(scores[i] - bag_max[of]) / bag_sum[of];
}

// ---- backward ----

// mean[bag][head] = sum over the bag of weight dL/dweight: a block for each. The sum over g . x_j is g . pooled.
extern "C" __global__ void __launch_bounds__(256)
attention_mil_means(const float* __restrict__ grad_pooled, const float* __restrict__ pooled, const float* __restrict__ grad_weights,
                    const float* __restrict__ weights, const unsigned* __restrict__ offset, float* __restrict__ mean, unsigned n, unsigned bags,
                    unsigned l, unsigned heads) {
    const unsigned bag = blockIdx.x / heads, head = blockIdx.x % heads, first = offset[bag], end = offset[bag + 1];
    float sum = 0.f;
    if (grad_pooled && first < end)
        for (unsigned c = threadIdx.x; c < l; c += blockDim.x) sum = fmaf(grad_pooled[size_t(blockIdx.x) * l + c], pooled[size_t(blockIdx.x) * l + c], sum);
    if (grad_weights)
        for (unsigned row = first + threadIdx.x; row < end; row += blockDim.x)
            sum = fmaf(grad_weights[size_t(row) * heads + head], weights[size_t(row) * heads + head], sum);
    sum = block_sum(sum);
    if (threadIdx.x == 0) mean[blockIdx.x] = sum;
}

// A warp for a row: dL/dscore of all its heads.
template <class F>
__device__ __forceinline__ void score_gradient(const F* x, const float* weights, const float* mean, const float* grad_pooled, const float* grad_weights,
                                               const float* grad_scores, const unsigned* offset, float* grad, unsigned n, unsigned bags, unsigned l,
                                               unsigned heads) {
    const unsigned row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    const unsigned bag = bag_holding(offset, bags, row);
    const TileSource<F> features(x, n, l);
    const TileSource<float> grads(grad_pooled, bags * heads, l);
    for (unsigned head = 0; head < heads; ++head) {
        float sum = 0.f;
        if (grad_pooled) {
            for (unsigned c = lane * 8; c < l; c += 32 * 8) {  // the same order for all types
                float a[8], b[8];
                features.load8(row, c, n, l, a), grads.load8(bag * heads + head, c, bags * heads, l, b);
#pragma unroll
                for (int i = 0; i < 8; ++i) sum = fmaf(a[i], b[i], sum);
            }
            sum = warp_sum(sum);
        }
        if (lane == 0) {
            const size_t at = size_t(row) * heads + head;
            if (grad_weights) sum += grad_weights[at];
            sum = weights[at] * (sum - mean[size_t(bag) * heads + head]);
            grad[at] = grad_scores ? sum + grad_scores[at] : sum;
        }
    }
}
#define SCORE_GRADIENT(name, F)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(256)                                                                               \
    name(const F* __restrict__ x, const float* __restrict__ weights, const float* __restrict__ mean, const float* __restrict__ grad_pooled, \
         const float* __restrict__ grad_weights, const float* __restrict__ grad_scores, const unsigned* __restrict__ offset,        \
         float* __restrict__ grad, unsigned n, unsigned bags, unsigned l, unsigned heads) {                                         \
        score_gradient(x, weights, mean, grad_pooled, grad_weights, grad_scores, offset, grad, n, bags, l, heads);                  \
    }
SCORE_GRADIENT(attention_mil_score_gradient_f32, float)
SCORE_GRADIENT(attention_mil_score_gradient_f16, __half)
SCORE_GRADIENT(attention_mil_score_gradient_bf16, __nv_bfloat16)

// A thread for GATE_ROWS rows of one column: from gates to the gradient of their arguments, in place, and its part of the
// sums over rows, [v_bias D, u_bias D if gated, w K D, w_bias K]. first: the row of the call that gates[0] belongs to.
template <class G>
__device__ __forceinline__ void gate_gradient(const float* grad_score, const float* w, G* gates, float* part, unsigned first, unsigned rows,
                                              unsigned d, unsigned width, unsigned stride, unsigned heads) {
    const bool gated = width > d;
    const unsigned column = blockIdx.x * blockDim.x + threadIdx.x, begin = blockIdx.y * GATE_ROWS, end = min(begin + GATE_ROWS, rows);
    const size_t sums = width + size_t(heads) * d + heads;
    float* to = part + (first / GATE_ROWS + blockIdx.y) * sums;
    grad_score += size_t(first) * heads;
    if (column < heads) {
        float sum = 0.f;
        for (unsigned row = begin; row < end; ++row) sum += grad_score[size_t(row) * heads + column];
        to[sums - heads + column] = sum;
    }
    if (column >= d) return;
    for (unsigned head = 0; head < heads; head += MOST_HEADS) {
        const bool last = head + MOST_HEADS >= heads;
        float of_head[MOST_HEADS], sum_w[MOST_HEADS] = {}, sum_t = 0.f, sum_s = 0.f;
#pragma unroll
        for (int h = 0; h < MOST_HEADS; ++h) of_head[h] = head + h < heads ? w[size_t(head + h) * d + column] : 0.f;
        for (unsigned row = begin; row < end; ++row) {
            const float* g = grad_score + size_t(row) * heads;
            G* at = gates + size_t(row) * stride + (gated ? 2 * column : column);
            const float t = widened(at[0]), s = gated ? widened(at[1]) : 1.f, both = t * s;
            float grad = 0.f;
            if (last)
                for (unsigned h = 0; h < head; ++h) grad = fmaf(g[h], w[size_t(h) * d + column], grad);
#pragma unroll
            for (int h = 0; h < MOST_HEADS; ++h) {
                const float of = head + h < heads ? g[head + h] : 0.f;
                sum_w[h] = fmaf(of, both, sum_w[h]);
                grad = fmaf(of, of_head[h], grad);
            }
            if (!last) continue;
            const float grad_t = grad * s * (1.f - t * t), grad_s = grad * both * (1.f - s);
            sum_t += grad_t, sum_s += grad_s;
            at[0] = narrowed<G>(grad_t);
            if (gated) at[1] = narrowed<G>(grad_s);
        }
#pragma unroll
        for (int h = 0; h < MOST_HEADS; ++h)
            if (head + h < heads) to[width + size_t(head + h) * d + column] = sum_w[h];
        if (last) to[column] = sum_t;
        if (last && gated) to[d + column] = sum_s;
    }
}
#define GATE_GRADIENT(name, G)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(128, 8)                                                                            \
    name(const float* __restrict__ grad_score, const float* __restrict__ w, G* __restrict__ gates, float* __restrict__ part,        \
         unsigned n, unsigned first, unsigned rows, unsigned d, unsigned width, unsigned stride, unsigned heads) {                  \
        gate_gradient(grad_score, w, gates, part, first, rows, d, width, stride, heads);                                            \
    }
GATE_GRADIENT(attention_mil_gate_gradient_f32, float)
GATE_GRADIENT(attention_mil_gate_gradient_f16, __half)
GATE_GRADIENT(attention_mil_gate_gradient_bf16, __nv_bfloat16)

// part[split][V rows, U rows][L] = sum over the rows of a split of grad_gate x: blocks for the tiles of each split.
template <class F>
__device__ __forceinline__ void inner_gradient(const F* x, const float* grad_gates, float* part, unsigned first, unsigned rows, unsigned split_rows,
                                               unsigned l, unsigned d, unsigned width, unsigned grade) {
    __shared__ TileMemory memory;
    const unsigned begin = blockIdx.z * split_rows, end = min(begin + split_rows, rows);
    const unsigned first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    TileSums sums;
    tile_product(sums, TileOperand<float, false>{TileSource<float>(grad_gates, rows, width), first_row},
                 TileOperand<F, false>{TileSource<F>(x + size_t(first) * l, rows, l), first_column}, begin, end, grade, memory);
    inner_gradient_of_tile(sums, part + (first / split_rows + blockIdx.z) * size_t(width) * l, first_row, first_column, l, d, width);
}
#define INNER_GRADIENT(name, F)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS)                                                                      \
    name(const F* __restrict__ x, const float* __restrict__ grad_gates, float* __restrict__ part, unsigned n, unsigned first,       \
         unsigned rows, unsigned split_rows, unsigned l, unsigned d, unsigned width, unsigned grade) {                              \
        inner_gradient(x, grad_gates, part, first, rows, split_rows, l, d, width, grade);                                           \
    }
INNER_GRADIENT(attention_mil_inner_gradient_f32, float)
INNER_GRADIENT(attention_mil_inner_gradient_f16, __half)
INNER_GRADIENT(attention_mil_inner_gradient_bf16, __nv_bfloat16)

// sum[i] = part[0][first + i] + part[1][first + i] + ...: a block of 8 warps for 32 of them, each warp every 8th part.
extern "C" __global__ void __launch_bounds__(256)
attention_mil_sum(const float* __restrict__ part, float* __restrict__ sum, unsigned parts, unsigned long long stride, unsigned long long first,
                  unsigned count) {
    __shared__ float other[8][32];
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, i = blockIdx.x * 32 + lane;
    float mine = 0.f;
    if (i < count)
#pragma unroll 4
        for (unsigned p = warp; p < parts; p += 8) mine += part[p * stride + first + i];
    other[warp][lane] = mine;
    __syncthreads();  // the sums of all warps are there
    if (warp || i >= count) return;
    float all = 0.f;
#pragma unroll
    for (int p = 0; p < 8; ++p) all += other[p][lane];
    sum[i] = all;
}

// grad_x = grad_gates (V, U) + sum over heads of weight grad_pooled: a block for a tile.
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
attention_mil_input_gradient(const float* __restrict__ grad_gates, const float* __restrict__ v, const float* __restrict__ u,
                             const float* __restrict__ weights, const float* __restrict__ grad_pooled, const unsigned* __restrict__ offset,
                             float* __restrict__ grad_x, unsigned n, unsigned first, unsigned rows, unsigned bags, unsigned l, unsigned d,
                             unsigned width, unsigned heads, unsigned grade) {
    __shared__ TileMemory memory;
    const unsigned tiles = (l + TILE - 1) / TILE, first_row = blockIdx.x / tiles * TILE, first_column = blockIdx.x % tiles * TILE;
    TileSums sums;
    const TileSource<float> inner = u ? TileSource<float>(v, u, width, l) : TileSource<float>(v, width, l);
    tile_product(sums, TileOperand<float, true>{TileSource<float>(grad_gates, rows, width), first_row}, TileOperand<float, false>{inner, first_column}, 0, width, grade,
                 memory);
    input_gradient_of_tile(sums, weights, grad_pooled, offset, grad_x, first, first_row, first_column, rows, bags, l, heads);
}
