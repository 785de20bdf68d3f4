// SDIR: the mask over tokens and the gain of weak ones, its gradient, the scale that a gain measures by.
// Page: src/ops/sdir/mod.rs.
// One warp a token row, which stays in its registers; a masked row is not read. Each warp draws its own token: nothing
// of the mask is kept but the token that was rescued in each bag. Floor: at p = 1/2, 6 bytes an element each way.
#include "tokens.cuh"

constexpr unsigned NOBODY = 0xffffffffu;
constexpr unsigned CHUNK = 256;  // rows of a bag that one block adds up

struct Mask {
    const unsigned *patients, *rescued;  // null: all tokens pass; none was rescued
    unsigned long long seed;
    unsigned epoch, purpose, threshold;

    __device__ __forceinline__ bool keeps(unsigned bag, unsigned token) const {
        if (!patients) return true;
        const onkos::Stream stream{seed, patients[bag], epoch, purpose};
        return word_of(stream, token) >> 8 >= threshold || (rescued && rescued[bag] == token);
    }
};

struct Gain {
    unsigned kind;  // 1: Gaussian, 2: Fermi-Dirac
    float gamma, k, temperature;

    // g at the squared energy e2, and c such that the derivative of g by F_d is c F_d. Without a strong token, scale 0,
    // none is weak; a scale that is not a number spreads.
    __device__ __forceinline__ float2 at(float e2, float scale, float columns) const {
        const float c = k * scale;
        if (c <= 0.f) return make_float2(1.f, 0.f);
        if (kind == 1) {
            const float w2 = c * c, bump = gamma * expf(-e2 / (2.f * w2));
            return make_float2(1.f + bump, bump == 0.f ? 0.f : -bump / (columns * w2));
        }
        const float e = sqrtf(e2), t = temperature * c, u = (e - c) / t;
        // Both n and 1 - n without a difference of nearly equal numbers.
        const float q = expf(-fabsf(u)), n = (u > 0.f ? q : 1.f) / (1.f + q), slope = q / ((1.f + q) * (1.f + q));
        return make_float2(1.f + gamma * n, slope == 0.f ? 0.f : -gamma / t * slope / (columns * e));
    }
};

__device__ __forceinline__ float squares(const TokenRow& row) {
    float sum = 0.f;
    row.each([&](const Vec<float>& v, unsigned) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sum += v[e] * v[e];
    });
    return sum;
}
// Its square is the energy's; 1e-12, so that the energy of a zero token has a derivative.
__device__ __forceinline__ float energy2(const TokenRow& row) { return warp_sum(squares(row)) / row.columns + 1e-12f; }

// One block a bag: the token that is rescued if all are masked. Looks no further than to the first that is kept.
extern "C" __global__ void __launch_bounds__(128)
sdir_rescue(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patients,
            unsigned int* __restrict__ rescued, unsigned int /*bags*/, unsigned long long seed, unsigned int epoch,
            unsigned int purpose, unsigned int threshold) {
    const unsigned bag = blockIdx.x, n = offset[bag + 1] - offset[bag];
    const onkos::Stream stream{seed, patients[bag], epoch, purpose};
    bool none = true;
    for (unsigned first = 0; none && first < n; first += 4 * blockDim.x) {
        const unsigned i = first + 4 * threadIdx.x;
        bool kept = false;
        if (i < n) {
            const onkos::Words w = stream.block(i / 4);
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) kept |= i + e < n && w.word[e] >> 8 >= threshold;
        }
        none = !__syncthreads_or(kept);  // the answer is that of the whole block, so all leave together
    }
    // The word after those of the tokens, by the multiply-shift rule.
    if (threadIdx.x == 0) rescued[bag] = none && n > 0 ? __umulhi(word_of(stream, n), n) : NOBODY;
}

// One thread a token: the mask as bytes, for what needs it so.
extern "C" __global__ void __launch_bounds__(256)
sdir_keep(const unsigned int* __restrict__ offset, const unsigned int* __restrict__ patients,
          const unsigned int* __restrict__ rescued, unsigned char* __restrict__ keep, unsigned int rows,
          unsigned int bags, unsigned long long seed, unsigned int epoch, unsigned int purpose,
          unsigned int threshold) {
    const size_t row = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    const unsigned bag = bag_of(offset, bags, row);
    keep[row] = Mask{patients, rescued, seed, epoch, purpose, threshold}.keeps(bag, row - offset[bag]);
}

