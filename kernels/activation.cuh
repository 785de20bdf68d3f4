// The activation functions of src/ops/activation.rs, by their place in `Activation::ALL`, in full f32 accuracy.
#pragma once
#include "device.cuh"

namespace activation {
enum : unsigned { IDENTITY, RELU, ELU, GELU, TANH, SIGMOID };

__device__ __forceinline__ float value(unsigned which, float x) {
    switch (which) {
        case RELU: return x <= 0 ? 0 : x;  // a NaN stays one
        case ELU: return x > 0 ? x : expm1f(x);
        case GELU: return x < -14 ? 0 * x : 0.5f * x * erfcf(-0.70710678f * x);  // a product with the 0 of erfc(inf) would be NaN at -inf
        case TANH: return tanhf(x);
        case SIGMOID: {
            const float e = expf(-fabsf(x));
            return (x >= 0 ? 1 : e) / (1 + e);
        }
        default: return x;
    }
}
// The derivative, from what the CPU takes it from: the argument for GELU, the result for the others.
__device__ __forceinline__ float slope(unsigned which, float kept) {
    switch (which) {
        case RELU: return kept > 0 ? 1 : 0;
        case ELU: return kept > 0 ? 1 : kept + 1;
        case GELU: {
            const float x = fminf(fmaxf(kept, -15), 15);
            const float at_x = 0.5f * erfcf(-0.70710678f * x) + x * 0.39894228f * expf(-0.5f * x * x);
            return kept == kept ? at_x : kept;  // fminf loses a NaN
        }
        case TANH: return 1 - kept * kept;
        case SIGMOID: return kept * (1 - kept);
        default: return 1;
    }
}
}  // namespace activation
