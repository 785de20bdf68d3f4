// CADE: statistics of tokens, mixed with those of drawn or smoothed donors, and its gradients.
// Page: src/ops/cade/mod.rs. The draws are in cade_draws.cu.
// One warp a token row, which stays in its registers: read once, written once; its lanes then go over the donors of a
// kernel. Statistics of the smaller set come first, those of the larger out of its own visit. Floor: 8 bytes an element
// (0.476 ms for 1M x 256), 6 with half of the rows masked (0.357 ms), 8 backward, 12 through the statistics.
#include "tokens.cuh"

// All sums over the columns of a row are the same in every lane.
__device__ __forceinline__ float2 statistics(const TokenRow& row, float eps) {
    float sum = 0.f;
    row.each([&](const Vec<float>& v, unsigned) { sum += (v[0] + v[1]) + (v[2] + v[3]); });
    const float mean = warp_sum(sum) / row.columns;
    sum = 0.f;
    row.each([&](const Vec<float>& v, unsigned i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const float off = i + e < row.columns ? v[e] - mean : 0.f;
            sum += off * off;
        }
    });
    return make_float2(mean, sqrtf(warp_sum(sum) / (row.columns - 1) + eps));
}
// Of a masked token, which is all zeros and not read.
__device__ __forceinline__ float2 statistics_of_zeros(float eps) { return make_float2(0.f, sqrtf(eps)); }

__device__ __forceinline__ float2 pair_at(const float* pairs, size_t i) {
    return __ldg(reinterpret_cast<const float2*>(pairs) + i);
}
__device__ __forceinline__ void put_pair(float* pairs, size_t i, float first, float second) {
    if (threadIdx.x % 32 == 0) reinterpret_cast<float2*>(pairs)[i] = make_float2(first, second);
}
__device__ __forceinline__ bool is_set(const unsigned char* flags, size_t i) { return flags && flags[i]; }

// The donors of a bag under a kernel.
struct Smooth {
    const float* donors;      // pairs of mean and deviation, from the bag's first on
    const float* log_weight;  // null: 1 each
    unsigned count;
    float inverse_width;

    __device__ __forceinline__ float log_of(unsigned j) const { return log_weight ? __ldg(log_weight + j) : 0.f; }
    // 1 / (2 h^2), finite: products with a distance of 0 stay 0.
    __device__ __forceinline__ float steepness() const {
        return fminf(0.5f * inverse_width * inverse_width, 3e38f);
    }
};

// What a receiver finds there, in differences to a donor near its anchor: where the weight lies nothing cancels.
struct Found {
    float2 near, twice;  // the reference donor; twice the way from there to the anchor
    float log_near, inverse_total;
    float2 off;  // the weighted mean, less the reference
};
// The weight of a donor `d` away from the reference, up to the total. The exponent is at most 0 up to the rounding of
// large distances, where any choice among the nearest will do.
__device__ __forceinline__ float weight_at(float2 d, float2 twice, float log_ratio, float steepness) {
    return expf(fminf(log_ratio - steepness * (d.x * (d.x - twice.x) + d.y * (d.y - twice.y)), 60.f));
}

