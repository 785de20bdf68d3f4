// The draws of CADE: for each bag the first of its donors in the order of their words, and the shares of receivers.
// Page: src/ops/cade/mod.rs.
// One thread, four words or one token; block (b, c) has a stretch of bag b.
// Words are spread over buckets by their upper bits, which Philox fills evenly, so each holds about 16; inside one, a
// token's place is the number of those before it. That depends on the words alone: who came first to a bucket does not
// show. Buckets that start behind the last donor that is needed are left alone.
#include "tokens.cuh"

constexpr unsigned FULL = 16;  // words that a bucket holds on average

// The buckets of a bag; one more number behind them is where the last ends.
struct Buckets {
    size_t first;
    unsigned count;
    __device__ __forceinline__ Buckets(const unsigned* offset, unsigned bag)
        : first(offset[bag] / FULL + 2 * (size_t)bag), count((offset[bag + 1] - offset[bag]) / FULL + 1) {}
    // Does not decrease with the word.
    __device__ __forceinline__ size_t of(unsigned word) const { return first + __umulhi(word, count); }
};

// Calls f(token, word) for the living among four tokens of a bag.
template <class F>
__device__ __forceinline__ void four_words(unsigned start, unsigned n, const unsigned char* keep,
                                           const onkos::Stream& stream, F f) {
    const unsigned i = 4 * (blockIdx.y * blockDim.x + threadIdx.x);
    if (i >= n) return;
    const onkos::Words w = stream.block(i / 4);
#pragma unroll
    for (unsigned e = 0; e < 4; ++e)
        if (i + e < n && (!keep || keep[(size_t)start + i + e])) f(i + e, w.word[e]);
}

// How many words fall in each bucket. `gates` has the bags that mix if their donors live.
extern "C" __global__ void __launch_bounds__(128)
cade_count(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patients,
           const unsigned char* __restrict__ gates, const unsigned char* __restrict__ keep,
           unsigned int* __restrict__ counts, unsigned int /*rows*/, unsigned int /*bags*/, unsigned int /*buckets*/,
           unsigned long long seed, unsigned int epoch, unsigned int purpose) {
    const unsigned bag = blockIdx.x, start = offset[bag];
    if (!gates[bag]) return;
    const Buckets in(offset, bag);
    four_words(start, offset[bag + 1] - start, keep, onkos::Stream{seed, patients[bag], epoch, purpose},
               [&](unsigned, unsigned word) { atomicAdd(counts + in.of(word), 1u); });
}

// One block a bag: where each bucket starts, how many donors live, and the end of the last bucket that is needed. The
// counts are zeros afterwards.
extern "C" __global__ void __launch_bounds__(256)
cade_scan(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ receivers,
          const unsigned char* __restrict__ gates, unsigned int* __restrict__ counts, unsigned int* __restrict__ starts,
          unsigned char* __restrict__ active, unsigned int* __restrict__ alive, unsigned int* __restrict__ limit,
          unsigned int /*bags*/, unsigned int /*buckets*/) {
    const unsigned bag = blockIdx.x;
    if (!gates[bag]) {
        if (threadIdx.x == 0) active[bag] = 0, alive[bag] = 0, limit[bag] = 0;
        return;
    }
    const Buckets in(offset, bag);
    const unsigned needed = receivers[bag + 1] - receivers[bag];
    unsigned before = 0, last = 0;
    for (unsigned first = 0; first < in.count; first += blockDim.x) {
        const unsigned b = first + threadIdx.x, here = b < in.count ? counts[in.first + b] : 0;
        unsigned total;
        const unsigned end = before + block_inclusive_scan(here, total);
        if (b < in.count) {
            starts[in.first + b] = end - here;
            counts[in.first + b] = 0;
            if (end - here < needed) last = end;
        }
        before += total;
    }
    last = block_max(last);
    if (threadIdx.x > 0) return;
    starts[in.first + in.count] = before;
    active[bag] = before > 0, alive[bag] = before, limit[bag] = last;
}

// The words and tokens of the buckets that are needed, in any order inside a bucket.
extern "C" __global__ void __launch_bounds__(128)
cade_scatter(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ receivers,
             const unsigned int* __restrict__ patients, const unsigned char* __restrict__ gates,
             const unsigned char* __restrict__ keep, const unsigned int* __restrict__ starts,
             unsigned int* __restrict__ counts, unsigned int* __restrict__ words, unsigned int* __restrict__ tokens,
             unsigned int /*rows*/, unsigned int /*bags*/, unsigned int /*buckets*/, unsigned long long seed,
             unsigned int epoch, unsigned int purpose) {
    const unsigned bag = blockIdx.x, start = offset[bag];
    if (!gates[bag]) return;
    const Buckets in(offset, bag);
    const unsigned needed = receivers[bag + 1] - receivers[bag];
    four_words(start, offset[bag + 1] - start, keep, onkos::Stream{seed, patients[bag], epoch, purpose},
               [&](unsigned token, unsigned word) {
                   const size_t bucket = in.of(word);
                   if (starts[bucket] >= needed) return;
                   const size_t to = (size_t)start + starts[bucket] + atomicAdd(counts + bucket, 1u);
                   words[to] = word, tokens[to] = token;
               });
}

