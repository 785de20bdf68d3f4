// The discrete-time survival likelihood and its gradient.
// Page: src/ops/nll_survival/mod.rs.
// One thread a patient, blocks over chunks of patients; the sums of several chunks are added by a second kernel, in order.
// Floor: 8 bytes a logit.
#include "block.cuh"

// -log of a factor, or of eps where it is smaller and `slope` is false. NaN stays NaN.
__device__ __forceinline__ double negative_log(double factor, double eps, bool& slope) {
    slope = !(factor < eps);
    return -log(slope ? factor : eps);
}
__device__ __forceinline__ double sigmoid(double x) {
    const double e = exp(-fabs(x));
    return (x < 0. ? e : 1.) / (1. + e);
}

// `outcome` is twice the bin, and one more if censored in it. Of one chunk the sum is the loss.
extern "C" __global__ void __launch_bounds__(256, 3)
nll_survival_forward(const float* __restrict__ logits, const unsigned int* __restrict__ outcome, float* __restrict__ gradient,
                     double* __restrict__ partials, float* __restrict__ loss, unsigned int patients, unsigned int bins,
                     unsigned int chunk, double alpha, double eps, double divisor) {
    const size_t end = min((size_t)patients, ((size_t)blockIdx.x + 1) * chunk);
    double sum = 0.;
    for (size_t b = (size_t)blockIdx.x * chunk + threadIdx.x; b < end; b += blockDim.x) {
        const float* const logit = logits + b * bins;
        float* const slope = gradient + b * bins;
        const unsigned y = outcome[b] / 2;
        const bool censored = outcome[b] % 2 == 1;
        // Until its end if censored in the interval, until its start if dead.
        const unsigned survived = censored ? y + 1 : y;
        const double weight = censored ? 1. - alpha : 1.;
        double alive = 1., odd = 0.;
        for (unsigned k = 0; k < bins; ++k) {
            if (k < survived) alive *= sigmoid(-(double)logit[k]);
            odd += logit[k] - logit[k];  // a logit that is no number is told by the loss, wherever it stands
        }
        bool slopes;
        double cost = negative_log(alive, eps, slopes);
        for (unsigned k = 0; k < bins; ++k) {
            slope[k] = k < survived && slopes ? (float)(weight * sigmoid((double)logit[k]) / divisor) : 0.f;
        }
        if (!censored) {
            cost += negative_log(sigmoid((double)logit[y]), eps, slopes);
            if (slopes) slope[y] = (float)(-sigmoid(-(double)logit[y]) / divisor);
        }
        sum += weight * cost + odd;
    }
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    partials[blockIdx.x] = sum;
    if (gridDim.x == 1) *loss = (float)(sum / divisor);
}

// The loss out of the sums of the chunks. One block.
extern "C" __global__ void __launch_bounds__(256)
nll_survival_sum(const double* __restrict__ partials, float* __restrict__ loss, unsigned int chunks, double divisor) {
    double sum = 0.;
    for (unsigned i = threadIdx.x; i < chunks; i += blockDim.x) sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *loss = (float)(sum / divisor);
}

// What the logits are owed for what the loss is owed.
extern "C" __global__ void __launch_bounds__(256)
nll_survival_backward(const float* __restrict__ gradient, const float* __restrict__ grad, float* __restrict__ dx,
                      unsigned long long n) {
    const size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if (i < n) dx[i] = gradient[i] * *grad;
}
