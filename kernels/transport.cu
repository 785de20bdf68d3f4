// Unbalanced optimal transport from the patches of a patient to the gene tokens, and patches weighed by the plan.
// Page: src/ops/transport/mod.rs.
// Costs by a warp a patch; one block a bag scales rows and columns in turn, every thread its own patches, and joins sums in a
// fixed order; weighed sums by tiles of 512 patches, joined in order. Floor: patches are read three times.
#include "block.cuh"

constexpr unsigned TILE = 512;  // patches
constexpr int COLUMNS = 8;      // of the plan, summed at once

// The bag that a row lies in.
__device__ __forceinline__ unsigned bag_of(const unsigned* __restrict__ offset, unsigned bags, unsigned row) {
    unsigned low = 0, high = bags - 1;
    while (low < high) {
        const unsigned middle = low + (high - low + 1) / 2;
        if (offset[middle] <= row) low = middle;
        else high = middle - 1;
    }
    return low;
}
// Where the tiles of bag b begin: at least as many apart as the bag has tiles.
__device__ __forceinline__ unsigned first_tile(const unsigned* __restrict__ offset, unsigned b) { return offset[b] / TILE + b; }

// The least element of each row, by a warp.
extern "C" __global__ void __launch_bounds__(256)
transport_least(const float* __restrict__ x, float* __restrict__ least, unsigned int rows, unsigned int columns) {
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float most = -INFINITY;  // of the negatives
    for (unsigned i = lane; i < columns; i += 32) most = fmaxf(most, -x[(size_t)row * columns + i]);
    most = warp_max(most);
    if (lane == 0) least[row] = -most;
}

// The squared distance of each patch to each gene token of its patient, both without their least element.
extern "C" __global__ void __launch_bounds__(256)
transport_cost(const float* __restrict__ patches, const float* __restrict__ patch_least, const float* __restrict__ genes,
               const float* __restrict__ gene_least, const unsigned int* __restrict__ patch_offset,
               const unsigned int* __restrict__ gene_offset, float* __restrict__ cost, unsigned int n, unsigned int /* g */,
               unsigned int bags, unsigned int columns, unsigned int width) {
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    const unsigned bag = bag_of(patch_offset, bags, row), first = gene_offset[bag], count = gene_offset[bag + 1] - first;
    const float* const x = patches + (size_t)row * columns;
    for (unsigned j = 0; j < count; ++j) {
        const float *const y = genes + (size_t)(first + j) * columns, from = patch_least[row], to = gene_least[first + j];
        float sum = 0.f;
        for (unsigned i = lane; i < columns; i += 32) {
            const float d = (x[i] - from) - (y[i] - to);
            sum += d * d;
        }
        sum = warp_sum(sum);
        if (lane == 0) cost[(size_t)row * width + j] = sum;
    }
    for (unsigned j = count + lane; j < width; j += 32) cost[(size_t)row * width + j] = 0.f;
}

// The plan of each bag by its costs. One block a bag; `u` is scratch, a number a patch.
extern "C" __global__ void __launch_bounds__(256)
transport_solve(const float* __restrict__ cost, const unsigned int* __restrict__ patch_offset,
                const unsigned int* __restrict__ gene_offset, float* __restrict__ u, float* __restrict__ plan, unsigned int /* n */,
                unsigned int /* bags */, unsigned int width, float reg, float power, float tolerance, unsigned int iterations) {
    DYNAMIC_SHARED(float, v);
    const unsigned bag = blockIdx.x, begin = patch_offset[bag], end = patch_offset[bag + 1];
    const unsigned genes = gene_offset[bag + 1] - gene_offset[bag];
    float max = 0.f;
    for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x)
        for (unsigned j = 0; j < genes; ++j) max = fmaxf(max, cost[i * width + j]);
    max = block_max(max);
    const float factor = max > 0.f ? 1.f / (max * reg) : 0.f;
    for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        u[i] = 1.f;
        for (unsigned j = 0; j < width; ++j) plan[i * width + j] = j < genes ? expf(-cost[i * width + j] * factor) : 0.f;
    }
    for (unsigned j = threadIdx.x; j < genes; j += blockDim.x) v[j] = 1.f;
    __syncthreads();  // v is there
    const float of_rows = 1.f / float(end - begin), of_columns = 1.f / float(genes);
    for (unsigned it = 0; it < iterations; ++it) {
        float change = 0.f, most = 1.f, v_change = 0.f, v_most = 1.f;
        for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            float sum = 0.f;
            for (unsigned j = 0; j < genes; ++j) sum += plan[i * width + j] * v[j];
            const float next = powf(of_rows / sum, power), old = u[i];
            change = fmaxf(change, fabsf(next - old)), most = fmaxf(most, fmaxf(next, old));
            u[i] = next;
        }
        for (unsigned first = 0; first < genes; first += COLUMNS) {
            float sums[COLUMNS] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
            for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x)
