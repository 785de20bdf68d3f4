// Element-wise sums.
// Page: src/ops/add/mod.rs.
// One thread, four neighbouring elements: 16-byte accesses, the last thread one by one.
#include "device.cuh"

// Memory starts on 256 bytes, so a multiple of four elements is on 16.
extern "C" __global__ void add_forward(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ y,
                                       unsigned long long n) {
    const size_t first = 4 * ((size_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (first + 4 <= n) {
        const float4 u = *reinterpret_cast<const float4*>(a + first), v = *reinterpret_cast<const float4*>(b + first);
        *reinterpret_cast<float4*>(y + first) = make_float4(u.x + v.x, u.y + v.y, u.z + v.z, u.w + v.w);
    } else {
        for (size_t i = first; i < n; ++i) y[i] = a[i] + b[i];
    }
}

extern "C" __global__ void add_accumulate(const float* __restrict__ x, float* __restrict__ sum, unsigned long long n) {
    const size_t first = 4 * ((size_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (first + 4 <= n) {
        const float4 u = *reinterpret_cast<const float4*>(x + first);
        float4* const to = reinterpret_cast<float4*>(sum + first);
        const float4 v = *to;
        *to = make_float4(v.x + u.x, v.y + u.y, v.z + u.z, v.w + u.w);
    } else {
        for (size_t i = first; i < n; ++i) sum[i] += x[i];
    }
}
