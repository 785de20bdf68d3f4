// The Cox partial likelihood and its gradient, after Breslow and after Efron.
// Page: src/ops/cox/mod.rs. The table of a plan: src/ops/cox/layout.rs.
// Patients in the order in which risk sets grow, in tiles of 9 a thread: a scan of their risks, at each death its share of the
// hazard, a scan of these the other way, the gradient. One block goes through few tiles; of many, each is a block, and its scan
// begins with what the tiles before it came to, which the launch before wrote down. Floor: 30 bytes a patient in all.
// Where patients enter late a tree over the moments takes the place of the scans: a block for each of its nodes, then for each
// moment, one for the tree, a thread a patient.
#include "block.cuh"

// Consecutive positions of one thread. Odd, so that the runs of neighbouring threads begin in different banks.
constexpr unsigned ITEMS = 9;
// Beside where the deaths of a moment begin: no moment of its stratum comes before it.
constexpr unsigned FIRST = 0x80000000u;
// A log risk from here on up is 64 or more from the next, in f32: far enough for one of the two to vanish.
constexpr float HUGE_RISK = 536870912.f;
// In a Run: it starts anew, so what came before is not added to the first sum, or to the second.
constexpr unsigned NEW_STRATUM = 1, NEW_MOMENT = 2;

// Sums sum[i] 2^(64 exponent), never negative, of all that was added since something started anew. Scaling one to another's
// exponent is exact, and what it loses could not be seen beside the other.
template <int N> struct Run {
    double sum[N];
    float exponent;
    unsigned starts;
};

// 2^(64 d) of a whole number d from 0 down. It is above 0 only where the sum that is shifted is 0.
__device__ __forceinline__ double shifted(float d) {
    return d >= -15.f ? __longlong_as_double((long long)(1023 + 64 * (int)fminf(d, 0.f)) << 52) : 0.;
}

// What follows is added to what came before; the order counts.
template <int N> __device__ __forceinline__ Run<N> operator+(Run<N> before, Run<N> after) {
    const unsigned starts = before.starts | after.starts;
    if (!(after.starts & NEW_STRATUM)) {
        // A sum of nothing has no exponent of its own.
        if (before.sum[0] == 0.) before.exponent = after.exponent;
        if (after.sum[0] == 0.) after.exponent = before.exponent;
        const float exponent = fmaxf(before.exponent, after.exponent);
        const double shift_before = shifted(before.exponent - exponent), shift_after = shifted(after.exponent - exponent);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const double kept = after.starts >> i & 1 ? 0. : before.sum[i] * shift_before;
            after.sum[i] = kept + after.sum[i] * shift_after;
        }
        after.exponent = exponent;
    }
    after.starts = starts;
    return after;
}
template <int N> __device__ __forceinline__ Run<N> from_lane_below(Run<N> v, int lanes HERE_) {
#pragma unroll
    for (int i = 0; i < N; ++i) v.sum[i] = ::from_lane_below(v.sum[i], lanes THERE_);
    v.exponent = ::from_lane_below(v.exponent, lanes THERE_);
    v.starts = ::from_lane_below(v.starts, lanes THERE_);
    return v;
}

// What a patient adds to risk sets.
__device__ __forceinline__ Run<1> term(float eta, double w) {
    if (fabsf(eta) >= HUGE_RISK) return {{eta - eta == 0.f ? w : NAN}, eta / 32.f, 0};
    const double binary = eta * 1.4426950408889634, exponent = rint(binary / 64.);
    return {{w * exp2(binary - 64. * exponent)}, (float)exponent, 0};
}
// The logarithm of 2^(64 exponent), or of the huge risk that it stands for.
__device__ __forceinline__ double logarithm(float exponent) {
    return fabsf(exponent) >= HUGE_RISK / 32.f ? 32. * exponent : 44.3614195558365 * exponent;
}
// The gradient of a patient who adds `own` to risk sets, lived through a hazard and died with a weight, or with 0.
__device__ __forceinline__ double slope_of(Run<1> own, Run<1> lived, double died) {
    const double slope = own.sum[0] * lived.sum[0] * shifted(own.exponent + lived.exponent) - died;
    // Below the rounding of what was subtracted: who died alone is owed nothing at all.
    return fabs(slope) <= died * 0x1p-50 ? 0. : slope;
}