#pragma unroll
                for (int k = 0; k < COLUMNS; ++k)
                    if (first + k < genes) sums[k] += plan[i * width + first + k] * u[i];
            block_sums(sums);  // and with that all threads are through with v
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k) {
                if (threadIdx.x != unsigned(k) || first + k >= genes) continue;
                const float next = powf(of_columns / sums[k], power), old = v[first + k];
                v_change = fmaxf(v_change, fabsf(next - old)), v_most = fmaxf(v_most, fmaxf(next, old));
                v[first + k] = next;
            }
        }
        // With these v is there for all threads.
        change = block_max(change), most = block_max(most), v_change = block_max(v_change), v_most = block_max(v_most);
        if (!((change / most + v_change / v_most) / 2.f >= tolerance)) break;  // the whole block
    }
    for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x)
        for (unsigned j = 0; j < genes; ++j) plan[i * width + j] *= u[i] * v[j];
}

// The patches of a tile, weighed by each column of the plan. A thread a column of the patches.
extern "C" __global__ void __launch_bounds__(128)
transport_tiles(const float* __restrict__ patches, const float* __restrict__ plan, const unsigned int* __restrict__ patch_offset,
                float* __restrict__ parts, unsigned int /* n */, unsigned int bags, unsigned int columns, unsigned int width) {
    unsigned low = 0, high = bags - 1;
    while (low < high) {
        const unsigned middle = low + (high - low + 1) / 2;
        if (first_tile(patch_offset, middle) <= blockIdx.x) low = middle;
        else high = middle - 1;
    }
    const size_t begin = patch_offset[low] + (size_t)(blockIdx.x - first_tile(patch_offset, low)) * TILE;
    const size_t last = patch_offset[low + 1], end = begin + TILE < last ? begin + TILE : last;
    const unsigned column = blockIdx.y * 128 + threadIdx.x;
    if (begin >= last || column >= columns) return;
    for (unsigned first = 0; first < width; first += COLUMNS) {
        float sums[COLUMNS] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
        for (size_t i = begin; i < end; ++i) {
            const float x = patches[i * columns + column];
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k)
                if (first + k < width) sums[k] += plan[i * width + first + k] * x;
        }
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k)
            if (first + k < width) parts[((size_t)blockIdx.x * width + first + k) * columns + column] = sums[k];
    }
}

// The sum of the tiles of a bag, in order, for each gene token. A thread an element.
extern "C" __global__ void __launch_bounds__(256)
transport_join(const float* __restrict__ parts, const unsigned int* __restrict__ patch_offset, const unsigned int* __restrict__ gene_offset,
               float* __restrict__ out, unsigned int /* tiles */, unsigned int g, unsigned int bags, unsigned int columns,
               unsigned int width) {
    const size_t at = blockIdx.x * (size_t)256 + threadIdx.x, gene = at / columns, column = at % columns;
    if (gene >= g) return;
    const unsigned bag = bag_of(gene_offset, bags, gene), j = gene - gene_offset[bag];
    const unsigned rows = patch_offset[bag + 1] - patch_offset[bag], tile = first_tile(patch_offset, bag);
    float sum = 0.f;
    for (unsigned t = 0; t < (rows + TILE - 1) / TILE; ++t) sum += parts[((size_t)(tile + t) * width + j) * columns + column];
    out[at] = sum;
}

// What part of the plan of its bag each patch has; 0 of an empty plan. One block a bag, a warp a patch.
extern "C" __global__ void __launch_bounds__(256)
transport_weights(const float* __restrict__ plan, const unsigned int* __restrict__ patch_offset, float* __restrict__ weights,
                  unsigned int /* n */, unsigned int /* bags */, unsigned int width) {
    const unsigned begin = patch_offset[blockIdx.x], end = patch_offset[blockIdx.x + 1], lane = threadIdx.x % 32;
    double total = 0.0;  // of patches of a long bag each may be less than a rounding of it in f32
    for (size_t i = begin + threadIdx.x / 32; i < end; i += 8) {
        float sum = 0.f;
        for (unsigned j = lane; j < width; j += 32) sum += plan[i * width + j];
        sum = warp_sum(sum);
        if (lane == 0) weights[i] = sum, total += sum;
    }
    total = block_sum(total);  // and with that all sums are there
    for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) weights[i] = total == 0.0 ? 0.f : float(weights[i] / total);
}

