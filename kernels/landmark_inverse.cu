// The iterated inverse between landmarks: small products of squares, of all bags and heads at once.
// Page: src/ops/landmark_inverse/mod.rs.
// A table has a row a task (bag and head): landmarks, first row, head, and where its square begins. Products: a block a task
// and 64 by 64 of the result, 16 numbers a thread. Softmax and its way back: a warp a row. Floor: the products, in f32.
#include "block.cuh"

constexpr unsigned TILE = 64, DEPTH = 16, THREADS = 256, PITCH = TILE + 4;

struct Task {
    unsigned landmarks, row, head, square;
};
__device__ __forceinline__ Task task_of(const unsigned* __restrict__ table, unsigned i) {
    const unsigned* row = table + 4 * (size_t)i;
    return {row[0], row[1], row[2], row[3]};
}

// What a factor or a result is: the square of a task, or its rows in its head; and whether it is read as its transpose.
constexpr unsigned ROWS = 1, TRANSPOSED = 2;

// Where a matrix of a task begins, and from one of its rows to the next.
struct Place {
    size_t at, step;
    unsigned columns;
    __device__ Place(const Task& t, bool rows, unsigned width, unsigned d)
        : at(rows ? t.row * (size_t)width + t.head * d : t.square), step(rows ? width : t.landmarks), columns(rows ? d : t.landmarks) {}
};

// Elements [i, k] of a factor, i from `first` on and k from `start` on, as columns of a tile of 16 rows k; zeros outside.
__device__ __forceinline__ void load(float (*tile)[PITCH], const float* __restrict__ x, const Place& p, bool transposed, unsigned first,
                                     unsigned rows, unsigned start, unsigned depth) {
#pragma unroll
    for (unsigned n = threadIdx.x; n < TILE * DEPTH; n += THREADS) {
        // Neighbouring threads read neighbouring elements.
        const unsigned i = transposed ? n % TILE : n / DEPTH, k = transposed ? n / TILE : n % DEPTH;
        const bool inside = first + i < rows && start + k < depth;
        const size_t at = transposed ? (start + k) * p.step + first + i : (first + i) * p.step + start + k;
        tile[k][i] = inside ? x[p.at + at] : 0.f;
    }
}

// to = diagonal I + factor a b + part other, where `other` is a square; with `add`, this is added to what is there.
// `a_is` and `b_is` are of ROWS and TRANSPOSED, `to_rows` says whether the result is rows.
extern "C" __global__ void __launch_bounds__(256, 3)
landmark_inverse_product(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ other,
                         const unsigned int* __restrict__ table, float* __restrict__ to, unsigned int /* a_size */,
                         unsigned int /* b_size */, unsigned int /* squares */, unsigned int /* tasks */, unsigned int /* to_size */,
                         unsigned int width, unsigned int d, unsigned int a_is, unsigned int b_is, unsigned int to_rows, float diagonal,
                         float factor, float part, unsigned int add) {
    __shared__ float left[DEPTH][PITCH], right[DEPTH][PITCH];
    const Task task = task_of(table, blockIdx.x);
    const Place of_a(task, a_is & ROWS, width, d), of_b(task, b_is & ROWS, width, d), of_to(task, to_rows != 0, width, d);
    // The rows of `a` and of the result are landmarks, in any case; so is what is summed over, but for two matrices of rows.
    const unsigned m = task.landmarks, n = of_to.columns, depth = (a_is & ROWS) && !(a_is & TRANSPOSED) ? d : m;
    const unsigned across = (n + TILE - 1) / TILE, i0 = blockIdx.y / (across > 0 ? across : 1) * TILE;
    const unsigned j0 = across > 0 ? blockIdx.y % across * TILE : 0;
    if (i0 >= m || j0 >= n) return;
    const unsigned row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    float sum[4][4] = {};
    for (unsigned k0 = 0; k0 < depth; k0 += DEPTH) {
        load(left, a, of_a, a_is & TRANSPOSED, i0, m, k0, depth);
        load(right, b, of_b, !(b_is & TRANSPOSED), j0, n, k0, depth);
        __syncthreads();  // both tiles are there
#pragma unroll
        for (unsigned k = 0; k < DEPTH; ++k) {
            float x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) x[i] = left[k][row + i], y[i] = right[k][column + i];
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) sum[i][j] += x[i] * y[j];
        }
        __syncthreads();  // both tiles are read
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const unsigned r = i0 + row + i, c = j0 + column + j;
            if (r >= m || c >= n) continue;
            float value = factor * sum[i][j];
            if (part != 0.f) value += part * other[task.square + r * (size_t)m + c];
            if (r == c) value += diagonal;
            float* const place = to + of_to.at + r * of_to.step + c;
            *place = add ? *place + value : value;
        }
}

// The softmax of each row of scores, in their place. Grid: tasks by groups of 8 rows.
extern "C" __global__ void __launch_bounds__(256)
landmark_inverse_softmax(const unsigned int* __restrict__ table, float* __restrict__ a, unsigned int /* tasks */,
                         unsigned int /* squares */, float scale) {
    const Task task = task_of(table, blockIdx.x);
    const unsigned m = task.landmarks, row = blockIdx.y * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= m) return;
    float* const x = a + task.square + row * (size_t)m;
    float max = -INFINITY, sum = 0.f;
    for (unsigned j = lane; j < m; j += 32) max = fmaxf(max, x[j]);
    max = warp_max(max);
    for (unsigned j = lane; j < m; j += 32) sum += x[j] = expf((x[j] - max) * scale);
    sum = warp_sum(sum);
    for (unsigned j = lane; j < m; j += 32) x[j] /= sum;
}