template <bool COVARIANCE>
__device__ __forceinline__ Found find(const Smooth& k, float2 anchor, float (&covariance)[3]) {
    const unsigned lane = threadIdx.x % 32;
    const float c = k.steepness();
    float best = -INFINITY;
    unsigned at = 0;
    for (unsigned j = lane; j < k.count; j += 32) {
        const float2 y = pair_at(k.donors, j);
        const float u = y.x - anchor.x, v = y.y - anchor.y;
        const float exponent = k.log_of(j) - fminf(c * (u * u + v * v), 1e38f);
        if (exponent > best) best = exponent, at = j;
    }
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) {
        const float other = from_lane_xor(best, bits);
        const unsigned there = from_lane_xor(at, bits);
        if (other > best || (other == best && there < at)) best = other, at = there;
    }
    Found f;
    f.near = pair_at(k.donors, at);
    f.twice = make_float2(2.f * (anchor.x - f.near.x), 2.f * (anchor.y - f.near.y));
    f.log_near = k.log_of(at);
    float total = 0.f, x = 0.f, y = 0.f, xx = 0.f, xy = 0.f, yy = 0.f;
    for (unsigned j = lane; j < k.count; j += 32) {
        const float2 from = pair_at(k.donors, j), d = make_float2(from.x - f.near.x, from.y - f.near.y);
        const float w = weight_at(d, f.twice, k.log_of(j) - f.log_near, c);
        total += w, x += w * d.x, y += w * d.y;
        if (COVARIANCE) xx += w * d.x * d.x, xy += w * d.x * d.y, yy += w * d.y * d.y;
    }
    f.inverse_total = 1.f / warp_sum(total);
    f.off = make_float2(warp_sum(x) * f.inverse_total, warp_sum(y) * f.inverse_total);
    if (COVARIANCE) {
        covariance[0] = warp_sum(xx) * f.inverse_total - f.off.x * f.off.x;
        covariance[1] = warp_sum(xy) * f.inverse_total - f.off.x * f.off.y;
        covariance[2] = warp_sum(yy) * f.inverse_total - f.off.y * f.off.y;
    }
    return f;
}
__device__ __forceinline__ float2 anchor_of(float2 donor, float2 own, float kappa) {
    return make_float2((1.f - kappa) * donor.x + kappa * own.x, (1.f - kappa) * donor.y + kappa * own.y);
}
// The width of a bag's kernel: one for all, or its own.
__device__ __forceinline__ float width_of(const float* widths, float width, unsigned bag) {
    return widths ? widths[bag] : width;
}

// Of the rows in bags that receive or give; others are not written.
extern "C" __global__ void __launch_bounds__(256)
cade_statistics(const float* __restrict__ x, const unsigned char* __restrict__ keep,
                const unsigned int* __restrict__ offset, const unsigned char* __restrict__ receives,
                const unsigned char* __restrict__ gives, float* __restrict__ own, unsigned int rows,
                unsigned int columns, unsigned int bags, float factor, float eps) {
    const size_t row = row_of_warp();
    if (row >= rows) return;
    const unsigned bag = bag_of(offset, bags, row);
    if (!is_set(receives, bag) && !is_set(gives, bag)) return;
    const float2 s = keep && !keep[row] ? statistics_of_zeros(eps) : statistics(TokenRow(x, row, columns, factor), eps);
    put_pair(own, row, s.x, s.y);
}

