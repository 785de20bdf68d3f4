// The products of kernels/matmul_entry.cuh on Hopper, factors rounded to bf16 or f16. Warpgroups with different work pass
// stages of 64 k on to each other by mbarriers: some read a matrix as it lies in memory, round it and put it where wgmma
// wants it; others multiply 64 rows each, and write their sums while the next tile is on its way. Blocks are persistent.
// wgmma takes an operand with k along its lines or across them, so nothing is transposed.
//
// Large tiles, 128 x 256: two warpgroups multiply, one reads a; b, a weight, was rounded and put in order by a kernel
// before (`pack`) and comes in bulk. Small ones, 64 x 64, and those of tn, 128 x 128: two warpgroups read, one each matrix.
// An element is the same bits in all of them: its terms are added 16 at a time in the order of k.
//
// Not measured. Per stage of a large tile and an f32 a: 1024 cycles of the tensor cores for 32 KiB of a, at 4.3 TB/s 1800
// cycles of a multiprocessor's share of the memory, and 32 KiB of b from the L2. 32 KiB of a are on their way in registers.
#pragma once
#include "block.cuh"
#include "hopper.cuh"
#include "matmul_entry.cuh"

namespace matmul_sm90 {
using matmul::Eight;
using matmul::Operand;

constexpr int DEPTH = 64, STAGES = 4;
constexpr int GROUP = 128;  // threads of a warpgroup
// Sums of 16 rows by 32 columns on their way out; with rows of 160 bytes, what 16 lanes write lies in different banks.
constexpr int OUT_COLUMNS = 32, OUT_PITCH = OUT_COLUMNS + 8, OUT = 16 * OUT_PITCH;

template <class A, class B> constexpr bool SAME = false;
template <class A> inline constexpr bool SAME<A, A> = true;

template <class T> __device__ __forceinline__ unsigned pack_pair(float low, float high) {
    if constexpr (IS_HALF<T>) return matmul::pack_f16(low, high);
    else return matmul::pack_bf16(low, high);
}
// A chunk of a tile, out of eight numbers as they lie in memory.
template <class T, class E> __device__ __forceinline__ uint4 rounded(const Eight<E>& e) {
    if constexpr (SAME<T, E>) {
        return e.bits;
    } else {
        auto pair = [&](int i) { return pack_pair<T>(matmul::element(e, i), matmul::element(e, i + 1)); };
        return make_uint4(pair(0), pair(2), pair(4), pair(6));
    }
}
// From a multiple of 16 bytes.
template <class E> __device__ __forceinline__ Eight<E> whole_eight(const E* p) {
    Eight<E> e;
#pragma unroll
    for (int i = 0; i < 8; i += Vec<E>::SIZE) reinterpret_cast<uint4*>(&e)[i / Vec<E>::SIZE] = Vec<E>::load(p + i).bits.whole;
    return e;
}

// Where chunk `unit` of a tile lies in it (`line`, `chunk`), and the first of its eight numbers in the matrix.
template <bool ALONG_K> struct Chunk {
    unsigned line, chunk, row, k;
    __device__ __forceinline__ explicit Chunk(unsigned unit)
        : line(unit / 8), chunk(unit % 8), row(ALONG_K ? line : line / 64 * 64 + chunk * 8), k(ALONG_K ? chunk * 8 : line % 64) {}
};
template <bool ALONG_K, class E> __device__ __forceinline__ const E* address(const Operand<E>& from, unsigned row, unsigned k) {
    return from.data + (ALONG_K ? (size_t)row * from.pitch + k : (size_t)k * from.pitch + row);
}
// Eight numbers of a matrix; those outside it, or from k_end on, as zeros.
template <bool ALONG_K, class E>
__device__ __forceinline__ Eight<E> load(const Operand<E>& from, unsigned row, unsigned k, unsigned k_end) {
    const bool inside = row < from.rows && k < k_end;
    const unsigned valid = !inside ? 0 : ALONG_K ? k_end - k : from.rows - row;
    const E* p = inside ? address<ALONG_K>(from, row, k) : from.data;
    return from.wide && valid >= 8 ? whole_eight(p) : matmul::load_eight(p, valid);
}

// What a warpgroup reads of a matrix at once: STEPS tiles of ROWS x 64, in HELD bytes of registers a thread.
template <class T, class E_, int ROWS_, bool ALONG_K_, int HELD> struct Panel {
    using E = E_;
    static constexpr int ROWS = ROWS_, UNITS = ROWS * 8 / GROUP, STEPS = HELD / (UNITS * 8 * (int)sizeof(E));
    static constexpr bool ALONG_K = ALONG_K_;
    static_assert(STEPS > 0);
    Eight<E> held[STEPS][UNITS];

    __device__ __forceinline__ void fetch(const Operand<E>& from, unsigned row0, unsigned k0, unsigned k_end) {
        const bool whole = from.wide && row0 + ROWS <= from.rows && k0 + STEPS * DEPTH <= k_end;
#pragma unroll
        for (int s = 0; s < STEPS; ++s)
#pragma unroll
            for (int u = 0; u < UNITS; ++u) {
                const Chunk<ALONG_K> at(threadIdx.x % GROUP + u * GROUP);
                const unsigned row = row0 + at.row, k = k0 + s * DEPTH + at.k;
                held[s][u] = whole ? whole_eight(address<ALONG_K>(from, row, k)) : load<ALONG_K>(from, row, k, k_end);
            }
    }
    __device__ __forceinline__ void keep(unsigned char* tile, int s) const {
#pragma unroll
        for (int u = 0; u < UNITS; ++u) {
            const Chunk<ALONG_K> at(threadIdx.x % GROUP + u * GROUP);
            *reinterpret_cast<uint4*>(tile + 2 * swizzled_chunk(at.line, at.chunk)) = rounded<T>(held[s][u]);
        }
    }
};

// A tile of the result and its terms. Tiles are numbered across first; all of a chunk of k before those of the next.
struct Job { unsigned row0, column0, k_begin, k_end, part; };
struct Jobs {
    unsigned rows, columns, k, chunk, across, tiles, count;
    __device__ __forceinline__ Jobs(unsigned m, unsigned n, unsigned k, unsigned chunk, unsigned rows, unsigned columns)
        : rows(rows), columns(columns), k(k), chunk(chunk), across((n + columns - 1) / columns), tiles((m + rows - 1) / rows * across),
          count(k > chunk ? tiles * ((k + chunk - 1) / chunk) : tiles) {}
    __device__ __forceinline__ Job operator[](unsigned i) const {
        const unsigned tile = i % tiles, part = i / tiles, begin = part * chunk;
        return {tile / across * rows, tile % across * columns, begin, k - begin > chunk ? begin + chunk : k, part};
    }
};

struct Barriers {
    Mbarrier full[STAGES], empty[STAGES];
};
// Which stage is next, and the parity of its barriers.
struct Stage {
    unsigned at = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++at == STAGES) at = 0, parity ^= 1;
    }
};

