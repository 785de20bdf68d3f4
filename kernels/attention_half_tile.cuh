// A tile of 128 x 128 of a product of two matrices in 16 bits, added in f32 by tensor cores, with the fragments of
// attention_tile.cuh. Four stages of 32 columns: two are on their way while one is multiplied and one is released.
#pragma once
#include "attention_tile.cuh"

constexpr int HALF_K = 32, HALF_STAGES = 4;
constexpr int HALF_K_ROW = HALF_K + 8;   // numbers of a row of shared memory that runs along k: ldmatrix without conflict
constexpr int HALF_ROW = TILE + 8;       // and along the tile
constexpr int HALF_TILE = TILE * HALF_K_ROW;
constexpr int HALF_SHARED = HALF_STAGES * 2 * HALF_TILE * 2;  // bytes, as cuda.rs asks for them
static_assert(HALF_K * HALF_ROW <= HALF_TILE);

__device__ __forceinline__ void mma_half(FragmentC& c, const FragmentA& a, const FragmentB& b, __half) { mma_f16(c, a, b); }
__device__ __forceinline__ void mma_half(FragmentC& c, const FragmentA& a, const FragmentB& b, __nv_bfloat16) { mma_bf16(c, a, b); }

template <class A, class B> struct SameType { static constexpr bool YES = false; };
template <class A> struct SameType<A, A> { static constexpr bool YES = true; };

// One operand, stored as S and multiplied as H. Each thread moves two chunks of eight numbers of each stage.
template <class S, class H, bool K_ALONG_ROWS> struct HalfOperand {
    TileSource<S> from;
    unsigned first;
    static constexpr bool SAME = SameType<S, H>::YES;

    __device__ __forceinline__ unsigned extent() const { return K_ALONG_ROWS ? from.rows : from.columns; }
    static __device__ __forceinline__ int place(int chunk) {
        return K_ALONG_ROWS ? chunk / 4 * HALF_K_ROW + chunk % 4 * 8 : chunk / 16 * HALF_ROW + chunk % 16 * 8;
    }
    // Numbers that are stored as they are multiplied are copied without a register; others wait in `held` for `finish`.
    __device__ __forceinline__ void begin(H* tile, unsigned k, unsigned k_end, float (&held)[2][8]) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int chunk = threadIdx.x + i * TILE_THREADS;
            const unsigned row = K_ALONG_ROWS ? first + chunk / 4 : k + chunk / 16, column = K_ALONG_ROWS ? k + chunk % 4 * 8 : first + chunk % 16 * 8;
            const unsigned end_row = K_ALONG_ROWS ? from.rows : k_end, end_column = K_ALONG_ROWS ? k_end : from.columns;
            if (SAME && from.aligned) {
                const bool inside = row < end_row && column < end_column;
                cp_async_16(tile + place(chunk), inside ? static_cast<const void*>(from.row(row) + column) : from.even, inside);
            } else {
                from.load8(row, column, end_row, end_column, held[i]);
            }
        }
    }
    __device__ __forceinline__ void finish(H* tile, const float (&held)[2][8]) const {
        if (SAME && from.aligned) return;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            Vec<H> v;
#pragma unroll
            for (int j = 0; j < 8; ++j) v.set_rounded(j, held[i][j]);
            v.store(tile + place(threadIdx.x + i * TILE_THREADS));
        }
    }
};

template <bool K_ALONG_ROWS, class H> __device__ __forceinline__ void load_a(FragmentA& a, const H* tile, int row, int k) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    if constexpr (K_ALONG_ROWS) ldmatrix_x4(a.r, tile + (row + matrix % 2 * 8 + lane % 8) * HALF_K_ROW + k + matrix / 2 * 8);
    else ldmatrix_x4_trans(a.r, tile + (k + matrix / 2 * 8 + lane % 8) * HALF_ROW + row + matrix % 2 * 8);
}
// Of 16 columns, so two fragments.
template <bool K_ALONG_ROWS, class H> __device__ __forceinline__ void load_b(FragmentB& first, FragmentB& second, const H* tile, int column, int k) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    unsigned r[4];
    if constexpr (K_ALONG_ROWS) ldmatrix_x4(r, tile + (column + matrix / 2 * 8 + lane % 8) * HALF_K_ROW + k + matrix % 2 * 8);
    else ldmatrix_x4_trans(r, tile + (k + matrix % 2 * 8 + lane % 8) * HALF_ROW + column + matrix / 2 * 8);
    first.r[0] = r[0], first.r[1] = r[1], second.r[0] = r[2], second.r[1] = r[3];
}

// sums = sum over k from first_k to end_k of a(row, k) b(column, k). All threads of the block call; `memory` is
// HALF_SHARED bytes, and may be used for something else afterwards.
template <class H, class SA, bool A_ALONG, class SB, bool B_ALONG>
__device__ __forceinline__ void half_product(TileSums& sums, const HalfOperand<SA, H, A_ALONG>& a, const HalfOperand<SB, H, B_ALONG>& b, unsigned first_k,
                                             unsigned end_k, H* memory) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums.c[i][j] = FragmentC{{0.f, 0.f, 0.f, 0.f}};
    const int row = threadIdx.x / 128 * 64, column = threadIdx.x / 32 % 4 * 32;
    const bool idle = a.first + row >= a.extent() || b.first + column >= b.extent();  // a warp outside
    const unsigned steps = end_k > first_k ? (end_k - first_k + HALF_K - 1) / HALF_K : 0;
    auto tile_a = [=](unsigned step) { return memory + step % HALF_STAGES * 2 * HALF_TILE; };
    auto tile_b = [=](unsigned step) { return tile_a(step) + HALF_TILE; };
    float held_a[2][8], held_b[2][8];
#pragma unroll
    for (unsigned step = 0; step < HALF_STAGES - 1; ++step) {
        if (step < steps) {
            const unsigned k = first_k + step * HALF_K;
            a.begin(tile_a(step), k, end_k, held_a), b.begin(tile_b(step), k, end_k, held_b);
            a.finish(tile_a(step), held_a), b.finish(tile_b(step), held_b);
        }
        cp_async_commit();  // an empty group counts too
    }
    for (unsigned step = 0; step < steps; ++step) {
        cp_async_wait<HALF_STAGES - 2>();
        __syncthreads();  // this stage is whole in everybody's eyes, and the one before is not read any more
        const unsigned next = step + HALF_STAGES - 1;
        if (next < steps) a.begin(tile_a(next), first_k + next * HALF_K, end_k, held_a), b.begin(tile_b(next), first_k + next * HALF_K, end_k, held_b);
        cp_async_commit();
        if (!idle)
#pragma unroll
            for (int k = 0; k < HALF_K; k += 16) {
                FragmentB of_b[4];
                load_b<B_ALONG>(of_b[0], of_b[1], tile_b(step), column, k);
                load_b<B_ALONG>(of_b[2], of_b[3], tile_b(step), column + 16, k);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    FragmentA of_a;
                    load_a<A_ALONG>(of_a, tile_a(step), row + 16 * i, k);
#pragma unroll
                    for (int j = 0; j < 4; ++j) mma_half(sums.c[i][j], of_a, of_b[j], H());
                }
            }
        if (next < steps) a.finish(tile_a(next), held_a), b.finish(tile_b(next), held_b);
    }
    cp_async_wait<0>();
    __syncthreads();  // the memory may be used for something else
}