// One set receives: its rows, their statistics, and what each is stretched by.
template <bool SMOOTH>
__device__ __forceinline__ void mix(const float* x, const unsigned char* keep, const unsigned* offset,
                                    const unsigned* donor_offset, const unsigned char* receives,
                                    const unsigned char* gives, const unsigned* donor, const double* lambda,
                                    const float* donors, const float* log_weight, const float* widths, float* out,
                                    float* own, float* stretch, unsigned rows, unsigned columns, unsigned bags,
                                    float factor, float eps, float width, float kappa) {
    const size_t row = row_of_warp();
    if (row >= rows) return;
    const bool kept = !keep || keep[row];
    const TokenRow in(x, row, kept ? columns : 0, factor);  // the loads are under way while the bag is looked for
    const unsigned bag = bag_of(offset, bags, row);
    const bool active = is_set(receives, bag);
    float2 s = make_float2(0.f, 1.f);
    if (active || is_set(gives, bag)) {
        s = kept ? statistics(in, eps) : statistics_of_zeros(eps);
        put_pair(own, row, s.x, s.y);
    }
    if (!active) {
        if (threadIdx.x % 32 == 0) stretch[row] = 1.f;
        if (!kept) return fill(out, row, columns, 0.f);
        in.each([&](const Vec<float>& v, unsigned i) { write(out, row, columns, i, [&](int e) { return v[e]; }); });
        return;
    }
    const unsigned first = donor_offset[bag];
    float2 given = pair_at(donors, (size_t)first + donor[row]);
    if (SMOOTH) {
        const float h = width_of(widths, width, bag);
        if (h != 0.f) {
            const Smooth kernel{donors + 2 * (size_t)first, log_weight ? log_weight + first : nullptr,
                                donor_offset[bag + 1] - first, 1.f / h};
            float none[3];
            const Found found = find<false>(kernel, anchor_of(given, s, kappa), none);
            given = make_float2(found.near.x + found.off.x, found.near.y + found.off.y);
        }
    }
    const double share = lambda[row];
    const float mean = float(share * s.x + (1.0 - share) * given.x);
    const float deviation = float(share * s.y + (1.0 - share) * given.y), slope = deviation / s.y;
    if (threadIdx.x % 32 == 0) stretch[row] = slope;
    if (!kept) return fill(out, row, columns, mean);
    in.each([&](const Vec<float>& v, unsigned i) {
        write(out, row, columns, i, [&](int e) { return (v[e] - s.x) * slope + mean; });
    });
}
extern "C" __global__ void __launch_bounds__(256)
cade_mix(const float* __restrict__ x, const unsigned char* __restrict__ keep, const unsigned int* __restrict__ offset,
         const unsigned int* __restrict__ donor_offset, const unsigned char* __restrict__ receives,
         const unsigned char* __restrict__ gives, const unsigned int* __restrict__ donor,
         const double* __restrict__ lambda, const float* __restrict__ donors, float* __restrict__ out,
         float* __restrict__ own, float* __restrict__ stretch, unsigned int rows, unsigned int columns,
         unsigned int bags, unsigned int /*givers*/, float factor, float eps) {
    mix<false>(x, keep, offset, donor_offset, receives, gives, donor, lambda, donors, nullptr, nullptr, out, own,
               stretch, rows, columns, bags, factor, eps, 0.f, 0.f);
}
extern "C" __global__ void __launch_bounds__(256, 4)
cade_mix_smooth(const float* __restrict__ x, const unsigned char* __restrict__ keep,
                const unsigned int* __restrict__ offset, const unsigned int* __restrict__ donor_offset,
                const unsigned char* __restrict__ receives, const unsigned char* __restrict__ gives,
                const unsigned int* __restrict__ donor, const double* __restrict__ lambda,
                const float* __restrict__ donors, const float* __restrict__ log_weight,
                const float* __restrict__ widths, float* __restrict__ out, float* __restrict__ own,
                float* __restrict__ stretch, unsigned int rows, unsigned int columns, unsigned int bags,
                unsigned int /*givers*/, float factor, float eps, float width, float kappa) {
    mix<true>(x, keep, offset, donor_offset, receives, gives, donor, lambda, donors, log_weight, widths, out, own,
              stretch, rows, columns, bags, factor, eps, width, kappa);
}