// The gradient of the patches, of which the plan is none. A thread an element.
extern "C" __global__ void __launch_bounds__(256)
transport_backward(const float* __restrict__ grad, const float* __restrict__ plan, const unsigned int* __restrict__ patch_offset,
                   const unsigned int* __restrict__ gene_offset, float* __restrict__ dx, unsigned int n, unsigned int /* g */,
                   unsigned int bags, unsigned int columns, unsigned int width) {
    const size_t at = blockIdx.x * (size_t)256 + threadIdx.x, row = at / columns, column = at % columns;
    if (row >= n) return;
    const unsigned bag = bag_of(patch_offset, bags, row), first = gene_offset[bag], genes = gene_offset[bag + 1] - first;
    float sum = 0.f;
    for (unsigned j = 0; j < genes; ++j) sum += plan[row * width + j] * grad[(size_t)(first + j) * columns + column];
    dx[at] = sum;
}

// ---- through the plan ----

// What is owed to the logarithm of each element of the plan. A warp a patch.
extern "C" __global__ void __launch_bounds__(256)
transport_owed(const float* __restrict__ grad, const float* __restrict__ patches, const float* __restrict__ plan,
               const unsigned int* __restrict__ patch_offset, const unsigned int* __restrict__ gene_offset, float* __restrict__ owed,
               unsigned int n, unsigned int /* g */, unsigned int bags, unsigned int columns, unsigned int width) {
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    const unsigned bag = bag_of(patch_offset, bags, row), first = gene_offset[bag], count = gene_offset[bag + 1] - first;
    for (unsigned j = 0; j < count; ++j) {
        const float* const to = grad + (size_t)(first + j) * columns;
        float sum = 0.f;
        for (unsigned i = lane; i < columns; i += 32) sum += patches[(size_t)row * columns + i] * to[i];
        sum = warp_sum(sum);
        if (lane == 0) owed[(size_t)row * width + j] = sum * plan[(size_t)row * width + j];
    }
    for (unsigned j = count + lane; j < width; j += 32) owed[(size_t)row * width + j] = 0.f;
}

// What is owed to the costs, in the place of what is owed to the plan, by the equations of the scalings; and of each gene token the
// sum of it, and that by which it goes to the least elements of patches. One block a bag; `rows` is scratch, three numbers a patch.
extern "C" __global__ void __launch_bounds__(256)
transport_adjoint(const float* __restrict__ cost, const float* __restrict__ plan, const float* __restrict__ patch_least,
                  const unsigned int* __restrict__ patch_offset, const unsigned int* __restrict__ gene_offset, float* __restrict__ rows,
                  float* __restrict__ owed, float* __restrict__ of_genes, unsigned int n, unsigned int g, unsigned int /* bags */,
                  unsigned int width, float reg, float power, unsigned int steps) {
    DYNAMIC_SHARED(float, memory);
    float *const mass = memory, *const of_columns = mass + width, *const of_v = of_columns + width;  // a number a gene token
    const unsigned begin = patch_offset[blockIdx.x], end = patch_offset[blockIdx.x + 1], gene = gene_offset[blockIdx.x];
    const unsigned genes = gene_offset[blockIdx.x + 1] - gene;
    float *const row_mass = rows, *const of_rows = rows + n, *const of_u = rows + 2 * (size_t)n;
    float max = 0.f;
    for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        float total = 0.f, sum = 0.f;
        for (unsigned j = 0; j < genes; ++j) {
            total += plan[i * width + j], sum += owed[i * width + j];
            max = fmaxf(max, cost[i * width + j]);
        }
        row_mass[i] = total, of_rows[i] = sum;
    }
    max = block_max(max);
    // Sums over the patches of a bag, for some gene tokens at once: of PLAN by what `of` says of a row, or of `owed`.
    const auto sums_of = [&](float* to, const float* matrix, auto of) {
        for (unsigned first = 0; first < genes; first += COLUMNS) {
            float sums[COLUMNS] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
            for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
                const float factor = of(i);
#pragma unroll
                for (int k = 0; k < COLUMNS; ++k)
                    if (first + k < genes) sums[k] += matrix[i * width + first + k] * factor;
            }
            block_sums(sums);
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k)
                if (threadIdx.x == unsigned(k) && first + k < genes) to[first + k] = sums[k];
        }
    };
    sums_of(mass, plan, [](size_t) { return 1.f; });
    sums_of(of_columns, owed, [](size_t) { return 1.f; });
    for (unsigned j = threadIdx.x; j < genes; j += blockDim.x) of_v[j] = 0.f;
    __syncthreads();  // what is known of gene tokens is there
    for (unsigned it = 0; it < steps; ++it) {
        for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            float sum = 0.f;
            for (unsigned j = 0; j < genes; ++j) sum += plan[i * width + j] * of_v[j] / mass[j];
            of_u[i] = of_rows[i] - power * sum;
        }
        // The sums wait for all threads before they are written, so that of_v is read.
        sums_of(of_v, plan, [&](size_t i) { return of_u[i] / row_mass[i]; });
        __syncthreads();  // the sums are there
        for (unsigned j = threadIdx.x; j < genes; j += blockDim.x) of_v[j] = of_columns[j] - power * of_v[j];
        __syncthreads();  // of_v is there
    }
    // The first of the largest costs is the largest of what counts down.
    unsigned first = 0u;
    float scaled = 0.f;
    for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        for (unsigned j = 0; j < genes; ++j) {
            const size_t at = i * width + j;
            const float through = plan[at] * (of_u[i] / row_mass[i] + of_v[j] / mass[j]);
            owed[at] = (power * through - owed[at]) / reg;
            scaled += owed[at] * cost[at];
            const unsigned count = 0xffffffffu - unsigned((i - begin) * width + j);
            if (cost[at] == max && count > first) first = count;
        }
    }
    first = 0xffffffffu - block_max(first);
    scaled = block_sum(scaled);
    for (size_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        for (unsigned j = 0; j < genes; ++j) {
            const size_t at = i * width + j;
            float here = max > 0.f ? owed[at] / max : 0.f;
            if (max > 0.f && unsigned((i - begin) * width + j) == first) here -= scaled / (max * max);
            owed[at] = here;
        }
    }
    __syncthreads();  // mass and of_v are read by all, and what is owed to a row is written by who reads it
    sums_of(mass, owed, [](size_t) { return 1.f; });
    sums_of(of_v, owed, [&](size_t i) { return patch_least[i]; });
    __syncthreads();  // the sums are there
    for (unsigned j = threadIdx.x; j < genes; j += blockDim.x) of_genes[gene + j] = mass[j], of_genes[g + gene + j] = of_v[j];
}

