// A tile of 128 x 128 of a product of two matrices in f32: what attention_mil is made of. Eight warps, two along the rows
// and four along the columns, each with 64 x 32 numbers that lie in the fragments of mma.sync, whichever way they come
// about: fused multiply-adds, one tf32 product, or products of operands split into two tf32 numbers (f32-grade).
#pragma once
#include "block.cuh"
#include "mma.cuh"

constexpr int TILE = 128;         // rows and columns of a tile
constexpr int TILE_K = 16;        // what is summed over, at a time
constexpr int TILE_THREADS = 256;
constexpr int TILE_ROW = TILE + 8;       // floats of a row of shared memory that runs along the tile: fragments read without conflict
constexpr int TILE_K_ROW = TILE_K + 4;   // and along k
constexpr int TILE_FLOATS = TILE * TILE_K_ROW;
static_assert(TILE_K * TILE_ROW <= TILE_FLOATS);

enum Grade { GRADE_PLAIN, GRADE_SPLIT, GRADE_TF32 };  // as cuda.rs numbers them

// Rows of `columns` numbers. With two sources, even rows come from the one and odd rows from the other.
template <class T> struct TileSource {
    const T *even, *odd;
    unsigned rows, columns;
    bool aligned;  // 16 bytes at a time
    __device__ __forceinline__ TileSource(const T* all, unsigned rows, unsigned columns)
        : even(all), odd(nullptr), rows(rows), columns(columns), aligned(Vec<T>::fits(all, columns)) {}
    __device__ __forceinline__ TileSource(const T* even, const T* odd, unsigned rows, unsigned columns)
        : even(even), odd(odd), rows(rows), columns(columns), aligned(Vec<T>::fits(even, columns) && Vec<T>::fits(odd, columns)) {}
    __device__ __forceinline__ const T* row(unsigned r) const {
        return odd ? (r & 1 ? odd : even) + size_t(r >> 1) * columns : even + size_t(r) * columns;
    }
    // Eight numbers of a row, zeros outside.
    __device__ __forceinline__ void load8(unsigned r, unsigned first, unsigned end_row, unsigned end_column, float (&to)[8]) const {
        const bool inside = r < end_row && first < end_column;
        const T* from = row(inside ? r : 0);
#pragma unroll
        for (int part = 0; part < 8; part += Vec<T>::SIZE) {
            const unsigned at = first + part;
            const Vec<T> v = inside ? Vec<T>::load(from, at, end_column, aligned) : Vec<T>::load_some(from, 0);
#pragma unroll
            for (int i = 0; i < Vec<T>::SIZE; ++i) to[part + i] = v[i];
        }
    }
};

// One operand of a product: which of its rows or columns belong to the tile, and whether k runs along its rows.
template <class T, bool K_ALONG_ROWS> struct TileOperand {
    TileSource<T> from;
    unsigned first;  // of the tile
    static constexpr bool EXACT = sizeof(T) == 2;  // a tf32 number holds it
    static constexpr bool ALONG = K_ALONG_ROWS;

    __device__ __forceinline__ void load(unsigned k, unsigned k_end, float (&to)[8]) const {
        const unsigned i = threadIdx.x;
        if constexpr (K_ALONG_ROWS) from.load8(first + i / 2, k + i % 2 * 8, from.rows, k_end, to);
        else from.load8(k + i / 16, first + i % 16 * 8, k_end, from.columns, to);
    }
    static __device__ __forceinline__ void store(float* tile, const float (&v)[8]) {
        const unsigned i = threadIdx.x;
        float* to = tile + (K_ALONG_ROWS ? i / 2 * TILE_K_ROW + i % 2 * 8 : i / 16 * TILE_ROW + i % 16 * 8);
        reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
    __device__ __forceinline__ unsigned extent() const { return K_ALONG_ROWS ? from.rows : from.columns; }
    static __device__ __forceinline__ float at(const float* tile, int i, int k) {
        return K_ALONG_ROWS ? tile[i * TILE_K_ROW + k] : tile[k * TILE_ROW + i];
    }
};

// What a warp holds: rows 16 i + lane / 4 (and + 8) of its 64, columns 8 j + lane % 4 * 2 (and + 1) of its 32.
struct TileSums {
    FragmentC c[4][4];
};
__device__ __forceinline__ int tile_row(int i, int half) { return threadIdx.x / 128 * 64 + i * 16 + half * 8 + threadIdx.x % 32 / 4; }
__device__ __forceinline__ int tile_column(int j) { return threadIdx.x / 32 % 4 * 32 + j * 8 + threadIdx.x % 4 * 2; }

struct TileMemory {
    alignas(16) float a[2][TILE_FLOATS], b[2][TILE_FLOATS];
};

struct TwoTf32 {
    unsigned high, low;
    template <bool EXACT> static __device__ __forceinline__ TwoTf32 of(float v) {
        TwoTf32 s;
        if constexpr (EXACT) {
            s.high = __float_as_uint(v), s.low = 0;
        } else {
            s.high = to_tf32(v);
            s.low = to_tf32(v - __uint_as_float(s.high));
        }
        return s;
    }
};

template <class A, class B> __device__ __forceinline__ void tile_step_plain(TileSums& sums, const float* a, const float* b) {
    const int row = tile_row(0, 0), column = tile_column(0);
#pragma unroll 4
    for (int k = 0; k < TILE_K; ++k) {
        float x[4][2], y[4][2];
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                x[i][half] = A::at(a, row + i * 16 + half * 8, k);
                y[i][half] = B::at(b, column + i * 8 + half, k);
            }
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int at = 0; at < 4; ++at) sums.c[i][j].v[at] = fmaf(x[i][at / 2], y[j][at % 2], sums.c[i][j].v[at]);
    }
}