// One warpgroup reads its matrix, whose part of a stage is at `memory` in the first; one thread calls
// also(stage, job, step) for each stage that is free again, which every warp of the readers fills.
template <class Panel, int STAGE_BYTES, class F>
__device__ __forceinline__ void produce(const Operand<typename Panel::E>& from, const Jobs& jobs, bool is_left, unsigned char* memory,
                                        Barriers& barriers, F also) {
    Panel panel;
    Stage stage;
    for (unsigned i = blockIdx.x; i < jobs.count; i += gridDim.x) {
        const Job job = jobs[i];
#pragma unroll 1
        for (unsigned k = job.k_begin; k < job.k_end; k += Panel::STEPS * DEPTH) {
            panel.fetch(from, is_left ? job.row0 : job.column0, k, job.k_end);
#pragma unroll
            for (int s = 0; s < Panel::STEPS; ++s) {
                if (k + s * DEPTH >= job.k_end) continue;
                mbarrier_wait(&barriers.empty[stage.at], stage.parity ^ 1);  // nobody multiplies the old one any more; at first nobody does
                if (threadIdx.x % GROUP == 0) also(stage, job, (k - job.k_begin) / DEPTH + s);
                panel.keep(memory + stage.at * STAGE_BYTES, s);
                fence_proxy_async();  // what this thread wrote is for wgmma
                __syncwarp();         // all lanes have written, so one may say so
                if (threadIdx.x % 32 == 0) mbarrier_arrive(&barriers.full[stage.at]);
                stage.next();
            }
        }
    }
}

