// Attention of gene and patch tokens, forward and backward, without the matrix of scores.
// Page: src/ops/pathway_attention/mod.rs.
// One block a head of 32 queries (or, for the gradient of keys and values, of 32 keys), four threads a row, over tiles of 32
// of the other side; what several blocks give for one row is joined in order by a second kernel. A table says which rows:
// first, how many, first and how many of the other side, and the first row of the result. Heads of more than 128 columns have a
// block a slice of them: all calculate the scores, slice by slice, and each writes its own. Rows of queries have `q_step`
// columns, of which the queries are the first; rows of keys have `k_step`, keys from `k_at` on and values behind them.
// Floor: the products, in f32.
#include "block.cuh"

constexpr unsigned ROWS = 32, THREADS = 128, PITCH = 132;  // rows of a tile; floats from one row to the next: no bank conflict
constexpr unsigned GROUPS = 8;                              // of four columns that a thread has of a slice of a row
constexpr unsigned SLICE = 128;                             // columns of a slice

struct Task {
    unsigned first, count, other, others, result;
};
__device__ __forceinline__ Task task_of(const unsigned* __restrict__ table) {
    const unsigned* row = table + 5 * (size_t)blockIdx.x;
    return {row[0], row[1], row[2], row[3], row[4]};
}

// 32 rows of d columns with zeros around them; `x` is the first column of row 0 of a matrix of `stride` columns.
__device__ __forceinline__ void load(float* tile, const float* __restrict__ x, size_t stride, unsigned first, unsigned count, unsigned d) {
    const bool aligned = Vec<float>::fits(x, stride) && d % 4 == 0;
    for (unsigned i = threadIdx.x; i < ROWS * 32; i += THREADS) {
        const unsigned row = i / 32, column = 4 * (i % 32);
        Vec<float> v = Vec<float>::load_some(x, 0);
        if (row < count && column < d) v = Vec<float>::load(x + (first + row) * stride, column, d, aligned);
        v.store(tile + row * PITCH + column);
    }
}

__device__ __forceinline__ unsigned row_of() { return threadIdx.x / 4; }
__device__ __forceinline__ unsigned part_of() { return threadIdx.x % 4; }
__device__ __forceinline__ float4 four(const float* p) { return *reinterpret_cast<const float4*>(p); }

// The slices of a head of d columns, and what a block has of them.
struct Head {
    unsigned head, slices, slice, d;
    __device__ Head(unsigned d) : slices((d + SLICE - 1) / SLICE), d(d) { head = blockIdx.y / slices, slice = blockIdx.y % slices; }
    // Columns of slice i, and its first of the head's.
    __device__ unsigned columns(unsigned i) const { return d - SLICE * i < SLICE ? d - SLICE * i : SLICE; }
    __device__ unsigned column(unsigned i) const { return head * d + SLICE * i; }
    // All slices, that of the block last, so that its tile is there when the scores are.
    __device__ unsigned turn(unsigned i) const { return (slice + 1 + i) % slices; }
    // Rows that a block keeps, all slices.
    __device__ void keep(float* tiles, const float* __restrict__ x, size_t stride, const Task& task) const {
        for (unsigned i = 0; i < slices; ++i)
            load(tiles + i * ROWS * PITCH, x + column(i), stride, task.first, task.count, columns(i));
    }
};

// Adds the products of a row of a with rows part, part + 4, ... of b: sums of 32 columns first, so that rounding grows slower.
__device__ __forceinline__ void products(float (&s)[8], const float* a, const float* b, unsigned d) {
#pragma unroll 1
    for (unsigned start = 0; start < d; start += 32) {
        float part[8] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
#pragma unroll 1  // more of them, and registers are spilled
        for (unsigned x = start; x < start + 32 && x < d; x += 4) {
            const float4 u = four(a + row_of() * PITCH + x);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float4 v = four(b + (part_of() + 4 * i) * PITCH + x);
                part[i] += u.x * v.x + u.y * v.y + u.z * v.z + u.w * v.w;
            }
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) s[i] += part[i];
    }
}
// Adds the rows of b, weighed by a row of w, to four columns each of every fourth group.
__device__ __forceinline__ void weigh(float4 (&sum)[GROUPS], const float* w, const float* b, unsigned d) {
#pragma unroll 2
    for (unsigned j = 0; j < ROWS; ++j) {
        const float a = w[row_of() * (ROWS + 1) + j];
#pragma unroll
        for (unsigned i = 0; i < GROUPS; ++i) {
            const unsigned column = 4 * (part_of() + 4 * i);
            if (column >= d) continue;
            const float4 v = four(b + j * PITCH + column);
            sum[i] = make_float4(sum[i].x + a * v.x, sum[i].y + a * v.y, sum[i].z + a * v.z, sum[i].w + a * v.w);
        }
    }
}
__device__ __forceinline__ void clear(float4 (&sum)[GROUPS]) {
#pragma unroll
    for (unsigned i = 0; i < GROUPS; ++i) sum[i] = make_float4(0.f, 0.f, 0.f, 0.f);
}
__device__ __forceinline__ void store(const float4 (&sum)[GROUPS], float* __restrict__ row, float divisor, unsigned d, bool aligned) {
#pragma unroll
    for (unsigned i = 0; i < GROUPS; ++i) {
        const unsigned column = 4 * (part_of() + 4 * i);
        Vec<float> v;
        v.set(0, sum[i].x / divisor), v.set(1, sum[i].y / divisor), v.set(2, sum[i].z / divisor), v.set(3, sum[i].w / divisor);
        if (column < d) v.store(row, column, d, aligned);
    }
}

