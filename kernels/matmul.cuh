// Tiles of a matrix product on tensor cores. c[row, column] = sum over k of a(row, k) b(k, column), where each operand
// lies in memory with k along its rows or across them, as f32, f16 or bf16, and is made into what the tensor cores
// take on its way to the tensor cores. Global memory -> cp.async, two steps ahead -> shared memory as it was -> registers
// -> shared memory as operands, one step ahead -> ldmatrix -> mma.sync. A kernel is put together from `Panel`s by `multiply`, and writes its tile with `each_four`.
#pragma once
#include "mma.cuh"

namespace matmul {

// Eight neighbours of a row as they lie in memory.
template <class E> struct Eight { uint4 bits; };
template <> struct Eight<float> { float4 low, high; };

template <class E> __device__ __forceinline__ unsigned half_word(const uint4& bits, int i) {
    const unsigned word = i / 2 == 0 ? bits.x : i / 2 == 1 ? bits.y : i / 2 == 2 ? bits.z : bits.w;
    return i % 2 ? word >> 16 : word & 0xffff;
}
__device__ __forceinline__ float element(const Eight<float>& e, int i) {
    const float4& four = i < 4 ? e.low : e.high;
    return i % 4 == 0 ? four.x : i % 4 == 1 ? four.y : i % 4 == 2 ? four.z : four.w;
}
__device__ __forceinline__ float element(const Eight<__half>& e, int i) {
    return __half2float(__ushort_as_half((unsigned short)half_word<__half>(e.bits, i)));
}
__device__ __forceinline__ float element(const Eight<__nv_bfloat16>& e, int i) {
    return __uint_as_float(half_word<__nv_bfloat16>(e.bits, i) << 16);
}

// The first `valid` of eight elements, zeros for the rest.
__device__ __forceinline__ Eight<float> load_eight(const float* p, unsigned valid) {
    auto at = [=](unsigned i) { return i < valid ? p[i] : 0.f; };
    return {make_float4(at(0), at(1), at(2), at(3)), make_float4(at(4), at(5), at(6), at(7))};
}
template <class E> __device__ __forceinline__ Eight<E> load_eight(const E* p, unsigned valid) {
    auto at = [=](unsigned i) { return i < valid ? (unsigned)reinterpret_cast<const unsigned short*>(p)[i] : 0u; };
    return {make_uint4(at(0) | at(1) << 16, at(2) | at(3) << 16, at(4) | at(5) << 16, at(6) | at(7) << 16)};
}

__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&pair);
}
__device__ __forceinline__ unsigned pack_f16(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&pair);
}

// How numbers become operands: `parts` of them are what an element is taken apart into.
//
// Split: the accuracy of f32. An f32 is the sum of three bf16 (8 bits each, exactly), an f16 of two; of the products of
// parts those below 2^-24 of the largest are left out, at most six stay. Tensor cores cut sums off where f32 rounds, so
// each run of 16 k starts from zero, smallest products first, and is added to the sum by the ordinary adders.
struct Split {
    using Word = unsigned short;
    static constexpr int DEPTH = 16, STEP = 16;
    static constexpr bool PROMOTE = true;
    static constexpr int parts(const float*) { return 3; }
    static constexpr int parts(const __half*) { return 2; }
    static constexpr int parts(const __nv_bfloat16*) { return 1; }
    // Two numbers as a pair of words; what is left of them stays.
    __device__ static __forceinline__ unsigned take(float& low, float& high) {
        const unsigned pair = pack_bf16(low, high);
        low -= __uint_as_float(pair << 16), high -= __uint_as_float(pair & 0xffff0000u);
        return pair;
    }
    __device__ static __forceinline__ void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) { mma_bf16(c, a, b); }
};
struct RoundBf16 {
    using Word = unsigned short;
    static constexpr int DEPTH = 32, STEP = 16;
    static constexpr bool PROMOTE = false;
    static constexpr int parts(const void*) { return 1; }
    __device__ static __forceinline__ unsigned take(float low, float high) { return pack_bf16(low, high); }
    __device__ static __forceinline__ void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) { mma_bf16(c, a, b); }
};
struct RoundF16 {
    using Word = unsigned short;
    static constexpr int DEPTH = 32, STEP = 16;
    static constexpr bool PROMOTE = false;
    static constexpr int parts(const void*) { return 1; }
    __device__ static __forceinline__ unsigned take(float low, float high) { return pack_f16(low, high); }
    __device__ static __forceinline__ void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) { mma_f16(c, a, b); }
};
struct RoundTf32 {
    using Word = unsigned;
    static constexpr int DEPTH = 16, STEP = 8;
    static constexpr bool PROMOTE = false;
    static constexpr int parts(const void*) { return 1; }
    __device__ static __forceinline__ void mma(FragmentC& c, const FragmentA& a, const FragmentB& b) { mma_tf32(c, a, b); }
};