// Calls f(row, column, four) for every four columns of a warp's 16 rows, where they lie inside m x n, by way of `out`.
template <int COLUMNS, class F>
__device__ __forceinline__ void each_four(const float (&c)[COLUMNS / 2], float* out, unsigned row0, unsigned column0, unsigned m, unsigned n, F f) {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int pass = 0; pass < COLUMNS && column0 + pass < n; pass += OUT_COLUMNS) {
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; ++j)
            if (j * 8 / OUT_COLUMNS * OUT_COLUMNS == pass) {
                float* to = out + lane / 4 * OUT_PITCH + j * 8 % OUT_COLUMNS + lane % 4 * 2;
                *reinterpret_cast<float2*>(to) = make_float2(c[4 * j], c[4 * j + 1]);
                *reinterpret_cast<float2*>(to + 8 * OUT_PITCH) = make_float2(c[4 * j + 2], c[4 * j + 3]);
            }
        __syncwarp();  // the rows are there
#pragma unroll 1
        for (int r = lane / 8; r < 16; r += 4) {
            const unsigned row = row0 + r, column = column0 + pass + lane % 8 * 4;
            if (row < m && column < n) f(row, column, *reinterpret_cast<const float4*>(out + r * OUT_PITCH + lane % 8 * 4));
        }
        __syncwarp();  // and have been read, before the next ones come
    }
}

// A warpgroup multiplies 64 rows of each tile, and calls f(part, row, column, four) for what comes out.
template <class T, int ROWS, int COLUMNS, bool A_ALONG_K, bool B_ALONG_K, class F>
__device__ __forceinline__ void consume(const Jobs& jobs, unsigned char* memory, float* out, Barriers& barriers, unsigned m, unsigned n, F f) {
    constexpr int STAGE_BYTES = (ROWS + COLUMNS) * DEPTH * 2;
    const unsigned group = threadIdx.x / GROUP, warp = threadIdx.x % GROUP / 32, lane = threadIdx.x % 32;
    Stage stage;
    for (unsigned i = blockIdx.x; i < jobs.count; i += gridDim.x) {
        const Job job = jobs[i];
        float c[COLUMNS / 2];
#pragma unroll
        for (int j = 0; j < COLUMNS / 2; ++j) c[j] = 0.f;
        unsigned before = 0;
#pragma unroll 1
        for (unsigned k = job.k_begin; k < job.k_end; k += DEPTH) {
            mbarrier_wait(&barriers.full[stage.at], stage.parity);
            const unsigned char* at = memory + stage.at * STAGE_BYTES;
            const Swizzled<T, A_ALONG_K> a(at + group * 64 * DEPTH * 2);
            const Swizzled<T, B_ALONG_K> b(at + ROWS * DEPTH * 2);
            wgmma_fence();
#pragma unroll
            for (int step = 0; step < DEPTH / 16; ++step) wgmma(c, a.k16(step), b.k16(step), true);
            wgmma_commit();
            if (k != job.k_begin) {
                wgmma_wait<1>();
                __syncwarp();  // all lanes have read the stage before, so one may say so
                if (lane == 0) mbarrier_arrive(&barriers.empty[before]);
            }
            before = stage.at;
            stage.next();
        }
        wgmma_wait<0>();
        wgmma_settled(c);
        __syncwarp();  // the same for the last
        if (lane == 0 && job.k_begin < job.k_end) mbarrier_arrive(&barriers.empty[before]);
        each_four<COLUMNS>(c, out + (threadIdx.x / 32) * OUT, job.row0 + group * 64 + warp * 16, job.column0, m, n,
                           [=](unsigned row, unsigned column, const float4& four) { f(job.part, row, column, four); });
    }
}

// The barriers of a block whose stages are filled by so many arrivals and emptied by so many warps.
__device__ __forceinline__ void begin(Barriers& barriers, int fillers, int warps) {
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) mbarrier_init(&barriers.full[s], fillers), mbarrier_init(&barriers.empty[s], warps);
        mbarrier_init_fence();
    }
    __syncthreads();  // the barriers are ready in everybody's eyes
}