// One block a bag: `relative` times the root of the median squared distance of its living donors from their mean. The
// median is exact: the bits of a float that is not negative are in its order, and are found eight at a time.
extern "C" __global__ void __launch_bounds__(512)
cade_spread(const float* __restrict__ donors, const unsigned int* __restrict__ offset,
            const unsigned char* __restrict__ receives, const float* __restrict__ log_weight,
            float* __restrict__ widths, unsigned int /*rows*/, unsigned int /*bags*/, float relative) {
    __shared__ unsigned histogram[256];
    const unsigned bag = blockIdx.x, start = offset[bag], end = offset[bag + 1];
    if (!receives[bag]) {
        if (threadIdx.x == 0) widths[bag] = 0.f;
        return;
    }
    const auto lives = [&](unsigned j) { return !log_weight || log_weight[j] > -INFINITY; };
    double sums[3] = {};  // of means, of deviations, of 1
    for (unsigned j = start + threadIdx.x; j < end; j += blockDim.x)
        if (lives(j)) {
            const float2 y = pair_at(donors, j);
            sums[0] += y.x, sums[1] += y.y, sums[2] += 1.0;
        }
    block_sums(sums);
    const double mean = sums[0] / sums[2], deviation = sums[1] / sums[2];
    const auto square = [&](unsigned j) {
        const float2 y = pair_at(donors, j);
        return __float_as_uint(float((y.x - mean) * (y.x - mean) + (y.y - deviation) * (y.y - deviation)));
    };
    const unsigned count = unsigned(sums[2]), rank = count / 2;
    unsigned value = 0, smaller = 0;  // the bits found so far; how many are below any number that begins so
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();  // the histogram of the digit before was read
        for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) histogram[i] = 0;
        __syncthreads();  // it is empty
        for (unsigned j = start + threadIdx.x; j < end; j += blockDim.x)
            if (lives(j)) {
                const unsigned bits = square(j);
                const bool begins_so = shift == 24 || bits >> (shift + 8) == value >> (shift + 8);
                if (begins_so) atomicAdd(&histogram[bits >> shift & 255], 1u);
            }
        __syncthreads();  // it is complete
        unsigned digit = 0;
        while (smaller + histogram[digit] <= rank) smaller += histogram[digit++];
        value |= digit << shift;
    }
    // Of an even number the one before in order, too: equal, or the largest below.
    unsigned before = 0;
    for (unsigned j = start + threadIdx.x; j < end; j += blockDim.x)
        if (lives(j)) {
            const unsigned bits = square(j);
            if (bits < value && bits > before) before = bits;
        }
    before = block_max(before);
    if (threadIdx.x > 0) return;
    const float upper = __uint_as_float(value);
    const float lower = count % 2 == 0 && smaller == rank ? __uint_as_float(before) : upper;
    const double width = relative * sqrt(0.5 * ((double)lower + upper));
    widths[bag] = width < 1e-30 ? 0.f : float(width);
}

// The gradient of one set with its statistics taken as constants.
extern "C" __global__ void __launch_bounds__(256)
cade_backward_detached(const float* __restrict__ grad, const unsigned char* __restrict__ keep,
                       const float* __restrict__ stretch, float* __restrict__ dx, unsigned int rows,
                       unsigned int columns, float factor) {
    const size_t row = row_of_warp();
    if (row >= rows) return;
    if (keep && !keep[row]) return fill(dx, row, columns, 0.f);
    const float slope = factor * stretch[row];
    const TokenRow owed(grad, row, columns, 1.f);
    owed.each([&](const Vec<float>& r, unsigned i) {
        write(dx, row, columns, i, [&](int e) { return slope * r[e]; });
    });
}

constexpr unsigned FOUND = 12;  // floats of a receiver that its donors are told