// A tile for each of `tiles` matrices, then 32 rows of weights.
__device__ __forceinline__ float* weights_behind(float* memory, unsigned tiles) { return memory + tiles * ROWS * PITCH; }

// Products of a row that is kept with rows of the other side, which is loaded slice by slice; its last is the block's own.
__device__ __forceinline__ void scores(float (&s)[8], const Head& h, const float* kept, float* other, const float* __restrict__ x,
                                       size_t stride, unsigned first, unsigned count) {
#pragma unroll
    for (int i = 0; i < 8; ++i) s[i] = 0.f;
    for (unsigned i = 0; i < h.slices; ++i) {
        const unsigned slice = h.turn(i);
        __syncthreads();  // what was there of the other side is read
        load(other, x + h.column(slice), stride, first, count, h.columns(slice));
        __syncthreads();  // the rows of the other side are there
        products(s, kept + slice * ROWS * PITCH, other, h.columns(slice));
    }
}

// What queries attend to among a range of keys, and the logarithm of the sum of their exponentials.
extern "C" __global__ void __launch_bounds__(128, 3)
pathway_attention_forward(const float* __restrict__ queries, const float* __restrict__ keys, const unsigned int* __restrict__ table,
                          float* __restrict__ out, float* __restrict__ log_sum, unsigned int /* n */, unsigned int /* m */,
                          unsigned int /* tasks */, unsigned int /* rows */, unsigned int heads, unsigned int d, unsigned int q_step,
                          unsigned int k_step, unsigned int k_at, float scale) {
    DYNAMIC_SHARED(float, memory);
    const Head h(d);
    float *const q = memory, *const other = q + h.slices * ROWS * PITCH, *const weights = weights_behind(other, 1);
    const Task task = task_of(table);
    const unsigned width = heads * d, row = row_of(), own = h.columns(h.slice);
    h.keep(q, queries, q_step, task);
    float4 sum[GROUPS];
    clear(sum);
    float max = -INFINITY, total = 0.f;
    for (unsigned at = 0; at < task.others; at += ROWS) {
        const unsigned first = task.other + at, count = task.others - at < ROWS ? task.others - at : ROWS;
        float s[8], most = -INFINITY;
        scores(s, h, q, other, keys + k_at, k_step, first, count);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            s[i] = part_of() + 4 * i < count ? s[i] * scale : -INFINITY;
            most = fmaxf(most, s[i]);
        }
        most = fmaxf(max, warp_fold<Max, 4>(most));
        const float from = most == -INFINITY ? 0.f : most, factor = expf(max - from);
        max = most;
        float here = 0.f;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float w = expf(s[i] - from);
            weights[row * (ROWS + 1) + part_of() + 4 * i] = w;
            here += w;
        }
        total = total * factor + warp_fold<Add, 4>(here);
#pragma unroll
        for (unsigned i = 0; i < GROUPS; ++i) sum[i] = make_float4(sum[i].x * factor, sum[i].y * factor, sum[i].z * factor, sum[i].w * factor);
        __syncthreads();  // the keys are read
        load(other, keys + k_at + width + h.column(h.slice), k_step, first, count, own);
        __syncthreads();  // values and weights are there
        weigh(sum, weights, other, own);
    }
    if (row >= task.count) return;
    const size_t to = task.result + row;
    float* const here = out + to * width + h.column(h.slice);
    store(sum, here, total == 0.f ? 1.f : total, own, Vec<float>::fits(here, width) && own % 4 == 0);
    if (part_of() == 0 && h.slice == 0) log_sum[to * heads + h.head] = max + logf(total);
}