// Tiles of 128 x 256 in blocks of three warpgroups, b as `pack` leaves it.
constexpr int LARGE_ROWS = 128, LARGE_COLUMNS = 256;
template <class T, class E, bool B_ALONG_K, class F>
__device__ __forceinline__ void large(const Operand<E>& a, const T* packed, unsigned m, unsigned n, unsigned k, F f) {
    constexpr int TILE_A = LARGE_ROWS * DEPTH * 2, TILE_B = LARGE_COLUMNS * DEPTH * 2;
    DYNAMIC_SHARED(unsigned char, memory);  // [STAGES][TILE_A + TILE_B], then OUT floats a warp
    __shared__ Barriers barriers;
    const Jobs jobs(m, n, k, k, LARGE_ROWS, LARGE_COLUMNS);
    begin(barriers, 4 + 1, 8);
    if (threadIdx.x < 2 * GROUP) {
        take_registers<192>();
        auto* const out = reinterpret_cast<float*>(memory + STAGES * (TILE_A + TILE_B));
        consume<T, LARGE_ROWS, LARGE_COLUMNS, true, B_ALONG_K>(jobs, memory, out, barriers, m, n, f);
    } else {
        release_registers<128>();
        const unsigned steps = (k + DEPTH - 1) / DEPTH;
        produce<Panel<T, E, LARGE_ROWS, true, 256>, TILE_A + TILE_B>(a, jobs, true, memory, barriers, [&](Stage stage, const Job& job, unsigned step) {
            mbarrier_arrive_expect(&barriers.full[stage.at], TILE_B);
            bulk_load_bytes(memory + stage.at * (TILE_A + TILE_B) + TILE_A,
                            packed + ((size_t)(job.column0 / LARGE_COLUMNS) * steps + step) * (TILE_B / 2), TILE_B, &barriers.full[stage.at]);
        });
    }
}
// packed [tile of 256 columns][step of 64 k][256 x 64] = b [n, k], or [k, n], rounded and swizzled, with zeros behind its
// edges: a thread for eight numbers.
template <class T, bool ALONG_K>
__device__ __forceinline__ void pack(const Operand<float>& b, T* packed, unsigned k) {
    const unsigned steps = (k + DEPTH - 1) / DEPTH, across = (b.rows + LARGE_COLUMNS - 1) / LARGE_COLUMNS;
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, tile = i / (LARGE_COLUMNS * 8);
    if (tile >= (size_t)across * steps) return;
    const Chunk<ALONG_K> at(unsigned(i % (LARGE_COLUMNS * 8)));
    const unsigned row = unsigned(tile / steps) * LARGE_COLUMNS + at.row, first = unsigned(tile % steps) * DEPTH + at.k;
    T* to = packed + tile * (LARGE_COLUMNS * DEPTH) + swizzled_chunk(at.line, at.chunk);
    *reinterpret_cast<uint4*>(to) = rounded<T>(load<ALONG_K>(b, row, first, k));
}

// Tiles of (64 * CONSUMERS) x COLUMNS, k in chunks, both matrices read as they lie in memory with HELD bytes a thread.
template <class T, int CONSUMERS, int COLUMNS, bool A_ALONG_K, bool B_ALONG_K, int HELD, class EA, class EB, class F>
__device__ __forceinline__ void read_both(const Operand<EA>& a, const Operand<EB>& b, unsigned m, unsigned n, unsigned k, unsigned chunk, F f) {
    constexpr int ROWS = 64 * CONSUMERS, TILE_A = ROWS * DEPTH * 2, TILE_B = COLUMNS * DEPTH * 2;
    DYNAMIC_SHARED(unsigned char, memory);  // as above
    __shared__ Barriers barriers;
    const Jobs jobs(m, n, k, chunk, ROWS, COLUMNS);
    begin(barriers, 8, 4 * CONSUMERS);
    auto nothing = [](Stage, const Job&, unsigned) {};
    if (threadIdx.x < CONSUMERS * GROUP) {
        auto* const out = reinterpret_cast<float*>(memory + STAGES * (TILE_A + TILE_B));
        consume<T, ROWS, COLUMNS, A_ALONG_K, B_ALONG_K>(jobs, memory, out, barriers, m, n, f);
    } else if (threadIdx.x < (CONSUMERS + 1) * GROUP) {
        produce<Panel<T, EA, ROWS, A_ALONG_K, HELD>, TILE_A + TILE_B>(a, jobs, true, memory, barriers, nothing);
    } else {
        produce<Panel<T, EB, COLUMNS, B_ALONG_K, HELD>, TILE_A + TILE_B>(b, jobs, false, memory + TILE_A, barriers, nothing);
    }
}

