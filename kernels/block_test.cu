// Checks block.cuh against loops by one thread. The same kernel must pass on a card.
// Page: kernels/block.cuh.
// One block of 32 to 1024 threads, whole warps. *failed_line is the highest line whose check failed; `scratch` holds
// 2048 doubles, `out` 64 floats.
#include "block.cuh"
#define CHECK(condition) do { if (!(condition)) atomicMax(failed_line, __LINE__); } while (0)

// What thread i brings: small integers, so that sums in any order are exact, and the maximum is negative.
__device__ __forceinline__ int brought(int i) { return (i * 7 + i / 32 * 5) % 23 - 30; }

__device__ __forceinline__ void of_a_warp(int* failed_line) {
    const int lane = threadIdx.x % 32;
    int sum = 0, largest = brought(0), eight = 0;
    for (int i = 0; i < 32; ++i) {
        sum += brought(i), largest = brought(i) > largest ? brought(i) : largest;
        if (i / 8 == lane / 8) eight += brought(i);
    }
    const int mine = brought(lane);
    CHECK(warp_sum((float)mine) == sum && warp_sum((double)mine) == sum && warp_sum(mine) == sum);
    CHECK(warp_max((float)mine) == largest && warp_max((double)mine) == largest && warp_max(mine) == largest);
    CHECK(warp_max((unsigned)lane) == 31);
    CHECK((warp_fold<Add, 8>(mine)) == eight);
    const Pair<float> two = warp_sum(Pair<float>{(float)mine, 1.f});
    CHECK(two.first == sum && two.second == 32);
    int before = 0;
    for (int i = 0; i <= lane; ++i) before += brought(i);
    CHECK(warp_inclusive_scan((float)mine) == before && warp_inclusive_scan((double)mine) == before);
    const Pair<double> scanned = warp_inclusive_scan(Pair<double>{(double)mine, 1.0});
    CHECK(scanned.first == before && scanned.second == lane + 1);
}

__device__ __forceinline__ void of_a_block(int* failed_line, double* scratch) {
    const int me = threadIdx.x, threads = blockDim.x;
    int sum = 0, largest = brought(0), before = 0;
    for (int i = 0; i < threads; ++i) {
        sum += brought(i), largest = brought(i) > largest ? brought(i) : largest;
        if (i <= me) before += brought(i);
    }
    // One after the other, with nothing between: each has to wait for the readers of the one before.
    for (int round = 0; round < 4; ++round) {
        CHECK(block_sum((float)(brought(me) + round)) == sum + round * threads);
        CHECK(block_sum((double)brought(me) * round) == (double)sum * round);
    }
    CHECK(block_max((float)brought(me)) == largest && block_max((double)brought(me)) == largest);
    CHECK(block_max(me == threads - 1 ? 5.f : -INFINITY) == 5.f && block_max(-INFINITY) == -INFINITY);
    float sums[3] = {(float)brought(me), 1.f, (float)(me % 2)};
    for (int round = 0; round < 3; ++round) {
        block_sums(sums);
        CHECK(sums[0] == sum && sums[1] == threads && sums[2] == threads / 2);
        sums[0] = (float)brought(me), sums[1] = 1.f, sums[2] = (float)(me % 2);
    }
    for (int round = 0; round < 3; ++round) {
        double total;
        CHECK(block_inclusive_scan((double)brought(me), total) == before && total == sum);
        Pair<float> totals;
        const Pair<float> at = block_inclusive_scan(Pair<float>{(float)brought(me), 1.f}, totals);
        CHECK(at.first == before && at.second == me + 1 && totals.first == sum && totals.second == threads);
    }
    // Numbers whose sums do depend on the order: every thread must still get the same bits.
    const double rough = 1.0 / (me + 3);
    scratch[me] = block_sum(rough), scratch[1024 + me] = (double)block_merge(max_sum_of((float)rough)).sum;
    __syncthreads();  // every thread's result is there
    for (int i = 0; i < threads; ++i) CHECK(scratch[i] == scratch[0] && scratch[1024 + i] == scratch[1024]);
}

__device__ __forceinline__ void of_softmax(int* failed_line) {
    const int me = threadIdx.x, threads = blockDim.x;
    const float x = (float)brought(me) * 3.f;
    const MaxSum all = block_merge(me % 5 ? max_sum_of(x) : max_sum_of_none());
    float largest = -INFINITY;
    double sum = 0;
    for (int i = 0; i < threads; ++i) if (i % 5) largest = fmaxf(largest, (float)brought(i) * 3.f);
    for (int i = 0; i < threads; ++i) if (i % 5) sum += exp((double)brought(i) * 3.0 - largest);
    CHECK(all.max == largest && fabs(all.sum / sum - 1) < 1e-5);
    const MaxSum none = block_merge(max_sum_of_none());
    CHECK(none.max == -INFINITY && none.sum == 0.f);
    const MaxSum hidden = block_merge(max_sum_of(me == 3 ? -INFINITY : x));
    CHECK(hidden.max >= largest && hidden.sum >= 1.f);
    const MaxSum nan = block_merge(max_sum_of(me == 1 ? NAN : x));
    CHECK(nan.sum != nan.sum);
    CHECK(warp_merge(max_sum_of(2.f)).sum == 32.f);
}

template <class T> __device__ __forceinline__ void of_sixteen_bytes(int* failed_line, T* memory) {
    constexpr int SIZE = Vec<T>::SIZE, ROW = 4 * SIZE;
    const int me = threadIdx.x;
    __syncthreads();  // the check before this one still reads
    if (me < ROW) memory[me] = narrowed<T>((float)me - 7.5f);
    __syncthreads();  // all of the row is there
    CHECK(Vec<T>::fits(memory, ROW) && !Vec<T>::fits(memory + 1, ROW) && !Vec<T>::fits(memory, ROW - 1));
    for (int n = 0; n <= ROW; ++n)
        for (int i = 0; i < ROW; i += SIZE) {
            const Vec<T> v = Vec<T>::load(memory, i, n, n % SIZE == 0);
#pragma unroll
            for (int j = 0; j < SIZE; ++j) CHECK(v[j] == (i + j < n ? (float)(i + j) - 7.5f : 0.f));
        }
    __syncthreads();  // nobody reads the row any more
    const int part = me * SIZE, n = 3 * SIZE + 1;
    if (part < ROW) {
        Vec<T> v = Vec<T>::load(memory, part, ROW, true);
#pragma unroll
        for (int j = 0; j < SIZE; ++j) v.set_rounded(j, v[j] * 2.f);
        v.store(memory, part, me == 3 ? n : ROW, me != 3);  // the last one element alone
    }
    __syncthreads();  // the row is written anew
    if (me < ROW) CHECK(widened(memory[me]) == ((float)me - 7.5f) * (me < n ? 2.f : 1.f));
    CHECK(widened(narrowed<T>(0.5f)) == 0.5f);
}

extern "C" __global__ void __launch_bounds__(1024) block_test(int* failed_line, double* scratch, float* out) {
    of_a_warp(failed_line);
    of_a_block(failed_line, scratch);
    of_softmax(failed_line);
    of_sixteen_bytes(failed_line, out);
    of_sixteen_bytes(failed_line, reinterpret_cast<__half*>(out));
    of_sixteen_bytes(failed_line, reinterpret_cast<__nv_bfloat16*>(out));
}