// One thread a scattered token: its place in the order. Sorted by word, ties by token.
extern "C" __global__ void __launch_bounds__(256)
cade_order(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ receivers,
           const unsigned int* __restrict__ starts, const unsigned int* __restrict__ limit,
           const unsigned int* __restrict__ words, const unsigned int* __restrict__ tokens,
           unsigned int* __restrict__ order, unsigned int /*rows*/, unsigned int /*bags*/, unsigned int /*buckets*/) {
    const unsigned bag = blockIdx.x, slot = blockIdx.y * blockDim.x + threadIdx.x;
    if (slot >= limit[bag]) return;
    const size_t start = offset[bag];
    const unsigned word = words[start + slot], token = tokens[start + slot];
    const size_t bucket = Buckets(offset, bag).of(word);
    unsigned place = starts[bucket];
    for (unsigned i = starts[bucket]; i < starts[bucket + 1]; ++i) {
        const unsigned other = words[start + i];
        place += other < word || (other == word && tokens[start + i] < token);
    }
    if (place < receivers[bag + 1] - receivers[bag]) order[start + place] = token;
}

// Beta(alpha, alpha) as src/ops/cade/draws.rs draws it, out of the words 64 i to 64 i + 63.
__device__ __forceinline__ double unit(unsigned word) { return (word >> 8) * (1.0 / 16777216.0); }
__device__ __forceinline__ double beta(double alpha, const onkos::Stream& stream, unsigned i) {
    constexpr unsigned BLOCKS = 16;
    if (alpha >= 0.5) {
        const onkos::Words w = stream.block(i * BLOCKS);
        const double r = sqrt(1.0 - pow(1.0 - unit(w.word[0]), 1.0 / (alpha - 0.5)));
        // At twice the number of half turns: no reduction of the angle, which would take memory.
        return fmin(fmax(0.5 + 0.5 * r * cospi(2.0 * unit(w.word[1])), 0.0), 1.0);
    }
    double ratio = 0.0;
    for (unsigned block = 0; block < BLOCKS; ++block) {
        const onkos::Words w = stream.block(i * BLOCKS + block);
#pragma unroll
        for (int pair = 0; pair < 4; pair += 2) {
            const double x = log(1.0 - unit(w.word[pair])) / alpha, y = log(1.0 - unit(w.word[pair + 1])) / alpha;
            ratio = y - x;
            if (fmax(x, y) < -0.6931471805599453 || exp(x) + exp(y) <= 1.0) return 1.0 / (1.0 + exp(ratio));
        }
    }
    return 1.0 / (1.0 + exp(ratio));
}

// One thread a receiver: its share and its donor, and its entry in the list of its donor's takers (`takers` is there).
extern "C" __global__ void __launch_bounds__(256)
cade_shares(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ donor_offset,
            const unsigned int* __restrict__ patients, const unsigned char* __restrict__ active,
            const unsigned int* __restrict__ alive, const unsigned int* __restrict__ order, double* __restrict__ lambda,
            unsigned int* __restrict__ donor, unsigned int* __restrict__ begin, unsigned int* __restrict__ times,
            unsigned int* __restrict__ takers, unsigned int /*rows*/, unsigned int /*givers*/, unsigned int /*bags*/,
            unsigned long long seed, unsigned int epoch, unsigned int purpose, double alpha) {
    const unsigned bag = blockIdx.x, i = blockIdx.y * blockDim.x + threadIdx.x, n = offset[bag + 1] - offset[bag];
    if (i >= n || !active[bag]) return;
    const size_t row = (size_t)offset[bag] + i, start = donor_offset[bag];
    lambda[row] = beta(alpha, onkos::Stream{seed, patients[bag], epoch, purpose}, i);
    // The order is gone through once and again.
    const unsigned place = i % alive[bag], round = i / alive[bag], from = order[start + place];
    donor[row] = from;
    if (!takers) return;
    // Donors at the first `more` places give once more than the others.
    const unsigned each = n / alive[bag], more = n % alive[bag], at = place * each + (place < more ? place : more);
    takers[row - i + at + round] = i;
    if (round == 0) begin[start + from] = at, times[start + from] = each + (place < more);
}

// 0 for tokens that live, minus infinity for others: the logarithms of their weights.
extern "C" __global__ void __launch_bounds__(256)
cade_weights(const unsigned char* __restrict__ keep, float* __restrict__ log_weight, unsigned int rows) {
    const size_t row = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row < rows) log_weight[row] = keep[row] ? 0.f : -INFINITY;
}
