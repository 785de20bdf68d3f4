// matmul_cublaslt: what products by cuBLASLt need around them: factors in the type that it takes, bias and activation.
// Page: src/ops/linear/mod.rs. A thread for eight numbers of a copy, or for four of a result. Floors on an H200, 1M rows:
// f32 to bf16, 1024 columns, 6.1 GB at 4.3 TB/s 1.4 ms; bias and relu of 512 columns in place 4.1 GB, 1.0 ms.
#include "activation.cuh"
#include "block.cuh"
#include "matmul.cuh"

namespace {
// Eight numbers at p, which is a multiple of eight numbers from the start of a tensor or of a row that is one.
template <class E> __device__ __forceinline__ matmul::Eight<E> eight(const E* p, size_t valid, bool wide) {
    if (!wide || valid < 8) return matmul::load_eight(p, valid < 8 ? (unsigned)valid : 8u);
    matmul::Eight<E> e;
#pragma unroll
    for (int i = 0; i < 8; i += Vec<E>::SIZE) reinterpret_cast<uint4*>(&e)[i / Vec<E>::SIZE] = Vec<E>::load(p + i).bits.whole;
    return e;
}
// to [rows, pitch] = from [rows, columns], rounded, zeros behind the columns; pitch is a multiple of eight, less than eight more.
template <class H, class F> __device__ __forceinline__ void to_narrow(const F* from, H* to, unsigned rows, unsigned columns, unsigned pitch) {
    const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 8;
    if (i >= (size_t)rows * pitch) return;
    const size_t row = i / pitch;
    const unsigned column = (unsigned)(i - row * pitch);
    const matmul::Eight<F> e = eight(from + row * columns + column, columns - column, columns % 8 == 0);
    Vec<H> v;
#pragma unroll
    for (int j = 0; j < 8; ++j) v.set_rounded(j, matmul::element(e, j));
    v.store(to + i);
}
template <class F> __device__ __forceinline__ void widen(const F* from, float* to, size_t size) {
    const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 8;
    if (i >= size) return;
    const size_t valid = size - i;
    const matmul::Eight<F> e = eight(from + i, valid, true);
#pragma unroll
    for (int j = 0; j < 8; j += 4) {
        if (valid >= j + 4u) {
            *reinterpret_cast<float4*>(to + i + j) =
                make_float4(matmul::element(e, j), matmul::element(e, j + 1), matmul::element(e, j + 2), matmul::element(e, j + 3));
        } else
#pragma unroll
            for (int k = j; k < j + 4; ++k)
                if ((unsigned)k < valid) to[i + k] = matmul::element(e, k);
    }
}
}  // namespace

#define TO_NARROW(name, F, H)                                                                                                             \
    extern "C" __global__ void __launch_bounds__(256)                                                                                     \
    name(const F* __restrict__ from, H* __restrict__ to, unsigned int rows, unsigned int columns, unsigned int pitch) {                   \
        to_narrow<H>(from, to, rows, columns, pitch);                                                                                         \
    }
TO_NARROW(matmul_cublaslt_to_bf16_f32, float, __nv_bfloat16)
TO_NARROW(matmul_cublaslt_to_bf16_f16, __half, __nv_bfloat16)
TO_NARROW(matmul_cublaslt_to_bf16_bf16, __nv_bfloat16, __nv_bfloat16)
TO_NARROW(matmul_cublaslt_to_f16_f32, float, __half)
TO_NARROW(matmul_cublaslt_to_f16_f16, __half, __half)
TO_NARROW(matmul_cublaslt_to_f16_bf16, __nv_bfloat16, __half)

extern "C" __global__ void __launch_bounds__(256) matmul_cublaslt_to_f32_f16(const __half* __restrict__ from, float* __restrict__ to, unsigned long long size) {
    widen(from, to, size);
}
extern "C" __global__ void __launch_bounds__(256) matmul_cublaslt_to_f32_bf16(const __nv_bfloat16* __restrict__ from, float* __restrict__ to, unsigned long long size) {
    widen(from, to, size);
}

// y = f(y + bias), of `size` numbers in rows of `columns`; the argument of f too, if it is wanted.
extern "C" __global__ void __launch_bounds__(256) matmul_cublaslt_end(const float* __restrict__ bias, float* __restrict__ y, float* __restrict__ argument,
    unsigned long long size, unsigned int columns, unsigned int function) {
    const size_t i = ((size_t)blockIdx.x * 256 + threadIdx.x) * 4;
    if (i >= size) return;
    const int valid = size - i < 4 ? (int)(size - i) : 4;
    Vec<float> v = valid == 4 ? Vec<float>::load(y + i) : Vec<float>::load_some(y + i, valid);
    if (bias) {
        // A division of 64 bits costs what all the rest does.
        unsigned column = size >> 32 ? (unsigned)(i % columns) : (unsigned)i % columns;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            v.set(j, v[j] + bias[column]);
            column = column + 1 == columns ? 0 : column + 1;
        }
    }
    Vec<float> f;
#pragma unroll
    for (int j = 0; j < 4; ++j) f.set(j, activation::value(function, v[j]));
    if (valid == 4) {
        if (argument) v.store(argument + i);
        f.store(y + i);
    } else {
        if (argument) v.store_some(argument + i, valid);
        f.store_some(y + i, valid);
    }
}