// The parts of each row, joined in order: `places` has the first, the distance to the next, and how many. A warp a row and head.
extern "C" __global__ void __launch_bounds__(256)
pathway_attention_join(const float* __restrict__ parts, const float* __restrict__ part_log, const unsigned int* __restrict__ places,
                       float* __restrict__ out, float* __restrict__ log_sum, unsigned int rows, unsigned int /* slots */,
                       unsigned int heads, unsigned int d) {
    const unsigned at = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, row = at / heads, head = at % heads;
    if (row >= rows) return;
    const unsigned first = places[3 * row], step = places[3 * row + 1], count = places[3 * row + 2];
    float max = -INFINITY, total = 0.f, sum[8] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
    for (unsigned p = 0; p < count; ++p) max = fmaxf(max, part_log[(first + (size_t)p * step) * heads + head]);
    const float from = max == -INFINITY ? 0.f : max;
    for (unsigned p = 0; p < count; ++p) {
        const size_t slot = first + (size_t)p * step;
        const float weight = expf(part_log[slot * heads + head] - from);
        total += weight;
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (lane + 32 * i < d) sum[i] += weight * parts[(slot * heads + head) * d + lane + 32 * i];
    }
    const float divisor = total == 0.f ? 1.f : total;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (lane + 32 * i < d) out[((size_t)row * heads + head) * d + lane + 32 * i] = sum[i] / divisor;
    if (lane == 0) log_sum[(size_t)row * heads + head] = max + logf(total);
}

// The product of each row of a head with the row of its gradient, by a warp.
extern "C" __global__ void __launch_bounds__(256)
pathway_attention_dot(const float* __restrict__ out, const float* __restrict__ grad, float* __restrict__ dot, unsigned int rows,
                      unsigned int d) {
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = 0.f;
    for (unsigned i = lane; i < d; i += 32) sum += out[(size_t)row * d + i] * grad[(size_t)row * d + i];
    sum = warp_sum(sum);
    if (lane == 0) dot[row] = sum;
}

// Weights w and what is owed to scores, of queries (log, dot) and the keys whose scores and values' products are given.
__device__ __forceinline__ float weight_of(float score, float scale, float log) { return expf(score * scale - log); }

// The mean weight of each key over the queries of its patient, in their order; 0 without any. A block has all slices of its head.
extern "C" __global__ void __launch_bounds__(128, 3)
pathway_attention_weights(const float* __restrict__ queries, const float* __restrict__ keys, const unsigned int* __restrict__ table,
                          const float* __restrict__ log_sum, float* __restrict__ weights, unsigned int /* n */, unsigned int /* m */,
                          unsigned int /* tasks */, unsigned int heads, unsigned int d, unsigned int q_step, unsigned int k_step,
                          unsigned int k_at, float scale) {
    DYNAMIC_SHARED(float, memory);
    Head h(d);
    h.head = blockIdx.y, h.slice = 0;
    float *const k = memory, *const other = k + h.slices * ROWS * PITCH;
    const Task task = task_of(table);
    h.keep(k, keys + k_at, k_step, task);
    float sum = 0.f;
    for (unsigned at = 0; at < task.others; at += ROWS) {
        const unsigned first = task.other + at, count = task.others - at < ROWS ? task.others - at : ROWS;
        float s[8], here = 0.f;
        scores(s, h, k, other, queries, q_step, first, count);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned j = part_of() + 4 * i;
            if (j < count) here += weight_of(s[i], scale, log_sum[(first + j) * (size_t)heads + h.head]);
        }
        sum += here;
    }
    sum = warp_fold<Add, 4>(sum);
    const float mean = task.others ? sum / float(task.others) : 0.f;
    if (row_of() < task.count && part_of() == 0) weights[(task.result + row_of()) * (size_t)heads + h.head] = mean;
}