// The largest sum of a column of each task, and the first column that has it. A block a task, a thread a column.
extern "C" __global__ void __launch_bounds__(256)
landmark_inverse_columns(const float* __restrict__ a, const unsigned int* __restrict__ table, float* __restrict__ largest,
                         unsigned int* __restrict__ which, unsigned int /* squares */, unsigned int /* tasks */) {
    const Task task = task_of(table, blockIdx.x);
    const unsigned m = task.landmarks;
    float most = -INFINITY;
    unsigned column = 0;
    for (unsigned j = threadIdx.x; j < m; j += THREADS) {
        float sum = 0.f;
        for (unsigned i = 0; i < m; ++i) sum += a[task.square + i * (size_t)m + j];
        if (sum > most) most = sum, column = j;
    }
    const float all = block_max(most);
    // The first is the largest of what counts down.
    const unsigned first = block_max(most == all ? 0xffffffffu - column : 0u);
    if (threadIdx.x == 0) largest[blockIdx.x] = all, which[blockIdx.x] = 0xffffffffu - first;
}

// What the first inverse of a task is divided by: its own largest sum, or that of all tasks.
__device__ __forceinline__ float divisor_of(const float* __restrict__ largest, unsigned tasks, bool together) {
    if (!together) return largest[blockIdx.x];
    float most = -INFINITY;
    for (unsigned i = threadIdx.x; i < tasks; i += THREADS) most = fmaxf(most, largest[i]);
    return block_max(most);
}

// The first inverse: the transpose by the divisor. Grid: tasks by 32 rows; columns of `a` are read, which its size leaves in
// the cache.
extern "C" __global__ void __launch_bounds__(256)
landmark_inverse_start(const float* __restrict__ a, const unsigned int* __restrict__ table, const float* __restrict__ largest,
                       float* __restrict__ z, unsigned int /* squares */, unsigned int tasks, unsigned int together) {
    const Task task = task_of(table, blockIdx.x);
    const unsigned m = task.landmarks;
    const float divisor = divisor_of(largest, tasks, together != 0);
    for (unsigned n = threadIdx.x; n < 32 * m; n += THREADS) {
        const unsigned i = blockIdx.y * 32 + n / m, j = n % m;
        if (i < m) z[task.square + i * (size_t)m + j] = a[task.square + j * (size_t)m + i] / divisor;
    }
}

// What is owed to the divisor of each task. A block a task.
extern "C" __global__ void __launch_bounds__(256)
landmark_inverse_owed(const float* __restrict__ z, const float* __restrict__ dz, const unsigned int* __restrict__ table,
                      const float* __restrict__ largest, float* __restrict__ owed, unsigned int /* squares */, unsigned int tasks,
                      unsigned int together) {
    const Task task = task_of(table, blockIdx.x);
    const unsigned count = task.landmarks * task.landmarks;
    const float divisor = divisor_of(largest, tasks, together != 0);
    float sum = 0.f;
    for (unsigned i = threadIdx.x; i < count; i += THREADS) sum += z[task.square + i] * dz[task.square + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) owed[blockIdx.x] = -sum / divisor;
}

// The gradient of scores, out of what is owed to the softmax, to the first inverse and to its divisor. Grid: tasks by groups of 8
// rows, a warp a row.
extern "C" __global__ void __launch_bounds__(256)
landmark_inverse_scores(const float* __restrict__ a, const float* __restrict__ dz, const unsigned int* __restrict__ table,
                        const float* __restrict__ largest, const unsigned int* __restrict__ which, const float* __restrict__ owed,
                        float* __restrict__ da, unsigned int /* squares */, unsigned int tasks, unsigned int together, float scale) {
    const Task task = task_of(table, blockIdx.x);
    const unsigned m = task.landmarks, row = blockIdx.y * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    const float divisor = divisor_of(largest, tasks, together != 0);
    float to_column = together ? 0.f : owed[blockIdx.x];
    if (together) {
        // All of it goes to the first task that has the largest sum.
        unsigned first = 0u;
        float sum = 0.f;
        for (unsigned i = threadIdx.x; i < tasks; i += THREADS) {
            if (largest[i] == divisor && first == 0u) first = 0xffffffffu - i;
            sum += owed[i];
        }
        first = 0xffffffffu - block_max(first);
        sum = block_sum(sum);
        if (blockIdx.x == first) to_column = sum;
    }
    if (row >= m) return;
    const unsigned column = which[blockIdx.x];
    const float* const w = a + task.square + row * (size_t)m;
    float* const x = da + task.square + row * (size_t)m;
    float dot = 0.f;
    for (unsigned j = lane; j < m; j += 32) {
        float here = x[j] + dz[task.square + j * (size_t)m + row] / divisor;
        if (j == column) here += to_column;
        x[j] = here;
        dot += here * w[j];
    }
    dot = warp_sum(dot);
    for (unsigned j = lane; j < m; j += 32) x[j] = w[j] * (x[j] - dot) * scale;
}
