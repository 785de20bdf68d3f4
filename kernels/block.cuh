// Cross-thread idioms: sums, maxima, scans and softmax over a warp and over a block; 16-byte loads and stores.
// Blocks are one-dimensional and of whole warps (at most 32), and all their threads call; a warp's 32 lanes all call.
// Every order is fixed, so results are the same bits from run to run, and the same in every thread that gets them.
#pragma once
#include "device.cuh"

constexpr unsigned WARP_ALL = 0xffffffffu;
constexpr int MOST_WARPS = 32;

// ---- what is folded: numbers, two numbers at once, and the running maximum and sum of a softmax ----
template <class T> struct Pair {
    T first, second;
};
template <class T> __device__ __forceinline__ Pair<T> operator+(Pair<T> a, Pair<T> b) { return {a.first + b.first, a.second + b.second}; }

// sum = sum of exp(x - max) over the x seen so far. Of no x: {-inf, 0}. A NaN goes into the sum.
struct MaxSum {
    float max, sum;
};
__device__ __forceinline__ MaxSum max_sum_of_none() { return {-INFINITY, 0.f}; }
__device__ __forceinline__ MaxSum max_sum_of(float x) { return {x, x == -INFINITY ? 0.f : 1.f + (x - x)}; }
// Symmetric to the last bit, as lanes of a butterfly need it: products are rounded, never fused with the addition.
__device__ __forceinline__ MaxSum merged(MaxSum a, MaxSum b) {
    const float m = fmaxf(a.max, b.max);
    if (m == -INFINITY) return {m, a.sum + b.sum};
    return {m, __fadd_rn(__fmul_rn(a.sum, expf(a.max - m)), __fmul_rn(b.sum, expf(b.max - m)))};
}

struct Add {
    template <class T> __device__ __forceinline__ static T of(T a, T b) { return a + b; }
    template <class T> __device__ __forceinline__ static T neutral(T) { return T{}; }
};
struct Max {  // of floats: a NaN is passed over, as fmaxf does
    __device__ __forceinline__ static float of(float a, float b) { return fmaxf(a, b); }
    __device__ __forceinline__ static double of(double a, double b) { return fmax(a, b); }
    __device__ __forceinline__ static int of(int a, int b) { return a > b ? a : b; }
    __device__ __forceinline__ static unsigned of(unsigned a, unsigned b) { return a > b ? a : b; }
    template <class T> __device__ __forceinline__ static T neutral(T any) { return any; }  // one of them once more
};
struct Merge {
    __device__ __forceinline__ static MaxSum of(MaxSum a, MaxSum b) { return merged(a, b); }
    __device__ __forceinline__ static MaxSum neutral(MaxSum) { return max_sum_of_none(); }
};

// ---- exchange between lanes, for structs too ----
template <class T> __device__ __forceinline__ T from_lane_xor(T v, int bits HERE_) { return __shfl_xor_sync(WARP_ALL, v, bits, 32 THERE_); }
template <class T> __device__ __forceinline__ Pair<T> from_lane_xor(Pair<T> v, int bits HERE_) {
    return {from_lane_xor(v.first, bits THERE_), from_lane_xor(v.second, bits THERE_)};
}
__device__ __forceinline__ MaxSum from_lane_xor(MaxSum v, int bits HERE_) {
    return {from_lane_xor(v.max, bits THERE_), from_lane_xor(v.sum, bits THERE_)};
}
template <class T> __device__ __forceinline__ T from_lane_below(T v, int lanes HERE_) { return __shfl_up_sync(WARP_ALL, v, lanes, 32 THERE_); }
template <class T> __device__ __forceinline__ Pair<T> from_lane_below(Pair<T> v, int lanes HERE_) {
    return {from_lane_below(v.first, lanes THERE_), from_lane_below(v.second, lanes THERE_)};
}

