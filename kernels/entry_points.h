// Made from the declarations in src/ops/*/cuda.rs, so that a definition that disagrees does not compile.
// `ONKOS_BLESS=1 cargo test --test house entry_points` writes it anew.
#pragma once

// add.cu
extern "C" __global__ void add_forward(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ y, unsigned long long n);
extern "C" __global__ void add_accumulate(const float* __restrict__ x, float* __restrict__ sum, unsigned long long n);

// cox.cu
extern "C" __global__ void cox_block(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk, double* __restrict__ sums, float* __restrict__ exponents, float* __restrict__ gradient, float* __restrict__ loss, unsigned int n, unsigned int at_risk, unsigned int moments, unsigned int tiles, unsigned int efron, double divisor);
extern "C" __global__ void cox_terms(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk, double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int at_risk, unsigned int moments, unsigned int tiles, unsigned int efron);
extern "C" __global__ void cox_risk_sets(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk, double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int at_risk, unsigned int moments, unsigned int tiles, unsigned int efron);
extern "C" __global__ void cox_charges(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk, double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int at_risk, unsigned int moments, unsigned int tiles, unsigned int efron);
extern "C" __global__ void cox_hazards(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk, double* __restrict__ sums, float* __restrict__ exponents, unsigned int n, unsigned int at_risk, unsigned int moments, unsigned int tiles, unsigned int efron);
extern "C" __global__ void cox_gradient(const unsigned int* __restrict__ table, const double* __restrict__ weights, const float* __restrict__ log_risk, double* __restrict__ sums, float* __restrict__ exponents, float* __restrict__ gradient, float* __restrict__ loss, unsigned int n, unsigned int at_risk, unsigned int moments, unsigned int tiles, unsigned int efron, double divisor);
extern "C" __global__ void cox_backward(const float* __restrict__ gradient, const float* __restrict__ grad, float* __restrict__ dx, unsigned int n);

// layer_norm.cu
extern "C" __global__ void layer_norm_forward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y, unsigned int rows, unsigned int columns, float eps);
extern "C" __global__ void layer_norm_backward(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ grad, float* __restrict__ dx, float* __restrict__ partials, unsigned int rows, unsigned int columns, unsigned int chunk, float eps);
extern "C" __global__ void layer_norm_sum(const float* __restrict__ partials, float* __restrict__ dw, float* __restrict__ db, unsigned int chunks, unsigned int columns);

// nll_survival.cu
extern "C" __global__ void nll_survival_forward(const float* __restrict__ logits, const unsigned int* __restrict__ outcome, float* __restrict__ gradient, double* __restrict__ partials, float* __restrict__ loss, unsigned int patients, unsigned int bins, unsigned int chunk, double alpha, double eps, double divisor);
extern "C" __global__ void nll_survival_sum(const double* __restrict__ partials, float* __restrict__ loss, unsigned int chunks, double divisor);
extern "C" __global__ void nll_survival_backward(const float* __restrict__ gradient, const float* __restrict__ grad, float* __restrict__ dx, unsigned long long n);

// optim.cu
extern "C" __global__ void optim_adamw(const unsigned long long* __restrict__ table, const double* __restrict__ norm, unsigned int parameters, double most, float keep_mean, float take_mean, float keep_square, float take_square, float eps);
extern "C" __global__ void optim_radam(const unsigned long long* __restrict__ table, const double* __restrict__ norm, unsigned int parameters, double most, float keep_mean, float take_mean, float keep_square, float take_square, float eps);
extern "C" __global__ void optim_squares(const unsigned long long* __restrict__ table, double* __restrict__ partials, unsigned int parameters, unsigned int chunks);
extern "C" __global__ void optim_norm(const double* __restrict__ partials, double* __restrict__ norm, unsigned int chunks);
extern "C" __global__ void optim_clip(const unsigned long long* __restrict__ table, const double* __restrict__ norm, unsigned int parameters, double most);
