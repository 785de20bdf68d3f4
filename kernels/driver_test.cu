// Kernels that emulator/selftest.cpp launches to see what the driver makes of them: right ones and wrong ones.
// Page: emulator/README.md.
// One thread does the work.
#include "device.cuh"

// Writes one element, inside of memory or not.
extern "C" __global__ void __launch_bounds__(64) selftest_set(float* memory, float v, unsigned long long i) {
    if (threadIdx.x == 0) memory[i] = v;
}
extern "C" __global__ void selftest_move(const float* __restrict__ from, float* __restrict__ to) {
    if (threadIdx.x == 0) *to = *from;
}
// One warp waits for the other, which never comes: the emulator says so, a card would hang. Never launched there.
extern "C" __global__ void selftest_stuck(float* memory) {
    if (threadIdx.x < 32) __syncthreads();  // the hazard is this barrier itself
    else __syncwarp(1u);
    *memory = 1.f;
}
// One warp writes what another reads, and no barrier orders them: on a card it may pass, ThreadSanitizer must name the line.
extern "C" __global__ void __launch_bounds__(64) selftest_race(float* memory) {
    __shared__ float word;
    if (threadIdx.x == 32) word = 1.f;
    if (threadIdx.x == 0) *memory = word;
}