// Of a row of `x` from which its least element was taken: adds what is owed to the rest, of which the first least one gets the
// whole off again. By a warp; `of` gives what is owed to a column.
template <class Of> __device__ __forceinline__ void off_the_least(float* to, const float* __restrict__ x, float least, unsigned columns, Of of) {
    const unsigned lane = threadIdx.x % 32;
    float total = 0.f;
    unsigned first = 0u;
    for (unsigned i = lane; i < columns; i += 32) {
        const float owed = of(i);
        to[i] += owed, total += owed;
        if (x[i] == least && first == 0u) first = 0xffffffffu - i;
    }
    total = warp_sum(total);
    first = 0xffffffffu - warp_max(first);
    if (lane == first % 32) to[first] -= total;
}

// Adds to the gradient of patches what the costs owe them. A warp a patch.
extern "C" __global__ void __launch_bounds__(256)
transport_patches(const float* __restrict__ patches, const float* __restrict__ genes, const float* __restrict__ patch_least,
                  const float* __restrict__ gene_least, const float* __restrict__ owed, const unsigned int* __restrict__ patch_offset,
                  const unsigned int* __restrict__ gene_offset, float* __restrict__ dx, unsigned int n, unsigned int /* g */,
                  unsigned int bags, unsigned int columns, unsigned int width) {
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n) return;
    const unsigned bag = bag_of(patch_offset, bags, row), first = gene_offset[bag], count = gene_offset[bag + 1] - first;
    const float *const x = patches + (size_t)row * columns, least = patch_least[row], *const of = owed + (size_t)row * width;
    if (count == 0 || columns == 0) return;
    off_the_least(dx + (size_t)row * columns, x, least, columns, [&](unsigned i) {
        float sum = 0.f;
        for (unsigned j = 0; j < count; ++j)
            sum += of[j] * ((x[i] - least) - (genes[(size_t)(first + j) * columns + i] - gene_least[first + j]));
        return 2.f * sum;
    });
}

// The gradient of gene tokens: `sums` has their patches weighed by what is owed, `of_genes` as above. A warp a gene token.
extern "C" __global__ void __launch_bounds__(256)
transport_genes(const float* __restrict__ genes, const float* __restrict__ gene_least, const float* __restrict__ sums,
                const float* __restrict__ of_genes, float* __restrict__ dy, unsigned int g, unsigned int columns) {
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= g || columns == 0) return;
    const float *const y = genes + (size_t)row * columns, least = gene_least[row], total = of_genes[row], of_least = of_genes[g + row];
    off_the_least(dy + (size_t)row * columns, y, least, columns, [&](unsigned i) {
        return -2.f * (sums[(size_t)row * columns + i] - of_least - (y[i] - least) * total);
    });
}
