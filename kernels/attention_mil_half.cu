// Attention pooling with products in bf16 or f16: packed parameters, scores, and the two large gradients; the rest is in
// attention_mil.cu. Page: src/ops/attention_mil/mod.rs.
// A block of 256 threads for 128 rows and 128 columns, V and U interleaved column by column, copied ahead in four stages.
#include "device.cuh"
#include "block.cuh"
#include "attention_epilogue.cuh"
#include "attention_half_tile.cuh"

// inner [width, stride] = V and U interleaved row by row, rounded, zeros behind the columns: a thread for eight numbers.
template <class H>
__device__ __forceinline__ void pack(const float* v, const float* u, H* inner, unsigned l, unsigned width, unsigned stride) {
    const size_t i = (size_t(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (i >= size_t(width) * stride) return;
    const unsigned row = unsigned(i / stride), column = unsigned(i % stride);
    const TileSource<float> from = u ? TileSource<float>(v, u, width, l) : TileSource<float>(v, width, l);
    float eight[8];
    from.load8(row, column, width, l, eight);
    Vec<H> to;
#pragma unroll
    for (int j = 0; j < 8; ++j) to.set_rounded(j, eight[j]);
    to.store(inner + i);
}
#define PACK(name, H)                                                                                                               \
    extern "C" __global__ void __launch_bounds__(256)                                                                               \
    name(const float* __restrict__ v, const float* __restrict__ u, H* __restrict__ inner, unsigned l, unsigned d, unsigned width,   \
         unsigned stride) {                                                                                                         \
        pack(v, u, inner, l, width, stride);                                                                                        \
    }
PACK(attention_mil_half_pack_f16, __half)
PACK(attention_mil_half_pack_bf16, __nv_bfloat16)

template <class F, class H>
__device__ __forceinline__ void score(const F* x, const H* inner, const float* v_bias, const float* u_bias, const float* w, float* part, H* gates,
                                      unsigned first, unsigned rows, unsigned l, unsigned d, unsigned width, unsigned stride, unsigned gate_stride,
                                      unsigned tiles, unsigned heads) {
    DYNAMIC_SHARED(H, memory);
    const unsigned first_row = blockIdx.x / tiles * TILE, tile = blockIdx.x % tiles;
    TileSums sums;
    half_product(sums, HalfOperand<F, H, true>{TileSource<F>(x + size_t(first) * l, rows, l), first_row},
                 HalfOperand<H, H, true>{TileSource<H>(inner, width, stride), tile * TILE}, 0, l, memory);
    score_of_tile<true>(sums, reinterpret_cast<float*>(memory), v_bias, u_bias, width > d, w, part, gates, first_row, tile, rows, d, width, gate_stride,
                        heads);
}
#define SCORE(name, F, H)                                                                                                           \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS)                                                                      \
    name(const F* __restrict__ x, const H* __restrict__ inner, const float* __restrict__ v_bias, const float* __restrict__ u_bias,  \
         const float* __restrict__ w, float* __restrict__ part, H* __restrict__ gates, unsigned n, unsigned first, unsigned rows,   \
         unsigned l, unsigned d, unsigned width, unsigned stride, unsigned gate_stride, unsigned tiles, unsigned heads) {           \
        score(x, inner, v_bias, u_bias, w, part, gates, first, rows, l, d, width, stride, gate_stride, tiles, heads);               \
    }
SCORE(attention_mil_half_score_f16_f32, float, __half)
SCORE(attention_mil_half_score_f16_f16, __half, __half)
SCORE(attention_mil_half_score_f16_bf16, __nv_bfloat16, __half)
SCORE(attention_mil_half_score_bf16_f32, float, __nv_bfloat16)
SCORE(attention_mil_half_score_bf16_f16, __half, __nv_bfloat16)
SCORE(attention_mil_half_score_bf16_bf16, __nv_bfloat16, __nv_bfloat16)

// part[split][V rows, U rows][l]: blocks for the tiles of each split of the rows.
template <class F, class H>
__device__ __forceinline__ void inner_gradient(const F* x, const H* grad_gates, float* part, unsigned first, unsigned rows, unsigned split_rows,
                                               unsigned l, unsigned d, unsigned width, unsigned gate_stride) {
    DYNAMIC_SHARED(H, memory);
    const unsigned begin = blockIdx.z * split_rows, end = min(begin + split_rows, rows), first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    TileSums sums;
    half_product(sums, HalfOperand<H, H, false>{TileSource<H>(grad_gates, rows, gate_stride), first_row},
                 HalfOperand<F, H, false>{TileSource<F>(x + size_t(first) * l, rows, l), first_column}, begin, end, memory);
    inner_gradient_of_tile(sums, part + (first / split_rows + blockIdx.z) * size_t(width) * l, first_row, first_column, l, d, width);
}
#define INNER_GRADIENT(name, F, H)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)                                                                   \
    name(const F* __restrict__ x, const H* __restrict__ grad_gates, float* __restrict__ part, unsigned n, unsigned first,           \
         unsigned rows, unsigned split_rows, unsigned l, unsigned d, unsigned width, unsigned gate_stride) {                        \
        inner_gradient(x, grad_gates, part, first, rows, split_rows, l, d, width, gate_stride);                                     \
    }
INNER_GRADIENT(attention_mil_half_inner_gradient_f16_f32, float, __half)
INNER_GRADIENT(attention_mil_half_inner_gradient_f16_f16, __half, __half)
INNER_GRADIENT(attention_mil_half_inner_gradient_f16_bf16, __nv_bfloat16, __half)
INNER_GRADIENT(attention_mil_half_inner_gradient_bf16_f32, float, __nv_bfloat16)
INNER_GRADIENT(attention_mil_half_inner_gradient_bf16_f16, __half, __nv_bfloat16)
INNER_GRADIENT(attention_mil_half_inner_gradient_bf16_bf16, __nv_bfloat16, __nv_bfloat16)

template <class H>
__device__ __forceinline__ void input_gradient(const H* grad_gates, const H* inner, const float* weights, const float* grad_pooled, const unsigned* offset,
                                               float* grad_x, unsigned first, unsigned rows, unsigned bags, unsigned l, unsigned width, unsigned stride,
                                               unsigned gate_stride, unsigned heads) {
    DYNAMIC_SHARED(H, memory);
    const unsigned tiles = (l + TILE - 1) / TILE, first_row = blockIdx.x / tiles * TILE, first_column = blockIdx.x % tiles * TILE;
    TileSums sums;
    half_product(sums, HalfOperand<H, H, true>{TileSource<H>(grad_gates, rows, gate_stride), first_row},
                 HalfOperand<H, H, false>{TileSource<H>(inner, width, stride), first_column}, 0, width, memory);
    input_gradient_of_tile(sums, weights, grad_pooled, offset, grad_x, first, first_row, first_column, rows, bags, l, heads);
}
#define INPUT_GRADIENT(name, H)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(TILE_THREADS)                                                                      \
    name(const H* __restrict__ grad_gates, const H* __restrict__ inner, const float* __restrict__ weights,                          \
         const float* __restrict__ grad_pooled, const unsigned* __restrict__ offset, float* __restrict__ grad_x, unsigned n,        \
         unsigned first, unsigned rows, unsigned bags, unsigned l, unsigned width, unsigned stride, unsigned gate_stride,           \
         unsigned heads) {                                                                                                          \
        input_gradient(grad_gates, inner, weights, grad_pooled, offset, grad_x, first, rows, bags, l, width, stride, gate_stride, heads); \
    }
INPUT_GRADIENT(attention_mil_half_input_gradient_f16, __half)
INPUT_GRADIENT(attention_mil_half_input_gradient_bf16, __nv_bfloat16)