// A matrix in global memory: `rows` of the tile's dimension, `pitch` elements from one line of memory to the next.
template <class E> struct Operand {
    const E* data;
    unsigned pitch;
    unsigned rows;
    bool wide;  // every eighth element of a line lies at a multiple of 16 bytes
    __device__ __forceinline__ Operand(const E* data, unsigned pitch, unsigned rows)
        : data(data), pitch(pitch), rows(rows), wide(pitch * sizeof(E) % 16 == 0 && reinterpret_cast<size_t>(data) % 16 == 0) {}
};
// ROWS x DEPTH of an operand: [row][k] in shared memory if it lies along k, else [k][row]. One after the other its parts.
template <class Mode_, class E_, int ROWS, bool ALONG_K, int THREADS> struct Panel {
    using Mode = Mode_;
    using E = E_;
    using Word = typename Mode::Word;
    static constexpr int DEPTH = Mode::DEPTH, PARTS = Mode::parts(static_cast<const E*>(nullptr));
    // Rows of 48, 80 or 272 bytes (of words of 32 bits 80, 288 or 544): what eight lanes read lies in different banks.
    static constexpr int PITCH = ALONG_K ? DEPTH + 16 / (int)sizeof(Word) : ROWS + 8;
    static constexpr int PART = (ALONG_K ? ROWS : DEPTH) * PITCH, SIZE = PARTS * PART;
    static constexpr int UNITS = ROWS * DEPTH / 8 / THREADS;
    static constexpr int PER_LINE = (ALONG_K ? DEPTH : ROWS) / 8;
    // What was copied and not yet made into operands: 16 bytes a thread and then the next, so that no two meet in a bank.
    // A thread only ever touches what it copied itself, so that its own wait is enough.
    static constexpr int CHUNKS = UNITS * 8 * (int)sizeof(E) / 16, RAW = CHUNKS * THREADS;  // in chunks of 16 bytes
    using Raw = uint4;

    // Starts the copies of the panel from (row0, k0) to `raw`: eight elements a unit, those outside the matrix as zeros.
    __device__ static __forceinline__ void fetch(Raw* raw, const Operand<E>& from, unsigned row0, unsigned k0, unsigned k_end) {
        constexpr int EACH = CHUNKS / UNITS;
#pragma unroll
        for (int u = 0; u < UNITS; ++u) {
            const unsigned at = threadIdx.x + u * THREADS, line = at / PER_LINE, eight = at % PER_LINE * 8;
            const unsigned row = row0 + (ALONG_K ? line : eight), k = k0 + (ALONG_K ? eight : line);
            const bool inside = row < from.rows && k < k_end;
            const unsigned valid = !inside ? 0 : ALONG_K ? k_end - k : from.rows - row;
            const E* p = from.data + (!inside ? 0 : ALONG_K ? (size_t)row * from.pitch + k : (size_t)k * from.pitch + row);
            Raw* to = raw + u * EACH * THREADS + threadIdx.x;
            if (from.wide && valid >= 8) {
#pragma unroll
                for (int c = 0; c < EACH; ++c) cp_async_16(to + c * THREADS, p + c * (16 / sizeof(E)));
            } else {
                const Eight<E> some = load_eight(p, valid);
#pragma unroll
                for (int c = 0; c < EACH; ++c) to[c * THREADS] = reinterpret_cast<const Raw*>(&some)[c];
            }
        }
    }
    // What arrived, as words of the stage at `to`.
    __device__ static __forceinline__ void keep(Word* to, const Raw* raw) {
        constexpr int EACH = CHUNKS / UNITS;
#pragma unroll
        for (int u = 0; u < UNITS; ++u) {
            const unsigned at = threadIdx.x + u * THREADS;
            Word* place = to + at / PER_LINE * PITCH + at % PER_LINE * 8;
            Eight<E> eight;
#pragma unroll
            for (int c = 0; c < EACH; ++c) reinterpret_cast<Raw*>(&eight)[c] = raw[(u * EACH + c) * THREADS + threadIdx.x];
            if constexpr (sizeof(Word) == 4) {
                auto word = [&](int i) { return to_tf32(element(eight, i)); };
                *reinterpret_cast<uint4*>(place) = make_uint4(word(0), word(1), word(2), word(3));
                *reinterpret_cast<uint4*>(place + 4) = make_uint4(word(4), word(5), word(6), word(7));
            } else {
                float v[8];
#pragma unroll
                for (int i = 0; i < 8; ++i) v[i] = element(eight, i);
#pragma unroll
                for (int p = 0; p < PARTS; ++p) {
                    uint4 words;
                    words.x = Mode::take(v[0], v[1]), words.y = Mode::take(v[2], v[3]);
                    words.z = Mode::take(v[4], v[5]), words.w = Mode::take(v[6], v[7]);
                    *reinterpret_cast<uint4*>(place + p * PART) = words;
                }
            }
        }
    }
    // 16 rows by one STEP of k, as the left operand.
    __device__ static __forceinline__ FragmentA left(const Word* part, int row, int k) {
        const int lane = threadIdx.x % 32;
        FragmentA f;
        if constexpr (ALONG_K)
            ldmatrix_x4(f.r, part + (row + lane % 16) * PITCH + k + lane / 16 * (Mode::STEP / 2));
        else if constexpr (sizeof(Word) == 2)
            ldmatrix_x4_trans(f.r, part + (k + lane / 16 * 8 + lane % 8) * PITCH + row + lane / 8 % 2 * 8);
        else
#pragma unroll
            for (int i = 0; i < 4; ++i) f.r[i] = part[(k + lane % 4 + i / 2 * 4) * PITCH + row + lane / 4 + i % 2 * 8];
        return f;
    }
    // The same of 16 columns, as two right operands.
    __device__ static __forceinline__ void right(FragmentB& first, FragmentB& second, const Word* part, int column, int k) {
        const int lane = threadIdx.x % 32;
        unsigned r[4];
        if constexpr (ALONG_K)
            ldmatrix_x4(r, part + (column + lane / 16 * 8 + lane % 8) * PITCH + k + lane / 8 % 2 * (Mode::STEP / 2));
        else if constexpr (sizeof(Word) == 2)
            ldmatrix_x4_trans(r, part + (k + lane / 8 % 2 * 8 + lane % 8) * PITCH + column + lane / 16 * 8);
        else
#pragma unroll
            for (int i = 0; i < 4; ++i) r[i] = part[(k + lane % 4 + i % 2 * 4) * PITCH + column + lane / 4 + i / 2 * 8];
        first.r[0] = r[0], first.r[1] = r[1], second.r[0] = r[2], second.r[1] = r[3];
    }
};

