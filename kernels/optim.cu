// Steps of AdamW and RAdam on all parameters at once, and the norm of their gradients.
// Page: src/optim/mod.rs. The table has a row a parameter: src/optim/cuda.rs.
// One block a chunk of 4096 elements of one parameter, 16 bytes a thread at a time; squares are added chunk by chunk and then, by
// a second kernel, over the chunks in order. Floor: 28 bytes an element for a step, 4 for the norm.
// Each operation rounds once, in the order of the CPU's: the same bits. What is clipped has its norm from another order of sums.
#include "block.cuh"

constexpr unsigned CHUNK = 4096, WORDS = 8;

// One parameter: the first of its chunks, its elements, where they lie and what the step does to them.
struct Parameter {
    size_t first_chunk, elements;
    float *p, *mean, *square, *grad;
    float keep, rate, root;
};

// The one that a chunk belongs to: the last that begins no later.
__device__ __forceinline__ Parameter parameter_of(const unsigned long long* __restrict__ table, unsigned parameters, unsigned chunk) {
    unsigned low = 0, high = parameters;
    while (high - low > 1) {
        const unsigned middle = (low + high) / 2;
        if (table[(size_t)middle * WORDS] <= chunk) low = middle;
        else high = middle;
    }
    const unsigned long long* const row = table + (size_t)low * WORDS;
    const auto address = [&](int i) { return reinterpret_cast<float*>(static_cast<size_t>(row[i])); };
    return {row[0], row[1], address(2), address(3), address(4), address(5),
            __uint_as_float((unsigned)row[6]), __uint_as_float((unsigned)(row[6] >> 32)), __uint_as_float((unsigned)row[7])};
}

// Four neighbours of a parameter, those past its end zero. A parameter begins at a multiple of 16 bytes.
struct Four {
    float v[4];
    __device__ __forceinline__ static Four load(const float* p, size_t left) {
        Four r{};
        if (left >= 4) {
            const float4 all = *reinterpret_cast<const float4*>(p);
            r.v[0] = all.x, r.v[1] = all.y, r.v[2] = all.z, r.v[3] = all.w;
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if ((size_t)i < left) r.v[i] = p[i];
        }
        return r;
    }
    __device__ __forceinline__ void store(float* p, size_t left) const {
        if (left >= 4) {
            *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if ((size_t)i < left) p[i] = v[i];
        }
    }
};

// What gradients are multiplied by so that their norm is at most `most`; 1 where there is no such factor.
__device__ __forceinline__ double factor_of(double norm, double most) { return norm > most && norm - norm == 0. ? most / norm : 1.; }

struct AdamW {
    __device__ __forceinline__ static float moved(float p, float mean, float square, const Parameter& of, float eps) {
        const float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(square), of.root), eps);
        return __fsub_rn(__fmul_rn(p, of.keep), __fdiv_rn(__fmul_rn(of.rate, mean), root));
    }
};
struct RAdam {  // a root of 0: the mean alone
    __device__ __forceinline__ static float moved(float p, float mean, float square, const Parameter& of, float eps) {
        const float by = of.root == 0.f ? mean : __fdiv_rn(mean, __fadd_rn(__fsqrt_rn(square), eps));
        return __fsub_rn(__fmul_rn(p, of.keep), __fmul_rn(of.rate, by));
    }
};

// Nothing moves if there is a norm that is not finite.
template <class Rule> __device__ __forceinline__ void step(const unsigned long long* __restrict__ table, const double* __restrict__ norm,
                                                           unsigned parameters, double most, float keep_mean, float take_mean,
                                                           float keep_square, float take_square, float eps) {
    if (norm && *norm - *norm != 0.) return;
    const double factor = norm ? factor_of(*norm, most) : 1.;
    const Parameter of = parameter_of(table, parameters, blockIdx.x);
    const size_t first = (blockIdx.x - of.first_chunk) * CHUNK, end = min(first + CHUNK, of.elements);
    for (size_t at = first + 4 * threadIdx.x; at < end; at += 4 * blockDim.x) {
        const size_t left = end - at;
        const Four grad = Four::load(of.grad + at, left);
        Four p = Four::load(of.p + at, left), mean = Four::load(of.mean + at, left), square = Four::load(of.square + at, left);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float g = factor == 1. ? grad.v[i] : (float)(grad.v[i] * factor);
            mean.v[i] = __fadd_rn(__fmul_rn(keep_mean, mean.v[i]), __fmul_rn(take_mean, g));
            square.v[i] = __fadd_rn(__fmul_rn(keep_square, square.v[i]), __fmul_rn(__fmul_rn(take_square, g), g));
            p.v[i] = Rule::moved(p.v[i], mean.v[i], square.v[i], of, eps);
        }
        mean.store(of.mean + at, left), square.store(of.square + at, left), p.store(of.p + at, left);
    }
}

extern "C" __global__ void __launch_bounds__(256)
optim_adamw(const unsigned long long* __restrict__ table, const double* __restrict__ norm, unsigned int parameters, double most,
            float keep_mean, float take_mean, float keep_square, float take_square, float eps) {
    step<AdamW>(table, norm, parameters, most, keep_mean, take_mean, keep_square, take_square, eps);
}

extern "C" __global__ void __launch_bounds__(256)
optim_radam(const unsigned long long* __restrict__ table, const double* __restrict__ norm, unsigned int parameters, double most,
            float keep_mean, float take_mean, float keep_square, float take_square, float eps) {
    step<RAdam>(table, norm, parameters, most, keep_mean, take_mean, keep_square, take_square, eps);
}

// The sum of the squares of the gradients of each chunk.
extern "C" __global__ void __launch_bounds__(256)
optim_squares(const unsigned long long* __restrict__ table, double* __restrict__ partials, unsigned int parameters, unsigned int chunks) {
    const Parameter of = parameter_of(table, parameters, blockIdx.x);
    const size_t first = (blockIdx.x - of.first_chunk) * CHUNK, end = min(first + CHUNK, of.elements);
    double sum = 0.;
    for (size_t at = first + 4 * threadIdx.x; at < end; at += 4 * blockDim.x) {
        const Four grad = Four::load(of.grad + at, end - at);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum += (double)grad.v[i] * grad.v[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0 && blockIdx.x < chunks) partials[blockIdx.x] = sum;
}

// The norm out of them. One block.
extern "C" __global__ void __launch_bounds__(1024)
optim_norm(const double* __restrict__ partials, double* __restrict__ norm, unsigned int chunks) {
    double sum = 0.;
    for (unsigned i = threadIdx.x; i < chunks; i += blockDim.x) sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *norm = sqrt(sum);
}

// Gradients so that their norm is at most `most`.
extern "C" __global__ void __launch_bounds__(256)
optim_clip(const unsigned long long* __restrict__ table, const double* __restrict__ norm, unsigned int parameters, double most) {
    const double factor = factor_of(*norm, most);
    if (factor == 1.) return;
    const Parameter of = parameter_of(table, parameters, blockIdx.x);
    const size_t first = (blockIdx.x - of.first_chunk) * CHUNK, end = min(first + CHUNK, of.elements);
    for (size_t at = first + 4 * threadIdx.x; at < end; at += 4 * blockDim.x) {
        Four grad = Four::load(of.grad + at, end - at);
#pragma unroll
        for (int i = 0; i < 4; ++i) grad.v[i] = (float)(grad.v[i] * factor);
        grad.store(of.grad + at, end - at);
    }
}
