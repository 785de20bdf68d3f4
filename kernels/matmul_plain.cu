// matmul_plain: products in f32 on the ordinary adders, for a short k: there every rounding of an operand would show.
// Page: src/ops/linear/mod.rs. A block of 256 threads a 128 x 128 tile, a thread 8 x 8 of it; k one after the other.
// Floor on an H200, 1M x 64 -> 128: 16.8 GFLOP at 60 TFLOP/s 0.28 ms, 0.8 GB at 4.3 TB/s 0.18 ms.
// The layouts nt, nn and tn are those of matmul_entry.cuh.
#include "matmul_entry.cuh"

using namespace matmul;

constexpr int TILE = 128, DEPTH = 16;
constexpr int PITCH = TILE + 4;  // floats: rows of k stay aligned to 16 bytes
struct Stage { float a[DEPTH][PITCH], b[DEPTH][PITCH]; };
static_assert(2 * sizeof(Stage) >= 64 * RESULT_PITCH<TILE> * sizeof(float), "the results take the place of the stages");

// This thread's eight elements of a panel of 128 rows by 16 k.
template <bool ALONG_K, class E> struct PlainPanel {
    Eight<E> eight;
    __device__ __forceinline__ static unsigned row() { return ALONG_K ? threadIdx.x % TILE : threadIdx.x % 16 * 8; }
    __device__ __forceinline__ static unsigned k() { return ALONG_K ? threadIdx.x / TILE * 8 : threadIdx.x / 16; }
    __device__ __forceinline__ void fetch(const Operand<E>& from, unsigned row0, unsigned k0, unsigned k_end) {
        const unsigned r = row0 + row(), first = k0 + k();
        const bool inside = r < from.rows && first < k_end;
        const unsigned valid = !inside ? 0 : ALONG_K ? k_end - first : from.rows - r;
        const E* p = from.data + (!inside ? 0 : ALONG_K ? (size_t)r * from.pitch + first : (size_t)first * from.pitch + r);
        eight = from.wide && valid >= 8 ? *reinterpret_cast<const Eight<E>*>(p) : load_eight(p, valid);
    }
    __device__ __forceinline__ void keep(float (*to)[PITCH]) const {
#pragma unroll
        for (int i = 0; i < 8; ++i) to[k() + (ALONG_K ? i : 0)][row() + (ALONG_K ? 0 : i)] = element(eight, i);
    }
};

// The product of a tile, given to `end` four columns at a time.
template <bool A_ALONG_K, bool B_ALONG_K, class EA, class EB, class End>
__device__ __forceinline__ void plain_product(const Operand<EA>& a, const Operand<EB>& b, unsigned k_begin, unsigned k_end, End end) {
    __shared__ __align__(16) Stage stages[2];
    const unsigned across = (b.rows + TILE - 1) / TILE, row0 = blockIdx.x / across * TILE, column0 = blockIdx.x % across * TILE;
    const int x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;  // this thread: rows y.., 64+y.., columns x.., 64+x..
    PlainPanel<A_ALONG_K, EA> left;
    PlainPanel<B_ALONG_K, EB> right;
    float sum[8][8] = {};
    left.fetch(a, row0, k_begin, k_end), right.fetch(b, column0, k_begin, k_end);
    left.keep(stages[0].a), right.keep(stages[0].b);
    __syncthreads();  // the first stage is there
    int now = 0;
    for (unsigned k = k_begin; k < k_end; now ^= 1) {
        const bool more = k_end - k > DEPTH;
        if (more) left.fetch(a, row0, k + DEPTH, k_end), right.fetch(b, column0, k + DEPTH, k_end);
        const Stage& stage = stages[now];
#pragma unroll
        for (int kk = 0; kk < DEPTH; ++kk) {
            float va[8], vb[8];
#pragma unroll
            for (int h = 0; h < 8; h += 4) {
                *reinterpret_cast<float4*>(va + h) = *reinterpret_cast<const float4*>(&stage.a[kk][16 * h + y]);
                *reinterpret_cast<float4*>(vb + h) = *reinterpret_cast<const float4*>(&stage.b[kk][16 * h + x]);
            }
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) sum[i][j] += va[i] * vb[j];
        }
        if (more) left.keep(stages[now ^ 1].a), right.keep(stages[now ^ 1].b);
        __syncthreads();  // the next stage is there, and this one may be overwritten
        if (!more) break;
        k += DEPTH;
    }
    float* tile = &stages[0].a[0][0];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 8; j += 4) {
                const float* s = &sum[4 * h + i][j];
                *reinterpret_cast<float4*>(tile + (y + i) * RESULT_PITCH<TILE> + 16 * j + x) = make_float4(s[0], s[1], s[2], s[3]);
            }
        __syncthreads();  // the rows are there
        each_four<TILE>(tile, row0 + 64 * h, column0, a.rows, b.rows, end);
        __syncthreads();  // and have been read, before the next ones come
    }
}

#define PLAIN_FEATURES_(suffix, E)                                                                                                                \
    extern "C" __global__ void __launch_bounds__(256, 2) matmul_nt_plain_##suffix(const E* __restrict__ a, const float* __restrict__ b,               \
        const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k,       \
        unsigned int function) {                                                                                                                 \
        plain_product<true, true>(Operand<E>(a, k, m), Operand<float>(b, k, n), 0, k, LayerEnd{bias, y, argument, n, function});                 \
    }                                                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256, 2) matmul_tn_plain_##suffix(const float* __restrict__ a, const E* __restrict__ b,               \
        float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk) {                                               \
        const unsigned k_begin = blockIdx.y * chunk, k_end = k - k_begin > chunk ? k_begin + chunk : k;                                            \
        float* part = c + (size_t)blockIdx.y * m * n;                                                                                              \
        plain_product<false, false>(Operand<float>(a, m, m), Operand<E>(b, n, n), k_begin, k_end,                                                  \
            [=](unsigned row, unsigned column, const float4& v) { store_four(part, n, row, column, v); });                                         \
    }
PLAIN_FEATURES_(f32, float)
PLAIN_FEATURES_(f16, __half)
PLAIN_FEATURES_(bf16, __nv_bfloat16)
extern "C" __global__ void __launch_bounds__(256, 2) matmul_nn_plain(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c,
                                                                 unsigned int m, unsigned int n, unsigned int k) {
    plain_product<true, false>(Operand<float>(a, k, m), Operand<float>(b, n, n), 0, k,
        [=](unsigned row, unsigned column, const float4& v) { store_four(c, n, row, column, v); });
}