// ---- a warp: every lane gets the result ----
// Of 2, 4, 8, 16 or 32 neighbouring lanes.
template <class Op, int LANES = 32, class T> __device__ __forceinline__ T warp_fold(T v HERE_) {
#pragma unroll
    for (int bits = LANES / 2; bits > 0; bits /= 2) v = Op::of(v, from_lane_xor(v, bits THERE_));
    return v;
}
template <class T> __device__ __forceinline__ T warp_sum(T v HERE_) { return warp_fold<Add>(v THERE_); }
template <class T> __device__ __forceinline__ T warp_max(T v HERE_) { return warp_fold<Max>(v THERE_); }
__device__ __forceinline__ MaxSum warp_merge(MaxSum v HERE_) { return warp_fold<Merge>(v THERE_); }
// Lane i gets the sum of lanes 0 to i.
template <class T> __device__ __forceinline__ T warp_inclusive_scan(T v HERE_) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const T below = from_lane_below(v, step THERE_);
        if (lane >= step) v = below + v;
    }
    return v;
}

// ---- a block: every thread gets the result. Scratch memory is their own; calls may follow each other at once ----
template <class Op, class T> __device__ __forceinline__ T block_fold(T v HERE_) {
    __shared__ T partial[MOST_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = warp_fold<Op>(v THERE_);
    __syncthreads(THERE_ONLY_);  // partial[] may still be read from the call before
    if (lane == 0) partial[warp] = v;
    __syncthreads(THERE_ONLY_);  // every warp's part is there
    return warp_fold<Op>(lane < warps ? partial[lane] : Op::neutral(partial[0]) THERE_);
}
template <class T> __device__ __forceinline__ T block_sum(T v HERE_) { return block_fold<Add>(v THERE_); }
template <class T> __device__ __forceinline__ T block_max(T v HERE_) { return block_fold<Max>(v THERE_); }
__device__ __forceinline__ MaxSum block_merge(MaxSum v HERE_) { return block_fold<Merge>(v THERE_); }
// N sums for the two barriers of one.
template <int N, class T> __device__ __forceinline__ void block_sums(T (&v)[N] HERE_) {
    __shared__ T partial[N][MOST_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = warp_sum(v[i] THERE_);
    __syncthreads(THERE_ONLY_);  // partial[] may still be read from the call before
    if (lane == 0) {
#pragma unroll
        for (int i = 0; i < N; ++i) partial[i][warp] = v[i];
    }
    __syncthreads(THERE_ONLY_);  // every warp's parts are there
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = warp_sum(lane < warps ? partial[i][lane] : T{} THERE_);
}
// Thread i gets the sum of threads 0 to i, and all get the total: with a carry, one block scans a long row in pieces.
template <class T> __device__ __forceinline__ T block_inclusive_scan(T v, T& total HERE_) {
    __shared__ T whole[MOST_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = warp_inclusive_scan(v THERE_);
    __syncthreads(THERE_ONLY_);  // whole[] may still be read from the call before
    if (lane == 31) whole[warp] = v;
    __syncthreads(THERE_ONLY_);  // every warp's total is there
    T before{};
    total = T{};
    for (int w = 0; w < warps; ++w) {  // the same order in every thread
        if (w == warp) before = total;
        total = total + whole[w];
    }
    return warp == 0 ? v : before + v;
}

// ---- numbers as they are stored, and floats ----
__device__ __forceinline__ float widened(float v) { return v; }
__device__ __forceinline__ float widened(__half v) { return __half2float(v); }
__device__ __forceinline__ float widened(__nv_bfloat16 v) { return __bfloat162float(v); }
template <class T> __device__ __forceinline__ T narrowed(float v);  // to nearest, ties to even
template <> __device__ __forceinline__ float narrowed<float>(float v) { return v; }
template <> __device__ __forceinline__ __half narrowed<__half>(float v) { return __float2half_rn(v); }
template <> __device__ __forceinline__ __nv_bfloat16 narrowed<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }

// 16 bytes of a row in registers: 4 floats, or 8 numbers of 16 bits as they are stored.
template <class T> struct Vec {
    static constexpr int SIZE = 16 / sizeof(T);
    union Bits {
        uint4 whole;
        unsigned words[4];
    } bits;

    // Whether each row of `width` elements starts at a multiple of 16 bytes. The same for a whole launch: ask once.
    __device__ __forceinline__ static bool fits(const T* rows, size_t width) {
        return width % SIZE == 0 && reinterpret_cast<size_t>(rows) % 16 == 0;
    }
    // From a multiple of 16 bytes.
    __device__ __forceinline__ static Vec load(const T* p HERE_) {
#ifndef __CUDACC__
        if (reinterpret_cast<size_t>(p) % 16) emu::fail("a 16-byte load from elsewhere than a multiple of 16 bytes", at);
#endif
        Vec r;
        r.bits.whole = __ldg(reinterpret_cast<const uint4*>(p));
        return r;
    }
    // p[0] to p[count - 1], from anywhere, and zeros: rows that do not fit, and what is left at the end of a row.
    __device__ __forceinline__ static Vec load_some(const T* p, int count) {
        Vec r;
        r.bits.whole = make_uint4(0u, 0u, 0u, 0u);
#pragma unroll
        for (int i = 0; i < SIZE; ++i)
            if (i < count) r.set(i, __ldg(p + i));
        return r;
    }
    // Elements i to i + SIZE - 1 of a row of n, and zeros past its end; `aligned` as `fits` says.
    __device__ __forceinline__ static Vec load(const T* row, size_t i, size_t n, bool aligned HERE_) {
        if (aligned && i < n) return load(row + i THERE_);
        return load_some(row + i, i + SIZE <= n ? SIZE : i < n ? int(n - i) : 0);
    }
    // To a multiple of 16 bytes.
    __device__ __forceinline__ void store(T* p HERE_) const {
#ifndef __CUDACC__
        if (reinterpret_cast<size_t>(p) % 16) emu::fail("a 16-byte store to elsewhere than a multiple of 16 bytes", at);
#endif
        *reinterpret_cast<uint4*>(p) = bits.whole;
    }
    __device__ __forceinline__ void store_some(T* p, int count) const {
#pragma unroll
        for (int i = 0; i < SIZE; ++i)
            if (i < count) p[i] = stored(i);
    }
    __device__ __forceinline__ void store(T* row, size_t i, size_t n, bool aligned HERE_) const {
        if (aligned && i < n) return store(row + i THERE_);
        store_some(row + i, i + SIZE <= n ? SIZE : i < n ? int(n - i) : 0);
    }

    // Element i, which a loop that is unrolled must give: the words are registers.
    __device__ __forceinline__ T stored(int i) const;
    __device__ __forceinline__ void set(int i, T v);
    __device__ __forceinline__ float operator[](int i) const { return widened(stored(i)); }
    __device__ __forceinline__ void set_rounded(int i, float v) { set(i, narrowed<T>(v)); }
};
namespace vec_ {
__device__ __forceinline__ unsigned short half_word(const unsigned (&w)[4], int i) { return (unsigned short)(w[i / 2] >> 16 * (i % 2)); }
__device__ __forceinline__ void set_half_word(unsigned (&w)[4], int i, unsigned short v) {
    w[i / 2] = i % 2 ? (w[i / 2] & 0xffffu) | (unsigned)v << 16 : (w[i / 2] & 0xffff0000u) | v;
}
}  // namespace vec_
template <> __device__ __forceinline__ float Vec<float>::stored(int i) const { return __uint_as_float(bits.words[i]); }
template <> __device__ __forceinline__ void Vec<float>::set(int i, float v) { bits.words[i] = __float_as_uint(v); }
template <> __device__ __forceinline__ __half Vec<__half>::stored(int i) const { return __ushort_as_half(vec_::half_word(bits.words, i)); }
template <> __device__ __forceinline__ void Vec<__half>::set(int i, __half v) { vec_::set_half_word(bits.words, i, __half_as_ushort(v)); }
template <> __device__ __forceinline__ __nv_bfloat16 Vec<__nv_bfloat16>::stored(int i) const { return __ushort_as_bfloat16(vec_::half_word(bits.words, i)); }
template <> __device__ __forceinline__ void Vec<__nv_bfloat16>::set(int i, __nv_bfloat16 v) { vec_::set_half_word(bits.words, i, __bfloat16_as_ushort(v)); }