// Tensor cores cut off what does not fit, so a sum over eight products ends there, and goes on with ordinary additions.
// The small products come first: what they lose is smaller still.
template <bool SPLIT, class A, class B> __device__ __forceinline__ void tile_step_tf32(TileSums& sums, const float* a, const float* b) {
    constexpr bool EXACT_A = A::EXACT || !SPLIT, EXACT_B = B::EXACT || !SPLIT;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int row = threadIdx.x / 128 * 64 + g, column = threadIdx.x / 32 % 4 * 32 + g;
#pragma unroll
    for (int k = 0; k < TILE_K; k += 8) {
        FragmentB high_b[4], low_b[4];
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float v = B::at(b, column + 8 * j, k + t + 4 * r);
                const TwoTf32 s = SPLIT ? TwoTf32::of<EXACT_B>(v) : TwoTf32{to_tf32(v), 0};
                high_b[j].r[r] = s.high, low_b[j].r[r] = s.low;
            }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            FragmentA high_a, low_a;
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const float v = A::at(a, row + 16 * i + r % 2 * 8, k + t + r / 2 * 4);
                const TwoTf32 s = SPLIT ? TwoTf32::of<EXACT_A>(v) : TwoTf32{to_tf32(v), 0};
                high_a.r[r] = s.high, low_a.r[r] = s.low;
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                FragmentC c = {{0.f, 0.f, 0.f, 0.f}};
                if constexpr (!EXACT_A) mma_tf32(c, low_a, high_b[j]);
                if constexpr (!EXACT_B) mma_tf32(c, high_a, low_b[j]);
                mma_tf32(c, high_a, high_b[j]);
#pragma unroll
                for (int at = 0; at < 4; ++at) sums.c[i][j].v[at] += c.v[at];
            }
        }
    }
}

// sums = sum over k from first_k to end_k of a(row, k) b(column, k). All threads of the block call.
template <class A, class B>
__device__ __forceinline__ void tile_product(TileSums& sums, const A& a, const B& b, unsigned first_k, unsigned end_k, unsigned grade, TileMemory& memory) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums.c[i][j] = FragmentC{{0.f, 0.f, 0.f, 0.f}};
    const bool idle = a.first + tile_row(0, 0) / 64 * 64 >= a.extent() || b.first + tile_column(0) / 32 * 32 >= b.extent();  // a warp outside
    float next_a[8], next_b[8];
    a.load(first_k, end_k, next_a), b.load(first_k, end_k, next_b);
    int now = 0;
    for (unsigned k = first_k; k < end_k; k += TILE_K, now ^= 1) {
        A::store(memory.a[now], next_a), B::store(memory.b[now], next_b);
        __syncthreads();  // the tiles are whole; and nobody reads the other two any more, which the next round overwrites
        if (k + TILE_K < end_k) a.load(k + TILE_K, end_k, next_a), b.load(k + TILE_K, end_k, next_b);
        if (idle) continue;
        if (grade == GRADE_PLAIN) tile_step_plain<A, B>(sums, memory.a[now], memory.b[now]);
        else if (grade == GRADE_SPLIT) tile_step_tf32<true, A, B>(sums, memory.a[now], memory.b[now]);
        else tile_step_tf32<false, A, B>(sums, memory.a[now], memory.b[now]);
    }
    __syncthreads();  // the memory may be used for something else
}