// The sums of one warp: TILE/2 rows by 32 columns of a TILE x TILE tile that 2 x TILE/32 warps share.
template <int TILE> struct Sums {
    static constexpr int THREADS = 2 * TILE, DOWN = TILE / 32;
    FragmentC c[DOWN][4];
    __device__ static __forceinline__ int row() { return threadIdx.x / TILE * (TILE / 2); }
    __device__ static __forceinline__ int column() { return threadIdx.x / 32 % (TILE / 32) * 32; }
};

// One stage: DEPTH of k.
template <class A, class B, int TILE>
__device__ __forceinline__ void multiply_stage(Sums<TILE>& sum, const typename A::Word* a, const typename A::Word* b) {
    using Mode = typename A::Mode;
#pragma unroll
    for (int k = 0; k < Mode::DEPTH; k += Mode::STEP) {
        FragmentB fb[B::PARTS][4];
#pragma unroll
        for (int p = 0; p < B::PARTS; ++p)
#pragma unroll
            for (int j = 0; j < 4; j += 2) B::right(fb[p][j], fb[p][j + 1], b + p * B::PART, sum.column() + 8 * j, k);
#pragma unroll
        for (int i = 0; i < sum.DOWN; ++i) {
            FragmentA fa[A::PARTS];
#pragma unroll
            for (int p = 0; p < A::PARTS; ++p) fa[p] = A::left(a + p * A::PART, sum.row() + 16 * i, k);
            if constexpr (!Mode::PROMOTE) {
#pragma unroll
                for (int j = 0; j < 4; ++j) Mode::mma(sum.c[i][j], fa[0], fb[0][j]);
            } else {
#pragma unroll
                for (int j0 = 0; j0 < 4; j0 += 2) {
                    FragmentC run[2] = {};
#pragma unroll
                    for (int order = 2; order >= 0; --order)  // part p is 2^-8p of the number: the smallest products first
#pragma unroll
                        for (int p = 0; p <= order; ++p)
                            if (p < A::PARTS && order - p < B::PARTS)
#pragma unroll
                                for (int j = 0; j < 2; ++j) Mode::mma(run[j], fa[p], fb[order - p][j0 + j]);  // two chains side by side
#pragma unroll
                    for (int j = 0; j < 2; ++j)
#pragma unroll
                        for (int e = 0; e < 4; ++e) sum.c[i][j0 + j].v[e] += run[j].v[e];
                }
            }
        }
    }
}

