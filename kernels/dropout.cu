// Dropout, forward and backward: an affine map of the kept elements, one number for the others.
// Page: src/ops/dropout/mod.rs.
// One thread, 4 x 4 neighbouring elements: four words of Philox and 16 bytes at a time. A block first looks for the bags
// of its 4096 elements, mostly one. Floor: 8 bytes an element.
#include "block.cuh"
#include "philox.cuh"

// The last bag of low to high that starts at or before element e: the one that holds it.
__device__ __forceinline__ unsigned bag_of(const unsigned* __restrict__ offset, size_t columns, size_t e, unsigned low, unsigned high) {
    while (low < high) {
        const unsigned middle = low + (high - low + 1) / 2;
        if (offset[middle] * columns <= e) low = middle;
        else high = middle - 1;
    }
    return low;
}

// The words first to first + 3. Those of two blocks are shifted into place: an index would put them into memory.
__device__ __forceinline__ onkos::Words words_from(onkos::Stream stream, unsigned long long first) {
    const onkos::Word block = onkos::Word(first >> 2);
    onkos::Words w = stream.block(block);
    if (first % 4) {
        const onkos::Words next = stream.block(block + 1);
        onkos::Word all[8] = {w.word[0], w.word[1], w.word[2], w.word[3], next.word[0], next.word[1], next.word[2], next.word[3]};
#pragma unroll
        for (int i = 0; i < 6; ++i) all[i] = first & 2 ? all[i + 2] : all[i];
#pragma unroll
        for (int i = 0; i < 4; ++i) w.word[i] = first & 1 ? all[i + 1] : all[i];
    }
    return w;
}

extern "C" __global__ void __launch_bounds__(256, 1)
dropout_map(const float* __restrict__ x, const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patient,
            float* __restrict__ y, unsigned long long n, unsigned int bags, unsigned int columns, unsigned int threshold,
            float scale, float shift, float dropped, unsigned long long seed, unsigned int epoch, unsigned int purpose) {
    constexpr int ROUNDS = 4;
    const size_t begin = (size_t)blockIdx.x * (4 * ROUNDS * 256), end = begin + 4 * ROUNDS * 256 < n ? begin + 4 * ROUNDS * 256 : n;
    const unsigned low = bag_of(offset, columns, begin, 0, bags - 1), high = bag_of(offset, columns, end - 1, low, bags - 1);
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const size_t e = begin + 4 * (round * 256 + threadIdx.x);
        if (e >= end) return;
        const bool whole = e + 4 <= n;  // all but the last of an odd number
        Vec<float> v = Vec<float>::load(x, e, n, whole);
        unsigned bag = bag_of(offset, columns, e, low, high);
        size_t start = offset[bag] * (size_t)columns, stop = offset[bag + 1] * (size_t)columns;
        const onkos::Words w = words_from({seed, patient[bag], epoch, purpose}, e - start);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            onkos::Word word = w.word[i];
            if (e + i >= stop && e + i < end) {  // a bag of no multiple of four elements has ended
                bag = bag_of(offset, columns, e + i, bag, high);
                start = offset[bag] * (size_t)columns;
                word = words_from({seed, patient[bag], epoch, purpose}, e + i - start).word[0];
            }
            v.set(i, word >> 8 >= threshold ? scale * v[i] + shift : dropped);
        }
        v.store(y, e, n, whole);
    }
}
