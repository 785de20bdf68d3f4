// standardize: a standardisation of inputs folded into the weight and bias of the layer that takes them.
// Page: src/ops/standardize/mod.rs. A block an output, its threads over the inputs; the new bias is summed in f64.
// Floor on an H200, 512 x 1024: 4 MB, 1 us: a launch costs more.
#include "block.cuh"

extern "C" __global__ void __launch_bounds__(128) standardize_forward(const float* __restrict__ weight, const float* __restrict__ bias,
    const float* __restrict__ mean, const float* __restrict__ deviation, float* __restrict__ w, float* __restrict__ b, unsigned int inputs) {
    const size_t row = (size_t)blockIdx.x * inputs;
    double shift = 0;
    for (unsigned i = threadIdx.x; i < inputs; i += 128) {
        const float v = deviation[i] > 0 ? weight[row + i] / deviation[i] : NAN;  // the CPU refuses such a deviation
        w[row + i] = v;
        shift += (double)v * mean[i];
    }
    shift = block_sum(shift);
    if (threadIdx.x == 0) b[blockIdx.x] = (float)(bias[blockIdx.x] - shift);
}

extern "C" __global__ void __launch_bounds__(128) standardize_backward(const float* __restrict__ gw, const float* __restrict__ gb,
    const float* __restrict__ mean, const float* __restrict__ deviation, float* __restrict__ dw, unsigned int inputs) {
    const size_t row = (size_t)blockIdx.x * inputs;
    const float g = gb[blockIdx.x];
    for (unsigned i = threadIdx.x; i < inputs; i += 128) dw[row + i] = (gw[row + i] - g * mean[i]) / deviation[i];
}
