// What attention_mil does with a tile of a product, whichever way it was calculated: scores, and both large gradients.
#pragma once
#include "attention_tile.cuh"

// The bag that holds a row: offset[bag] <= row < offset[bag + 1].
__device__ __forceinline__ unsigned bag_holding(const unsigned* offset, unsigned bags, unsigned row) {
    unsigned low = 0, high = bags;  // offset[low] <= row < offset[high]
    while (high - low > 1) {
        const unsigned middle = low + (high - low) / 2;
        if (offset[middle] <= row) low = middle;
        else high = middle;
    }
    return low;
}

template <bool FAST> __device__ __forceinline__ float tanh_of(float x) { return FAST ? tanh_fast(x) : tanhf(x); }
template <bool FAST> __device__ __forceinline__ float sigmoid_of(float x) { return FAST ? sigmoid_fast(x) : 1.f / (1.f + expf(-x)); }

// The sums are arguments of gates, V and U interleaved column by column if gated. Their gates go to gates [rows, stride],
// zeros behind the width, and what they give to the scores to part[tile][row][head]; each where it is not null. `sum` is
// shared memory for 4 * TILE floats that nobody uses.
template <bool FAST, class G>
__device__ __forceinline__ void score_of_tile(TileSums& sums, float* sum, const float* v_bias, const float* u_bias, bool gated, const float* w, float* part,
                                              G* gates, unsigned first_row, unsigned tile, unsigned rows, unsigned d, unsigned width, unsigned stride,
                                              unsigned heads) {
    const unsigned first_column = tile * TILE;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        // A gate's product takes the place of the first argument; where there is no gate, each tanh that of its own.
        const unsigned column = first_column + tile_column(j);
        float bias[2] = {};
        if (gated && column < width) {
            if (v_bias) bias[0] = v_bias[column / 2];
            if (u_bias) bias[1] = u_bias[column / 2];
        } else if (v_bias) {
#pragma unroll
            for (int k = 0; k < 2; ++k)
                if (column + k < width) bias[k] = v_bias[column + k];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const unsigned row = first_row + tile_row(i, half);
                float &first = sums.c[i][j].v[2 * half], &second = sums.c[i][j].v[2 * half + 1];
                const float t = column < width ? tanh_of<FAST>(first + bias[0]) : 0.f;
                const float s = column + 1 >= width ? 0.f : gated ? sigmoid_of<FAST>(second + bias[1]) : tanh_of<FAST>(second + bias[1]);
                if (gates && row < rows) {
                    G* to = gates + size_t(row) * stride + column;
                    if (column < stride) to[0] = narrowed<G>(t);
                    if (column + 1 < stride) to[1] = narrowed<G>(s);
                }
                first = gated ? t * s : t, second = s;
            }
    }
    if (!part) return;  // only the gates were wanted, for the backward pass
    for (unsigned head = 0; head < heads; ++head) {
        float at[4][2] = {};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const unsigned column = first_column + tile_column(j), of = gated ? column / 2 : column;
            const float w0 = of < d ? w[size_t(head) * d + of] : 0.f;
            const float w1 = !gated && of + 1 < d ? w[size_t(head) * d + of + 1] : 0.f;
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    at[i][half] = fmaf(w0, sums.c[i][j].v[2 * half], at[i][half]);
                    if (!gated) at[i][half] = fmaf(w1, sums.c[i][j].v[2 * half + 1], at[i][half]);
                }
        }
        __syncthreads();  // sum[] is still read for the head before
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float four = warp_fold<Add, 4>(at[i][half]);
                if (threadIdx.x % 4 == 0) sum[threadIdx.x / 32 % 4 * TILE + tile_row(i, half)] = four;
            }
        __syncthreads();  // all four parts of each row are there
        const unsigned row = first_row + threadIdx.x;
        if (threadIdx.x < TILE && row < rows) {
            const float* s = sum + threadIdx.x;
            part[(size_t(tile) * rows + row) * heads + head] = (s[0] + s[TILE]) + (s[2 * TILE] + s[3 * TILE]);
        }
    }
}

// The sums are of grad_gate x: rows are V and U interleaved if gated, and come apart here: to [V rows, U rows][l].
__device__ __forceinline__ void inner_gradient_of_tile(const TileSums& sums, float* to, unsigned first_row, unsigned first_column, unsigned l, unsigned d,
                                                       unsigned width) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const unsigned row = first_row + tile_row(i, half), line = width > d ? row % 2 * d + row / 2 : row;
            if (row >= width) continue;
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    const unsigned column = first_column + tile_column(j) + k;
                    if (column < l) to[size_t(line) * l + column] = sums.c[i][j].v[2 * half + k];
                }
        }
}

// The sums are of grad_gate (V, U): with the gradients of the bags' pooled rows they are that of rows `first + row` of x.
__device__ __forceinline__ void input_gradient_of_tile(const TileSums& sums, const float* weights, const float* grad_pooled, const unsigned* offset,
                                                       float* grad_x, unsigned first, unsigned first_row, unsigned first_column, unsigned rows,
                                                       unsigned bags, unsigned l, unsigned heads) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (first_row + tile_row(i, half) >= rows) continue;
            const unsigned row = first + first_row + tile_row(i, half);
            const size_t bag = grad_pooled ? bag_holding(offset, bags, row) : 0;
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    const unsigned column = first_column + tile_column(j) + k;
                    if (column >= l) continue;
                    float sum = sums.c[i][j].v[2 * half + k];
                    if (grad_pooled)
                        for (unsigned head = 0; head < heads; ++head)
                            sum = fmaf(weights[size_t(row) * heads + head], grad_pooled[(bag * heads + head) * l + column], sum);
                    grad_x[size_t(row) * l + column] = sum;
                }
        }
}