// From the gradient of what a set became: `given`, owed to its mixed statistics; of that `kept`, what its own are owed,
// and `passed`, what its drawn donor's are. Rows that do not receive are not written.
template <bool SMOOTH>
__device__ __forceinline__ void receive(const float* x, const unsigned char* keep, const float* grad,
                                        const unsigned* offset, const unsigned* donor_offset,
                                        const unsigned char* receives, const unsigned* donor, const double* lambda,
                                        const float* own, const float* donors, const float* log_weight,
                                        const float* widths, float* given, float* kept, float* passed, float* told,
                                        unsigned rows, unsigned columns, unsigned bags, float factor, float width,
                                        float kappa) {
    const size_t row = row_of_warp();
    if (row >= rows) return;
    const unsigned bag = bag_of(offset, bags, row);
    if (!receives[bag]) return;
    const float2 s = pair_at(own, row);
    const TokenRow owed(grad, row, columns, 1.f);
    float sum = 0.f, along = 0.f;
    if (!keep || keep[row]) {
        owed.with(TokenRow(x, row, columns, factor), [&](const Vec<float>& r, const Vec<float>& v, unsigned) {
            sum += (r[0] + r[1]) + (r[2] + r[3]);
#pragma unroll
            for (int e = 0; e < 4; ++e) along += r[e] * (v[e] - s.x);
        });
    } else {  // z = 0, but its mean is given like any other
        owed.each([&](const Vec<float>& r, unsigned) { sum += (r[0] + r[1]) + (r[2] + r[3]); });
    }
    const float2 g = make_float2(warp_sum(sum), warp_sum(along) / s.y);
    put_pair(given, row, g.x, g.y);
    const double share = lambda[row];
    const float2 mine = make_float2(float(share * g.x), float(share * g.y));
    const float2 rest = make_float2(float((1.0 - share) * g.x), float((1.0 - share) * g.y));
    if (SMOOTH) {
        const float h = width_of(widths, width, bag);
        if (h != 0.f) {
            const unsigned first = donor_offset[bag];
            const Smooth kernel{donors + 2 * (size_t)first, log_weight ? log_weight + first : nullptr,
                                donor_offset[bag + 1] - first, 1.f / h};
            float c[3];
            const float2 drawn = pair_at(donors, (size_t)first + donor[row]);
            const Found f = find<true>(kernel, anchor_of(drawn, s, kappa), c);
            // Twice by 1 / h, as 1 / h^2 may be infinite: of a donor alone all covariances are 0.
            const float inverse = kernel.inverse_width;
            const float u = (c[0] * rest.x + c[1] * rest.y) * inverse * inverse;
            const float v = (c[1] * rest.x + c[2] * rest.y) * inverse * inverse;
            put_pair(kept, row, mine.x + kappa * u, mine.y + kappa * v);
            put_pair(passed, row, (1.f - kappa) * u, (1.f - kappa) * v);
            if (threadIdx.x % 32 == 0) {
                float4* const to = reinterpret_cast<float4*>(told + FOUND * row);
                to[0] = make_float4(f.near.x, f.near.y, f.twice.x, f.twice.y);
                to[1] = make_float4(f.off.x, f.off.y, rest.x, rest.y);
                to[2] = make_float4(f.log_near, f.inverse_total, 0.f, 0.f);
            }
            return;
        }
    }
    put_pair(kept, row, mine.x, mine.y);
    put_pair(passed, row, rest.x, rest.y);
}
extern "C" __global__ void __launch_bounds__(256)
cade_receive(const float* __restrict__ x, const unsigned char* __restrict__ keep, const float* __restrict__ grad,
             const unsigned int* __restrict__ offset, const unsigned char* __restrict__ receives,
             const double* __restrict__ lambda, const float* __restrict__ own, float* __restrict__ given,
             float* __restrict__ kept, float* __restrict__ passed, unsigned int rows, unsigned int columns,
             unsigned int bags, float factor) {
    receive<false>(x, keep, grad, offset, nullptr, receives, nullptr, lambda, own, nullptr, nullptr, nullptr, given,
                   kept, passed, nullptr, rows, columns, bags, factor, 0.f, 0.f);
}
extern "C" __global__ void __launch_bounds__(256, 4)
cade_receive_smooth(const float* __restrict__ x, const unsigned char* __restrict__ keep,
                    const float* __restrict__ grad, const unsigned int* __restrict__ offset,
                    const unsigned int* __restrict__ donor_offset, const unsigned char* __restrict__ receives,
                    const unsigned int* __restrict__ donor, const double* __restrict__ lambda,
                    const float* __restrict__ own, const float* __restrict__ donors,
                    const float* __restrict__ log_weight, const float* __restrict__ widths, float* __restrict__ given,
                    float* __restrict__ kept, float* __restrict__ passed, float* __restrict__ told, unsigned int rows,
                    unsigned int columns, unsigned int bags, unsigned int /*givers*/, float factor, float width,
                    float kappa) {
    receive<true>(x, keep, grad, offset, donor_offset, receives, donor, lambda, own, donors, log_weight, widths, given,
                  kept, passed, told, rows, columns, bags, factor, width, kappa);
}