extern "C" __global__ void __launch_bounds__(256)
sdir_forward(const float* __restrict__ x, const unsigned int* __restrict__ offset,
             const unsigned int* __restrict__ patients, const unsigned int* __restrict__ rescued,
             const float* __restrict__ scale, float* __restrict__ y, unsigned int rows, unsigned int columns,
             unsigned int bags, unsigned long long seed, unsigned int epoch, unsigned int purpose,
             unsigned int threshold, float factor, unsigned int gain, float gamma, float k, float temperature) {
    const size_t row = row_of_warp();
    if (row >= rows) return;
    const unsigned bag = bag_of(offset, bags, row);
    if (!Mask{patients, rescued, seed, epoch, purpose, threshold}.keeps(bag, row - offset[bag]))
        return fill(y, row, columns, 0.f);
    const TokenRow in(x, row, columns, 1.f);
    if (scale) factor *= Gain{gain, gamma, k, temperature}.at(energy2(in), scale[bag], columns).x;
    in.each([&](const Vec<float>& v, unsigned i) { write(y, row, columns, i, [&](int e) { return factor * v[e]; }); });
}

// `scale` and `x` are there for a gain.
extern "C" __global__ void __launch_bounds__(256)
sdir_backward(const float* __restrict__ grad, const float* __restrict__ x, const unsigned int* __restrict__ offset,
              const unsigned int* __restrict__ patients, const unsigned int* __restrict__ rescued,
              const float* __restrict__ scale, float* __restrict__ dx, unsigned int rows, unsigned int columns,
              unsigned int bags, unsigned long long seed, unsigned int epoch, unsigned int purpose,
              unsigned int threshold, float factor, unsigned int gain, float gamma, float k, float temperature) {
    const size_t row = row_of_warp();
    if (row >= rows) return;
    const unsigned bag = bag_of(offset, bags, row);
    if (!Mask{patients, rescued, seed, epoch, purpose, threshold}.keeps(bag, row - offset[bag]))
        return fill(dx, row, columns, 0.f);
    const TokenRow owed(grad, row, columns, 1.f);
    if (!scale) {
        owed.each([&](const Vec<float>& r, unsigned i) {
            write(dx, row, columns, i, [&](int e) { return factor * r[e]; });
        });
        return;
    }
    const TokenRow in(x, row, columns, 1.f);
    float inner = 0.f;
    owed.with(in, [&](const Vec<float>& r, const Vec<float>& v, unsigned) {
#pragma unroll
        for (int e = 0; e < 4; ++e) inner += r[e] * v[e];
    });
    const float2 g = Gain{gain, gamma, k, temperature}.at(energy2(in), scale[bag], columns);
    const float straight = factor * g.x, along = factor * (g.y * warp_sum(inner));
    owed.with(in, [&](const Vec<float>& r, const Vec<float>& v, unsigned i) {
        write(dx, row, columns, i, [&](int e) { return straight * r[e] + along * v[e]; });
    });
}

// Block (b, c): sum and number of the squared energies that are kept of rows c * 256 on of bag b. Bags are cut by their
// own rows, so that a sum does not depend on the batch.
extern "C" __global__ void __launch_bounds__(256)
sdir_energies(const float* __restrict__ x, const unsigned int* __restrict__ offset,
              const unsigned int* __restrict__ patients, const unsigned int* __restrict__ rescued,
              double* __restrict__ partials, unsigned int /*rows*/, unsigned int columns, unsigned int /*bags*/,
              unsigned int chunks, unsigned long long seed, unsigned int epoch, unsigned int purpose,
              unsigned int threshold) {
    const unsigned bag = blockIdx.x, start = offset[bag], n = offset[bag + 1] - start, first = blockIdx.y * CHUNK;
    if (first >= n) return;
    const Mask mask{patients, rescued, seed, epoch, purpose, threshold};
    const unsigned end = first + CHUNK < n ? first + CHUNK : n;
    Pair<double> sums{0.0, 0.0};  // of this lane's columns; the number of rows, in one lane
    for (unsigned token = first + threadIdx.x / 32; token < end; token += blockDim.x / 32) {
        if (!mask.keeps(bag, token)) continue;
        sums.first += squares(TokenRow(x, (size_t)start + token, columns, 1.f));
        if (threadIdx.x % 32 == 0) sums.second += 1.0;
    }
    sums = block_sum(sums);
    if (threadIdx.x > 0) return;
    double* const to = partials + 2 * ((size_t)bag * chunks + blockIdx.y);
    to[0] = sums.first / columns + sums.second * 1e-12;
    to[1] = sums.second;
}

// One warp a bag: the root of the mean over its chunks; 0 where nothing is kept.
extern "C" __global__ void __launch_bounds__(256)
sdir_scale(const double* __restrict__ partials, const unsigned int* __restrict__ offset, float* __restrict__ scale,
           unsigned int bags, unsigned int chunks) {
    const size_t bag = row_of_warp();
    if (bag >= bags) return;
    Pair<double> sums{0.0, 0.0};
    for (unsigned c = threadIdx.x % 32; c * CHUNK < offset[bag + 1] - offset[bag]; c += 32) {
        const double* const from = partials + 2 * (bag * chunks + c);
        sums = sums + Pair<double>{from[0], from[1]};
    }
    sums = warp_sum(sums);
    if (threadIdx.x % 32 == 0) scale[bag] = sums.second > 0.0 ? float(sqrt(sums.first / sums.second)) : 0.f;
}