// The sum over the threads before this one, and over all.
template <int N> __device__ __forceinline__ Run<N> over_threads_before(Run<N> v, Run<N>& all HERE_) {
    __shared__ Run<N> of_warps[MOST_WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    v = warp_inclusive_scan(v THERE_);
    __syncthreads(THERE_ONLY_);  // of_warps[] may still be read from the call before
    if (lane == 31) of_warps[warp] = v;
    __syncthreads(THERE_ONLY_);  // every warp's sum is there
    if (warp == 0) {
        Run<N> sum = lane < warps ? of_warps[lane] : Run<N>{};
        sum = warp_inclusive_scan(sum THERE_);
        if (lane < warps) of_warps[lane] = sum;
    }
    __syncthreads(THERE_ONLY_);  // each of them has those before it
    all = of_warps[warps - 1];
    v = from_lane_below(v, 1 THERE_);
    const Run<N> before = warp == 0 ? Run<N>{} : of_warps[warp - 1];
    return lane == 0 ? before : before + v;
}

// Runs in shared memory. A sum that is to start anew at one has the sign of a negative number there, until it is scanned.
template <int N> struct Tile {
    double* sums;
    float* exponents;
    unsigned size, count;

    __device__ __forceinline__ void give(unsigned i, Run<N> v) const {
#pragma unroll
        for (int j = 0; j < N; ++j) sums[j * size + i] = v.starts >> j & 1 ? -v.sum[j] : v.sum[j];
        exponents[i] = v.exponent;
    }
    __device__ __forceinline__ Run<N> given(unsigned i) const {
        Run<N> v;
        v.starts = 0;
#pragma unroll
        for (int j = 0; j < N; ++j) {
            const double sum = sums[j * size + i];
            v.sum[j] = fabs(sum);
            v.starts |= (__double_as_longlong(sum) < 0 ? 1u : 0u) << j;
        }
        v.exponent = exponents[i];
        return v;
    }
    // Each with all before it, `before` too. Gives the whole.
    __device__ __forceinline__ Run<N> scan(Run<N> before HERE_) const {
        const unsigned first = threadIdx.x * ITEMS, end = min(first + ITEMS, count);
        __syncthreads(THERE_ONLY_);  // all was given
        Run<N> mine{}, all;
        for (unsigned i = first; i < end; ++i) mine = mine + given(i);
        Run<N> run = before + over_threads_before(mine, all THERE_);
        for (unsigned i = first; i < end; ++i) {
            run = run + given(i);
            for (int j = 0; j < N; ++j) sums[j * size + i] = run.sum[j];
            exponents[i] = run.exponent;
        }
        __syncthreads(THERE_ONLY_);  // all can be read by all
        return before + all;
    }
    // The whole alone.
    __device__ __forceinline__ Run<N> whole(HERE_ONLY_) const {
        const unsigned first = threadIdx.x * ITEMS, end = min(first + ITEMS, count);
        __syncthreads(THERE_ONLY_);  // all was given
        Run<N> mine{}, all;
        for (unsigned i = first; i < end; ++i) mine = mine + given(i);
        over_threads_before(mine, all THERE_);
        return all;
    }
};
template <int N> __device__ __forceinline__ Tile<N> tile_of(double* shared, unsigned count) {
    const unsigned size = blockDim.x * ITEMS;
    return {shared, reinterpret_cast<float*>(shared + N * size), size, count};
}

// A moment: those who survive it and none after it are positions start to dying - 1, those who die at it dying to end - 1.
struct Moment {
    unsigned start, dying, end;
    bool first, last;  // of the moments of its stratum
};

// All arguments of these kernels, and where what lies in the scratch memory.
struct Work {
    const unsigned *order, *group, *starts, *deaths;
    const double *weight, *weights;  // of positions and of moments, or null
    const float* log_risk;
    double *terms, *risk, *hazard, *tile_sums, *losses;
    float *exponents, *risk_exponents, *hazard_exponents, *tile_exponents, *tile_starts;
    unsigned n, at_risk, moments, tiles;
    bool efron;

    __device__ __forceinline__ Work(const unsigned* table, const double* weight_or_null, const float* log_risk, double* sums,
                                    float* exponents, unsigned n, unsigned at_risk, unsigned moments, unsigned tiles, unsigned efron)
        : order(table), group(order + n), starts(group + at_risk), deaths(starts + moments + 1), weight(weight_or_null),
          weights(weight ? weight + at_risk : nullptr), log_risk(log_risk), terms(sums), risk(terms + at_risk),
          hazard(risk + 2 * (size_t)moments), tile_sums(hazard + 2 * (size_t)moments), losses(tile_sums + 3 * (size_t)tiles),
          exponents(exponents), risk_exponents(exponents + at_risk), hazard_exponents(risk_exponents + 2 * (size_t)moments),
          tile_exponents(hazard_exponents + moments), tile_starts(tile_exponents + 2 * (size_t)tiles), n(n), at_risk(at_risk),
          moments(moments), tiles(tiles), efron(efron != 0) {}

    __device__ __forceinline__ Moment moment(unsigned g) const {
        const unsigned dying = deaths[g];
        return {starts[g], dying & ~FIRST, starts[g + 1], (dying & FIRST) != 0, g + 1 == moments || (deaths[g + 1] & FIRST) != 0};
    }
    // How many positions a tile has.
    __device__ __forceinline__ unsigned count(unsigned first, unsigned size) const {
        return first < at_risk ? min(size, at_risk - first) : 0;
    }

    // The terms of a tile, as runs; they are kept for the gradient.
    __device__ __forceinline__ void give_terms(Tile<1> tile, unsigned first) const {
        for (unsigned i = threadIdx.x; i < tile.count; i += blockDim.x) {
            const unsigned p = first + i;
            Run<1> v = term(log_risk[order[p]], weight ? weight[p] : 1.);
            terms[p] = v.sum[0], exponents[p] = v.exponent;
            tile.give(i, started(v, p));
        }
    }
    __device__ __forceinline__ void give_kept_terms(Tile<1> tile, unsigned first) const {
        for (unsigned i = threadIdx.x; i < tile.count; i += blockDim.x) tile.give(i, started({{terms[first + i]}, exponents[first + i], 0}, first + i));
    }
    __device__ __forceinline__ Run<1> started(Run<1> v, unsigned p) const {
        const Moment at = moment(group[p]);
        v.starts = at.first && p == at.start ? NEW_STRATUM : 0;
        return v;
    }
    // Of a tile that was scanned: the risk sets of moments, and what of them survives the moment.
    __device__ __forceinline__ void keep_risk(Tile<1> tile, unsigned first) const {
        for (unsigned i = threadIdx.x; i < tile.count; i += blockDim.x) {
            const unsigned p = first + i, g = group[p];
            const Moment at = moment(g);
            if (p + 1 != at.end && p + 1 != at.dying) continue;
            const size_t to = p + 1 == at.end ? g : moments + (size_t)g;
            risk[to] = tile.sums[i], risk_exponents[to] = tile.exponents[i];
        }
    }

    // What a death charges a unit of risk that survives its moment, and one that dies at it, at 2^(-64 exponent of the risk).
    // To `loss`, if asked for, is added what the death costs.
    __device__ __forceinline__ Run<2> charge(unsigned p, unsigned g, Moment at, double* loss) const {
        double sum = risk[g];
        const float exponent = risk_exponents[g];
        const double dead = at.end - at.dying, gone = efron ? p - at.dying : 0;
        const double mean = weights ? weights[g] / dead : 1.;
        if (gone > 0.) {  // neither share is negative, so nothing cancels
            double alive = 0.;
            float alive_exponent = exponent;
            const bool has_own = at.dying > at.start;
            if (has_own || !at.first) {
                const size_t from = has_own ? moments + (size_t)g : g - 1;
                alive = risk[from], alive_exponent = risk_exponents[from];
            }
            sum = (gone * (alive * shifted(alive_exponent - exponent)) + (dead - gone) * sum) / dead;
        }
        if (loss) {
            const double w = weight ? weight[p] : 1.;
            *loss += mean * log(sum) + w * (logarithm(exponent) - log_risk[order[p]]);
        }
        const double hazard = mean / sum;
        return {{hazard, hazard * ((dead - gone) / dead)}, -exponent, 0};
    }
    // The charges of a tile, the last position first.
    __device__ __forceinline__ void give_charges(Tile<2> tile, unsigned first, double* loss) const {
        for (unsigned i = threadIdx.x; i < tile.count; i += blockDim.x) {
            const unsigned p = first + tile.count - 1 - i, g = group[p];
            const Moment at = moment(g);
            Run<2> v{};
            if (p >= at.dying) {
                v = charge(p, g, at, loss);
                if (p + 1 == at.end) v.starts = NEW_MOMENT | (at.last ? NEW_STRATUM : 0);
            }
            tile.give(i, v);
        }
    }
    // Of a tile that was scanned: the hazard up to each moment, and what those who die at it are charged there.
    __device__ __forceinline__ void keep_hazard(Tile<2> tile, unsigned first) const {
        for (unsigned i = threadIdx.x; i < tile.count; i += blockDim.x) {
            const unsigned p = first + tile.count - 1 - i, g = group[p];
            if (p != (deaths[g] & ~FIRST)) continue;
            hazard[g] = tile.sums[i], hazard[moments + (size_t)g] = tile.sums[tile.size + i], hazard_exponents[g] = tile.exponents[i];
        }
    }

    // What a patient who was never at risk costs: nothing, or NaN where the log risk is no number.
    __device__ __forceinline__ double cost_of_absent(unsigned p) const {
        const float eta = log_risk[order[p]];
        return eta - eta;
    }
    __device__ __forceinline__ double slope(unsigned p) const {
        if (p >= at_risk) return 0.;
        const unsigned g = group[p];
        const Moment at = moment(g);
        Run<1> lived{{hazard[g]}, hazard_exponents[g], 0};
        double died = 0.;
        if (p >= at.dying) {
            lived.sum[0] = hazard[moments + (size_t)g];
            if (!at.last) lived = Run<1>{{hazard[g + 1]}, hazard_exponents[g + 1], 0} + lived;
            died = weight ? weight[p] : 1.;
        }
        return slope_of({{terms[p]}, exponents[p], 0}, lived, died);
    }

    // What tiles came to, in the order of a scan.
    template <int N> __device__ __forceinline__ void keep_tile(Run<N> v, unsigned at) const {
        if (threadIdx.x != 0) return;
        double* const sums = tile_sums + (N - 1) * (size_t)tiles;
        for (int j = 0; j < N; ++j) sums[N * (size_t)at + j] = v.sum[j];
        tile_exponents[(N - 1) * (size_t)tiles + at] = v.exponent;
        tile_starts[(N - 1) * (size_t)tiles + at] = (float)v.starts;
    }
    template <int N> __device__ __forceinline__ Run<N> tiles_before(unsigned end HERE_) const {
        const double* const sums = tile_sums + (N - 1) * (size_t)tiles;
        const unsigned each = (end + blockDim.x - 1) / blockDim.x, first = threadIdx.x * each;
        Run<N> mine{}, all;
        for (unsigned t = first; t < min(first + each, end); ++t) {
            Run<N> v;
            for (int j = 0; j < N; ++j) v.sum[j] = sums[N * (size_t)t + j];
            v.exponent = tile_exponents[(N - 1) * (size_t)tiles + t];
            v.starts = (unsigned)tile_starts[(N - 1) * (size_t)tiles + t];
            mine = mine + v;
        }
        over_threads_before(mine, all THERE_);
        return all;
    }
};

// All of it in one block, tile after tile.
extern "C" __global__ void __launch_bounds__(512)
cox_block(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
          double* __restrict__ sums, float* __restrict__ exponents, float* __restrict__ gradient, float* __restrict__ loss,
          unsigned int n, unsigned int at_risk, unsigned int moments, unsigned int tiles, unsigned int efron, double divisor) {
    DYNAMIC_SHARED(double, shared);
    const Work work(table, weights, log_risk, sums, exponents, n, at_risk, moments, tiles, efron);
    const unsigned size = blockDim.x * ITEMS;
    Run<1> risk{};
    for (unsigned first = 0; first < at_risk; first += size) {
        const Tile<1> tile = tile_of<1>(shared, work.count(first, size));
        work.give_terms(tile, first);
        risk = tile.scan(risk);
        work.keep_risk(tile, first);
        __syncthreads();  // the tile is overwritten next, and its risk sets are read
    }
    double cost = 0.;
    Run<2> hazard{};
    for (unsigned left = (at_risk + size - 1) / size; left-- > 0;) {
        const Tile<2> tile = tile_of<2>(shared, work.count(left * size, size));
        work.give_charges(tile, left * size, &cost);
        hazard = tile.scan(hazard);
        work.keep_hazard(tile, left * size);
        __syncthreads();  // the tile is overwritten next, and its hazards are read
    }
    for (unsigned p = threadIdx.x; p < n; p += blockDim.x) {
        gradient[work.order[p]] = (float)(work.slope(p) / divisor);
        if (p >= at_risk) cost += work.cost_of_absent(p);
    }
    cost = block_sum(cost);
    if (threadIdx.x == 0) *loss = (float)(cost / divisor);
}

// What each patient adds to risk sets, and what each tile does.
extern "C" __global__ void __launch_bounds__(256, 4)
cox_terms(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
          double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int at_risk, unsigned int moments,
          unsigned int tiles, unsigned int efron) {
    DYNAMIC_SHARED(double, shared);
    const Work work(table, weights, log_risk, sums, exponents, n, at_risk, moments, tiles, efron);
    const unsigned size = blockDim.x * ITEMS, first = blockIdx.x * size;
    const Tile<1> tile = tile_of<1>(shared, work.count(first, size));
    work.give_terms(tile, first);
    work.keep_tile(tile.whole(), blockIdx.x);
}

// The risk set of each moment.
extern "C" __global__ void __launch_bounds__(256, 4)
cox_risk_sets(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
              double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int at_risk, unsigned int moments,
              unsigned int tiles, unsigned int efron) {
    DYNAMIC_SHARED(double, shared);
    const Work work(table, weights, log_risk, sums, exponents, n, at_risk, moments, tiles, efron);
    const unsigned size = blockDim.x * ITEMS, first = blockIdx.x * size;
    const Tile<1> tile = tile_of<1>(shared, work.count(first, size));
    work.give_kept_terms(tile, first);
    tile.scan(work.tiles_before<1>(blockIdx.x));
    work.keep_risk(tile, first);
}

// What the deaths of each tile charge, and cost.
extern "C" __global__ void __launch_bounds__(256, 4)
cox_charges(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
            double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int at_risk, unsigned int moments,
            unsigned int tiles, unsigned int efron) {
    DYNAMIC_SHARED(double, shared);
    const Work work(table, weights, log_risk, sums, exponents, n, at_risk, moments, tiles, efron);
    const unsigned size = blockDim.x * ITEMS, first = blockIdx.x * size;
    const Tile<2> tile = tile_of<2>(shared, work.count(first, size));
    double cost = 0.;
    work.give_charges(tile, first, &cost);
    work.keep_tile(tile.whole(), tiles - 1 - blockIdx.x);
    for (unsigned i = tile.count + threadIdx.x; i < size && first + i < n; i += blockDim.x) cost += work.cost_of_absent(first + i);
    cost = block_sum(cost);
    if (threadIdx.x == 0) work.losses[blockIdx.x] = cost;
}

// The hazard up to each moment.
extern "C" __global__ void __launch_bounds__(256, 4)
cox_hazards(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
            double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int at_risk, unsigned int moments,
            unsigned int tiles, unsigned int efron) {
    DYNAMIC_SHARED(double, shared);
    const Work work(table, weights, log_risk, sums, exponents, n, at_risk, moments, tiles, efron);
    const unsigned size = blockDim.x * ITEMS, first = blockIdx.x * size;
    const Tile<2> tile = tile_of<2>(shared, work.count(first, size));
    work.give_charges(tile, first, nullptr);
    tile.scan(work.tiles_before<2>(tiles - 1 - blockIdx.x));
    work.keep_hazard(tile, first);
}

// The gradient of each patient; the first block adds up the loss.
extern "C" __global__ void __launch_bounds__(256)
cox_gradient(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
             double* __restrict__ sums, float* __restrict__ exponents, float* __restrict__ gradient, float* __restrict__ loss,
             unsigned int n, unsigned int at_risk, unsigned int moments, unsigned int tiles, unsigned int efron, double divisor) {
    const Work work(table, weights, log_risk, sums, exponents, n, at_risk, moments, tiles, efron);
    const size_t p = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if (p < n) gradient[work.order[p]] = (float)(work.slope((unsigned)p) / divisor);
    if (blockIdx.x > 0) return;
    double cost = 0.;
    for (unsigned t = threadIdx.x; t < tiles; t += blockDim.x) cost += work.losses[t];
    cost = block_sum(cost);
    if (threadIdx.x == 0) *loss = (float)(cost / divisor);
}

// What the log risks are owed for what the loss is owed.
extern "C" __global__ void __launch_bounds__(256)
cox_backward(const float* __restrict__ gradient, const float* __restrict__ grad, float* __restrict__ dx, unsigned int n) {
    const size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if (i < n) dx[i] = gradient[i] * *grad;
}

// ---- patients who enter late ----
// Risk sets are windows that do not nest, so no scan has them, and a difference of two scans loses the digits of what is small. A
// tree over the moments only adds: node i covers nodes 2 i and 2 i + 1, moment e is node `moments + e`, and a window is at most two
// nodes a level. Patients are added to the nodes of their windows; a risk set is what its moment and the nodes above it got. Hazards
// go up the tree, and a patient is charged those of the nodes of the window.

// Beside the end of a window: who it is of dies at that moment.
constexpr unsigned DIES = 0x80000000u;

// All arguments of these kernels, and where what lies in the scratch memory.
struct Windows {
    const unsigned *members, *firsts, *ends, *starts;
    const double *weight, *weights;  // of patients and of moments, or null
    const float* log_risk;
    double *terms, *risk, *hazard, *own, *losses;
    float *exponents, *risk_exponents, *hazard_exponents;
    unsigned n, moments, tiles;
    bool efron;

    __device__ __forceinline__ Windows(const unsigned* table, const double* weight_or_null, const float* log_risk, double* sums,
                                       float* exponents, unsigned n, unsigned moments, unsigned count, unsigned tiles,
                                       unsigned efron)
        : members(table), firsts(members + count), ends(firsts + n), starts(ends + n), weight(weight_or_null),
          weights(weight ? weight + n : nullptr), log_risk(log_risk), terms(sums), risk(terms + n), hazard(risk + 3 * (size_t)moments),
          own(hazard + 2 * (size_t)moments), losses(own + moments), exponents(exponents), risk_exponents(exponents + n),
          hazard_exponents(risk_exponents + 3 * (size_t)moments), n(n), moments(moments), tiles(tiles), efron(efron != 0) {}

    __device__ __forceinline__ Run<1> term_at(size_t p) const { return {{terms[p]}, exponents[p], 0}; }
    __device__ __forceinline__ Run<1> risk_at(size_t node) const { return {{risk[node]}, risk_exponents[node], 0}; }
    __device__ __forceinline__ Run<1> hazard_at(size_t node) const { return {{hazard[node]}, hazard_exponents[node], 0}; }
    __device__ __forceinline__ void keep_hazard(size_t node, Run<1> v) const { hazard[node] = v.sum[0], hazard_exponents[node] = v.exponent; }

    __device__ __forceinline__ double slope(size_t p) const {
        const unsigned end = ends[p] & ~DIES;
        Run<1> lived{};
        for (size_t left = firsts[p] + (size_t)moments, right = end + (size_t)moments; left < right; left /= 2, right /= 2) {
            if (left % 2) lived = lived + hazard_at(left++);
            if (right % 2) lived = lived + hazard_at(--right);
        }
        if (ends[p] & DIES) {
            lived = lived + Run<1>{{own[end]}, hazard_exponents[moments + (size_t)end], 0};
            return slope_of(term_at(p), lived, weight ? weight[p] : 1.);
        }
        // Who was never at risk is owed nothing, whatever the log risk.
        return lived.sum[0] == 0. ? 0. : slope_of(term_at(p), lived, 0.);
    }
};

// What each patient adds to risk sets; the loss of each block is NaN if a log risk of it is no number.
extern "C" __global__ void __launch_bounds__(256)
cox_truncated_terms(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
                    double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int moments,
                    unsigned int members, unsigned int tiles, unsigned int efron) {
    const Windows work(table, weights, log_risk, sums, exponents, n, moments, members, tiles, efron);
    const size_t p = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    double cost = 0.;
    if (p < n) {
        const float eta = log_risk[p];
        const Run<1> v = term(eta, work.weight ? work.weight[p] : 1.);
        work.terms[p] = v.sum[0], work.exponents[p] = v.exponent;
        cost = eta - eta;
    }
    cost = block_sum(cost);
    if (threadIdx.x == 0) work.losses[moments + (size_t)blockIdx.x] = cost;
}

// What the members of each node come to: nodes of the tree, and behind them who dies at each moment.
extern "C" __global__ void __launch_bounds__(128)
cox_truncated_nodes(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
                    double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int moments,
                    unsigned int members, unsigned int tiles, unsigned int efron) {
    const Windows work(table, weights, log_risk, sums, exponents, n, moments, members, tiles, efron);
    Run<1> mine{}, all;
    for (unsigned i = work.starts[blockIdx.x] + threadIdx.x; i < work.starts[blockIdx.x + 1]; i += blockDim.x)
        mine = mine + work.term_at(work.members[i]);
    over_threads_before(mine, all);
    if (threadIdx.x == 0) work.risk[blockIdx.x] = all.sum[0], work.risk_exponents[blockIdx.x] = all.exponent;
}

// What the deaths of each moment cost, and what they charge.
extern "C" __global__ void __launch_bounds__(128)
cox_truncated_moments(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
                      double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int moments,
                      unsigned int members, unsigned int tiles, unsigned int efron) {
    const Windows work(table, weights, log_risk, sums, exponents, n, moments, members, tiles, efron);
    const size_t e = blockIdx.x;
    Run<1> surviving{};
    for (size_t node = moments + e; node > 0; node /= 2) surviving = surviving + work.risk_at(node);
    const Run<1> dying = work.risk_at(2 * (size_t)moments + e);
    const float exponent = (surviving + dying).exponent;
    const double alive = surviving.sum[0] * shifted(surviving.exponent - exponent);
    const double dead = dying.sum[0] * shifted(dying.exponent - exponent);
    const unsigned first = work.starts[2 * (size_t)moments + e], end = work.starts[2 * (size_t)moments + e + 1];
    // Breslow is the case of one term that stands for all deaths.
    const unsigned deaths = end - first, shares = work.efron ? deaths : 1;
    const double mean = (work.weights ? work.weights[e] : (double)deaths) / shares;
    double costs[3] = {};  // then what a unit of risk is charged that survives the moment, and one that dies at it
    for (unsigned k = threadIdx.x; k < shares; k += blockDim.x) {
        const double still_there = (double)(shares - k) / shares, sum = alive + still_there * dead, charge = mean / sum;
        costs[0] += mean * log(sum), costs[1] += charge, costs[2] += still_there * charge;
    }
    for (unsigned i = first + threadIdx.x; i < end; i += blockDim.x) {
        const unsigned p = work.members[i];
        costs[0] += (work.weight ? work.weight[p] : 1.) * (logarithm(exponent) - log_risk[p]);
    }
    block_sums(costs);
    if (threadIdx.x != 0) return;
    work.losses[e] = costs[0], work.own[e] = costs[2];
    work.keep_hazard(moments + e, {{costs[1]}, -exponent, 0});
}

// The hazard of each node, from the moments up, in one block.
extern "C" __global__ void __launch_bounds__(512)
cox_truncated_tree(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
                   double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int moments,
                   unsigned int members, unsigned int tiles, unsigned int efron) {
    const Windows work(table, weights, log_risk, sums, exponents, n, moments, members, tiles, efron);
    // Both nodes under those from half of `end` on lie from `end` on.
    for (unsigned end = moments, first; end > 1; end = first) {
        first = (end + 1) / 2;
        for (size_t i = first + threadIdx.x; i < end; i += blockDim.x) work.keep_hazard(i, work.hazard_at(2 * i) + work.hazard_at(2 * i + 1));
        __syncthreads();  // the nodes above them add them up
    }
}

// The gradient of each patient; the first block adds up the loss.
extern "C" __global__ void __launch_bounds__(256)
cox_truncated_gradient(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk,
                       double* __restrict__ sums, float* __restrict__ exponents, float* __restrict__ gradient, float* __restrict__ loss,
                       unsigned int n, unsigned int moments, unsigned int members, unsigned int tiles, unsigned int efron, double divisor) {
    const Windows work(table, weights, log_risk, sums, exponents, n, moments, members, tiles, efron);
    const size_t p = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if (p < n) gradient[p] = (float)(work.slope(p) / divisor);
    if (blockIdx.x > 0) return;
    double cost = 0.;
    for (size_t t = threadIdx.x; t < moments + (size_t)tiles; t += blockDim.x) cost += work.losses[t];
    cost = block_sum(cost);
    if (threadIdx.x == 0) *loss = (float)(cost / divisor);
}