// How sums leave a product without bias and function.
struct Plainly {
    float* c;
    unsigned m, n;
    __device__ __forceinline__ void operator()(unsigned part, unsigned row, unsigned column, const float4& four) const {
        matmul::store_four(c + (size_t)part * m * n, n, row, column, four);
    }
};
struct LayerEnd : matmul::LayerEnd {
    __device__ __forceinline__ void operator()(unsigned, unsigned row, unsigned column, const float4& four) const {
        matmul::LayerEnd::operator()(row, column, four);
    }
};
}  // namespace matmul_sm90

#define MATMUL_SM90_FEATURES_(mode, T, suffix, E)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(384, 1) matmul_nt_##mode##_sm90_##suffix(const E* __restrict__ a, const T* __restrict__ packed,    \
        const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k,        \
        unsigned int function) {                                                                                                                    \
        matmul_sm90::large<T, E, true>({a, k, m}, packed, m, n, k, matmul_sm90::LayerEnd{{bias, y, argument, n, function}});                        \
    }                                                                                                                                               \
    extern "C" __global__ void __launch_bounds__(384, 2) matmul_nt_##mode##_sm90_small_##suffix(const E* __restrict__ a, const float* __restrict__ b, \
        const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument, unsigned int m, unsigned int n, unsigned int k,        \
        unsigned int function) {                                                                                                                    \
        matmul_sm90::read_both<T, 1, 64, true, true, 128, E, float>({a, k, m}, {b, k, n}, m, n, k, k,                                               \
                                                                    matmul_sm90::LayerEnd{{bias, y, argument, n, function}});                       \
    }                                                                                                                                               \
    extern "C" __global__ void __launch_bounds__(512, 1) matmul_tn_##mode##_sm90_##suffix(const float* __restrict__ a, const E* __restrict__ b,     \
        float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k, unsigned int chunk) {                                                \
        matmul_sm90::read_both<T, 2, 128, false, false, 256, float, E>({a, m, m}, {b, n, n}, m, n, k, chunk, matmul_sm90::Plainly{c, m, n});        \
    }
#define MATMUL_SM90_ENTRY_POINTS(mode, T)                                                                                                           \
    MATMUL_SM90_FEATURES_(mode, T, f32, float)                                                                                                      \
    MATMUL_SM90_FEATURES_(mode, T, f16, __half)                                                                                                     \
    MATMUL_SM90_FEATURES_(mode, T, bf16, __nv_bfloat16)                                                                                             \
    extern "C" __global__ void __launch_bounds__(384, 1) matmul_nn_##mode##_sm90(const float* __restrict__ a, const T* __restrict__ packed,         \
        float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k) {                                                                    \
        matmul_sm90::large<T, float, false>({a, k, m}, packed, m, n, k, matmul_sm90::Plainly{c, m, n});                                             \
    }                                                                                                                                               \
    extern "C" __global__ void __launch_bounds__(384, 2) matmul_nn_##mode##_sm90_small(const float* __restrict__ a, const float* __restrict__ b,    \
        float* __restrict__ c, unsigned int m, unsigned int n, unsigned int k) {                                                                    \
        matmul_sm90::read_both<T, 1, 64, true, false, 128, float, float>({a, k, m}, {b, n, n}, m, n, k, k, matmul_sm90::Plainly{c, m, n});          \
    }                                                                                                                                               \
    extern "C" __global__ void __launch_bounds__(256) matmul_pack_##mode##_sm90(const float* __restrict__ b, T* __restrict__ packed,                \
        unsigned int n, unsigned int k, unsigned int along_k) {                                                                                     \
        if (along_k) matmul_sm90::pack<T, true>({b, k, n}, packed, k);                                                                              \
        else matmul_sm90::pack<T, false>({b, n, n}, packed, k);                                                                                     \
    }