// The gradient of queries over a range of keys.
extern "C" __global__ void __launch_bounds__(128, 3)
pathway_attention_queries(const float* __restrict__ queries, const float* __restrict__ keys, const unsigned int* __restrict__ table,
                          const float* __restrict__ grad, const float* __restrict__ log_sum, const float* __restrict__ dot,
                          float* __restrict__ to, unsigned int /* n */, unsigned int /* m */, unsigned int /* tasks */,
                          unsigned int /* rows */, unsigned int heads, unsigned int d, unsigned int q_step, unsigned int k_step,
                          unsigned int k_at, float scale) {
    DYNAMIC_SHARED(float, memory);
    const Head h(d);
    float *const q = memory, *const g = q + h.slices * ROWS * PITCH, *const other = g + h.slices * ROWS * PITCH;
    float* const weights = weights_behind(other, 1);
    const Task task = task_of(table);
    const unsigned width = heads * d, row = row_of(), own_columns = h.columns(h.slice);
    const size_t query = task.first + (row < task.count ? row : 0);
    h.keep(q, queries, q_step, task);
    h.keep(g, grad, width, task);
    const float log = log_sum[query * heads + h.head], owed = dot[query * heads + h.head];
    float4 sum[GROUPS];
    clear(sum);
    for (unsigned at = 0; at < task.others; at += ROWS) {
        const unsigned first = task.other + at, count = task.others - at < ROWS ? task.others - at : ROWS;
        float x[8];
        // What a thread writes of the weights it reads again itself: registers are short.
        float* const own = weights + row * (ROWS + 1) + part_of();
        scores(x, h, g, other, keys + k_at + width, k_step, first, count);
#pragma unroll
        for (int i = 0; i < 8; ++i) own[4 * i] = x[i] - owed;
        scores(x, h, q, other, keys + k_at, k_step, first, count);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float w = part_of() + 4 * i < count ? weight_of(x[i], scale, log) : 0.f;
            own[4 * i] *= w * scale;
        }
        __syncwarp();  // the weights of the row are there
        weigh(sum, weights, other, own_columns);
    }
    if (row >= task.count) return;
    float* const here = to + (task.result + row) * (size_t)q_step + h.column(h.slice);
    store(sum, here, 1.f, own_columns, Vec<float>::fits(here, q_step) && own_columns % 4 == 0);
}

// The gradient of keys and values over a range of queries.
extern "C" __global__ void __launch_bounds__(128, 3)
pathway_attention_keys(const float* __restrict__ queries, const float* __restrict__ keys, const unsigned int* __restrict__ table,
                       const float* __restrict__ grad, const float* __restrict__ log_sum, const float* __restrict__ dot,
                       float* __restrict__ to, unsigned int /* n */, unsigned int /* m */, unsigned int /* tasks */,
                       unsigned int /* rows */, unsigned int heads, unsigned int d, unsigned int q_step, unsigned int k_step,
                       unsigned int k_at, float scale) {
    DYNAMIC_SHARED(float, memory);
    const Head h(d);
    float *const k = memory, *const v = k + h.slices * ROWS * PITCH, *const other = v + h.slices * ROWS * PITCH;
    float* const weights = weights_behind(other, 1);
    const Task task = task_of(table);
    const unsigned width = heads * d, row = row_of(), own_columns = h.columns(h.slice);
    h.keep(k, keys + k_at, k_step, task);
    h.keep(v, keys + k_at + width, k_step, task);
    float4 of_keys[GROUPS], of_values[GROUPS];
    clear(of_keys), clear(of_values);
    for (unsigned at = 0; at < task.others; at += ROWS) {
        const unsigned first = task.other + at, count = task.others - at < ROWS ? task.others - at : ROWS;
        float x[8];
        float* const own = weights + row * (ROWS + 1) + part_of();
        scores(x, h, k, other, queries, q_step, first, count);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned j = part_of() + 4 * i;
            own[4 * i] = j < count ? weight_of(x[i], scale, log_sum[(first + j) * (size_t)heads + h.head]) : 0.f;
        }
        scores(x, h, v, other, grad, width, first, count);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned j = part_of() + 4 * i;
            const float owed = j < count ? dot[(first + j) * (size_t)heads + h.head] : 0.f;
            x[i] = own[4 * i] * (x[i] - owed) * scale;
        }
        weigh(of_values, weights, other, own_columns);
        __syncthreads();  // gradients and weights are read
        load(other, queries + h.column(h.slice), q_step, first, count, own_columns);
#pragma unroll
        for (int i = 0; i < 8; ++i) own[4 * i] = x[i];
        __syncthreads();  // the queries are there again
        weigh(of_keys, weights, other, own_columns);
    }
    if (row >= task.count) return;
    float* const here = to + (task.result + row) * (size_t)k_step + k_at + h.column(h.slice);
    const bool aligned = Vec<float>::fits(here, k_step) && width % 4 == 0 && own_columns % 4 == 0;
    store(of_keys, here, 1.f, own_columns, aligned);
    store(of_values, here + width, 1.f, own_columns, aligned);
}

// The sum of the parts of each row, in order; `places` as above. A thread a column.
extern "C" __global__ void __launch_bounds__(256)
pathway_attention_sum(const float* __restrict__ parts, const unsigned int* __restrict__ places, float* __restrict__ to,
                      unsigned int rows, unsigned int /* slots */, unsigned int columns) {
    const size_t at = blockIdx.x * (size_t)256 + threadIdx.x, row = at / columns, column = at % columns;
    if (row >= rows) return;
    const unsigned first = places[3 * row], step = places[3 * row + 1], count = places[3 * row + 2];
    float sum = 0.f;
    for (unsigned p = 0; p < count; ++p) sum += parts[(first + (size_t)p * step) * columns + column];
    to[at] = sum;
}