// One warp a donor: what its statistics are owed by those that took from it, in the order of their rows, and by all
// receivers of its bag under a kernel (`told` is there). Donors of bags that do not mix are not written.
extern "C" __global__ void __launch_bounds__(256)
cade_donate(const float* __restrict__ passed, const float* __restrict__ told, const float* __restrict__ donors,
            const float* __restrict__ log_weight, const float* __restrict__ widths,
            const unsigned int* __restrict__ offset, const unsigned int* __restrict__ donor_offset,
            const unsigned char* __restrict__ receives, const unsigned int* __restrict__ begin,
            const unsigned int* __restrict__ times, const unsigned int* __restrict__ takers,
            float* __restrict__ donated, unsigned int /*rows*/, unsigned int givers, unsigned int bags,
            float width) {
    const size_t row = row_of_warp();
    if (row >= givers) return;
    const unsigned bag = bag_of(donor_offset, bags, row), lane = threadIdx.x % 32;
    if (!receives[bag]) return;
    const size_t first = offset[bag];
    float x = 0.f, y = 0.f;
    for (unsigned k = lane; k < times[row]; k += 32) {
        const float2 from = pair_at(passed, first + takers[first + begin[row] + k]);
        x += from.x, y += from.y;
    }
    const float h = told ? width_of(widths, width, bag) : 0.f;
    if (h != 0.f) {
        const Smooth kernel{nullptr, log_weight, 0, 1.f / h};
        const float c = kernel.steepness(), log_mine = kernel.log_of(row);
        const float2 mine = pair_at(donors, row);
        for (size_t i = first + lane; i < offset[bag + 1]; i += 32) {
            const float4* const from = reinterpret_cast<const float4*>(told + FOUND * i);
            const float4 a = __ldg(from), b = __ldg(from + 1), w = __ldg(from + 2);
            const float2 d = make_float2(mine.x - a.x, mine.y - a.y);
            const float weight = weight_at(d, make_float2(a.z, a.w), log_mine - w.x, c) * w.y;
            const float slope = weight * (b.z * (d.x - b.x) + b.w * (d.y - b.y));
            const float along = slope * kernel.inverse_width * kernel.inverse_width;
            x += weight * b.z + along * (0.5f * a.z - d.x);
            y += weight * b.w + along * (0.5f * a.w - d.y);
        }
    }
    x = warp_sum(x), y = warp_sum(y);
    put_pair(donated, row, x, y);
}

// From the gradients of the result and of the statistics to that of the tokens.
extern "C" __global__ void __launch_bounds__(256)
cade_to_tokens(const float* __restrict__ x, const unsigned char* __restrict__ keep, const float* __restrict__ grad,
               const unsigned int* __restrict__ offset, const unsigned char* __restrict__ receives,
               const unsigned char* __restrict__ gives, const float* __restrict__ own,
               const float* __restrict__ stretch, const float* __restrict__ given, const float* __restrict__ kept,
               const float* __restrict__ donated, float* __restrict__ dx, unsigned int rows, unsigned int columns,
               unsigned int bags, float factor) {
    const size_t row = row_of_warp();
    if (row >= rows) return;
    if (keep && !keep[row]) return fill(dx, row, columns, 0.f);
    const TokenRow owed(grad, row, columns, 1.f);
    const unsigned bag = bag_of(offset, bags, row);
    const bool mixed = receives[bag], gave = gives[bag];
    if (!mixed && !gave) {
        return owed.each([&](const Vec<float>& r, unsigned i) {
            write(dx, row, columns, i, [&](int e) { return factor * r[e]; });
        });
    }
    const float2 s = pair_at(own, row);
    const float slope = stretch[row];
    float shift = 0.f, along = 0.f;
    if (mixed) {  // through z, and through its own statistics
        const float2 g = pair_at(given, row), mine = pair_at(kept, row);
        shift = mine.x - slope * g.x, along = mine.y - slope * g.y;
    }
    if (gave) {
        const float2 more = pair_at(donated, row);
        shift += more.x, along += more.y;
    }
    shift /= columns, along = along / (columns - 1) / s.y;
    const TokenRow in(x, row, columns, factor);
    owed.with(in, [&](const Vec<float>& r, const Vec<float>& v, unsigned i) {
        write(dx, row, columns, i, [&](int e) {
            return __fmul_rn(factor, slope * r[e] + shift + along * (v[e] - s.x));
        });
    });
}