// sum = the tile of a b whose first element is (row0, column0), over k from k_begin to k_end. Uses `shared` from
// its start: two stages of operands, two steps of what is on its way. Afterwards all of it is free.
template <class A, class B, int TILE>
__device__ __forceinline__ void multiply(Sums<TILE>& sum, unsigned char* shared, const Operand<typename A::E>& a,
                                         const Operand<typename B::E>& b, unsigned row0, unsigned column0, unsigned k_begin, unsigned k_end) {
    constexpr int STAGE = A::SIZE + B::SIZE, RAW = A::RAW + B::RAW, DEPTH = A::Mode::DEPTH;
    auto* const stages = reinterpret_cast<typename A::Word*>(shared);
    auto* const raws = reinterpret_cast<uint4*>(stages + 2 * STAGE);
#pragma unroll
    for (int i = 0; i < sum.DOWN; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum.c[i][j] = {};
    const unsigned steps = (k_end - k_begin + DEPTH - 1) / DEPTH;
    auto fetch = [&](unsigned step) {
        if (step < steps) {
            A::fetch(raws + step % 2 * RAW, a, row0, k_begin + step * DEPTH, k_end);
            B::fetch(raws + step % 2 * RAW + A::RAW, b, column0, k_begin + step * DEPTH, k_end);
        }
        cp_async_commit();  // empty at the end, so that the count of the wait holds
    };
    auto keep = [&](unsigned step) {
        cp_async_wait<1>();  // all but the newest step are there
        A::keep(stages + step % 2 * STAGE, raws + step % 2 * RAW);
        B::keep(stages + step % 2 * STAGE + A::SIZE, raws + step % 2 * RAW + A::RAW);
    };
    fetch(0), fetch(1);
    if (steps) keep(0);
    __syncthreads();  // the first stage is there
#pragma unroll 1
    for (unsigned step = 0; step < steps; ++step) {
        fetch(step + 2);
        const auto* const stage = stages + step % 2 * STAGE;
        multiply_stage<A, B>(sum, stage, stage + A::SIZE);
        if (step + 1 < steps) keep(step + 1);
        __syncthreads();  // the next stage is there, and this one may be overwritten
    }
}

// Columns of the tile in shared memory that `each_four` takes: a row is 16 bytes longer than its columns.
template <int TILE> constexpr int RESULT_PITCH = TILE + 4;

// Calls f(row, column, four) for every four columns of 64 rows in shared memory, where they lie inside m x n.
template <int TILE, class F>
__device__ __forceinline__ void each_four(const float* tile, unsigned row0, unsigned column0, unsigned m, unsigned n, F f) {
#pragma unroll 1
    for (int at = threadIdx.x; at < 64 * TILE / 4; at += 2 * TILE) {
        const int r = at / (TILE / 4), c = at % (TILE / 4) * 4;
        if (row0 + r < m && column0 + c < n) f(row0 + r, column0 + c, *reinterpret_cast<const float4*>(tile + r * RESULT_PITCH<TILE> + c));
    }
}
// The same for the sums of all warps, by way of `shared`: 64 rows at a time.
template <int TILE, class F>
__device__ __forceinline__ void each_four(const Sums<TILE>& sum, float* shared, unsigned row0, unsigned column0, unsigned m, unsigned n, F f) {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int pass = 0; pass < TILE; pass += 64) {
        if (sum.row() / 64 * 64 == pass)
#pragma unroll
            for (int i = 0; i < sum.DOWN; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float* to = shared + (sum.row() - pass + 16 * i + lane / 4) * RESULT_PITCH<TILE> + sum.column() + 8 * j + lane % 4 * 2;
                    *reinterpret_cast<float2*>(to) = make_float2(sum.c[i][j].v[0], sum.c[i][j].v[1]);
                    *reinterpret_cast<float2*>(to + 8 * RESULT_PITCH<TILE>) = make_float2(sum.c[i][j].v[2], sum.c[i][j].v[3]);
                }
        __syncthreads();  // the rows are there
        each_four<TILE>(shared, row0 + pass, column0, m, n, f);
        __syncthreads();  // and have been read, before the next ones come
    }
}

// Up to four columns of a row of n, in one store where the width allows.
__device__ __forceinline__ void store_four(float* c, unsigned n, unsigned row, unsigned column, const float4& v) {
    float* to = c + (size_t)row * n + column;
    if (n % 4 == 0) {
        *reinterpret_cast<float4*>(to) = v;
        return;
    }
    to[0] = v.x;
    if (column + 1 < n) to[1] = v.y;
    if (column + 2 < n) to[2] = v.z;
    if (column + 3 < n) to[3] = v.w;
}
}  // namespace matmul
