// libcublasLt.so for a machine without CUDA: checks what it is given, and multiplies on the host when the stream comes to
// it. Its queue and its knowledge of device memory are those of the emulated driver (beside.h).
#include "beside.h"
#include "narrow.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {
enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77 };
enum { REDUCTION_INPLACE = 1, REDUCTION_COMPUTE_TYPE = 2 };
constexpr uint64_t MAGIC = 0x6d746c7361627563;
constexpr size_t ALIGNMENT = 256;  // what a preference says of matrices unless it is told otherwise

struct Layout { int type; uint64_t rows, columns; int64_t leading; };  // column after column
struct Desc { int compute; bool transposed[2]; };                     // of A and B
struct Preference { uint64_t workspace = 0; uint32_t reductions = 7; };
struct Handle {};
// What is alive, so that anything else is seen.
template <class T> struct Alive {
    std::map<void*, std::unique_ptr<T>> all;
    int make(void** to, T value) {
        auto made = std::make_unique<T>(std::move(value));
        *to = made.get();
        return all[*to] = std::move(made), SUCCESS;
    }
    T* find(void* p) { auto it = all.find(p); return it == all.end() ? nullptr : it->second.get(); }
    int destroy(void* p) { return all.erase(p) ? SUCCESS : INVALID_VALUE; }
};
std::mutex lock_;
Alive<Layout> layouts;
Alive<Desc> descs;
Alive<Preference> preferences;
Alive<Handle> handles;

// The emulated driver, if that is the one of this process.
template <class F> F* of_driver(const char* name) {
    static void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return driver ? (F*)dlsym(driver, name) : nullptr;
}
int refused(const std::string& why) { return std::fprintf(stderr, "emulated cuBLASLt: %s\n", why.c_str()), INVALID_VALUE; }

size_t bytes_of(int type) { return type == R_32F ? 4 : 2; }
// All that an algorithm is chosen by: it is in the algorithm, so that one of another product is seen.
struct Problem {
    int compute, type;
    bool a_across, b_across, in_two;
    uint64_t m, n, k;  // of the library: rows and columns of the result
    int64_t lda, ldb, ldd;
    uint64_t hash() const {
        uint64_t h = MAGIC;
        for (uint64_t v : {uint64_t(compute), uint64_t(type), uint64_t(a_across) | uint64_t(b_across) << 1, m, n, k, uint64_t(lda), uint64_t(ldb), uint64_t(ldd)})
            h = (h ^ v) * 0x9e3779b97f4a7c15, h ^= h >> 29;
        return h;
    }
    // Two halves of a long sum lie in the workspace until they are added.
    size_t workspace() const { return in_two ? 2 * m * n * sizeof(float) : 0; }
};
struct Algorithm { uint64_t magic, problem, reduction, workspace, rest[4]; };
static_assert(sizeof(Algorithm) == 64);
struct Answer { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; };

// Whether a product makes sense: what the real library refuses, or would read past.
int understand(void* desc, void* a_, void* b_, void* c_, void* d_, Problem& p) {
    auto *of = descs.find(desc);
    auto *a = layouts.find(a_), *b = layouts.find(b_), *c = layouts.find(c_), *d = layouts.find(d_);
    if (!of || !a || !b || !c || !d) return refused("a description that is not alive");
    for (auto* l : {a, b, c, d}) {
        if (!l->rows || !l->columns) return refused("a matrix of nothing");
        if (l->leading < int64_t(l->rows)) return refused("a leading dimension of " + std::to_string(l->leading) + " for columns of " + std::to_string(l->rows));
    }
    uint64_t m = of->transposed[0] ? a->columns : a->rows, k = of->transposed[0] ? a->rows : a->columns;
    uint64_t kb = of->transposed[1] ? b->columns : b->rows, n = of->transposed[1] ? b->rows : b->columns;
    if (k != kb || d->rows != m || d->columns != n || c->rows != m || c->columns != n)
        return refused("matrices that do not fit each other: " + std::to_string(m) + " x " + std::to_string(k) + " times " + std::to_string(kb) + " x " + std::to_string(n) +
                       " to " + std::to_string(d->rows) + " x " + std::to_string(d->columns));
    if (a->type != b->type || c->type != R_32F || d->type != R_32F) return refused("types that do not fit each other");
    if (of->compute == COMPUTE_32F_FAST_TF32 && a->type != R_32F) return refused("tf32 of factors that are not f32");
    p = {of->compute, a->type, of->transposed[0], of->transposed[1], false, m, n, k, a->leading, b->leading, d->leading};
    return SUCCESS;
}

float element(const void* from, int type, uint64_t at) {
    if (type == R_16F) return static_cast<const __half*>(from)[at];
    if (type == R_16BF) return static_cast<const __nv_bfloat16*>(from)[at];
    return static_cast<const float*>(from)[at];
}
float cut(double v) {  // as tensor cores do: see vocabulary.h
    auto f = float(v);
    return std::fabs(f) > std::fabs(v) ? std::nextafter(f, 0.f) : f;
}
// The factor column by column of the sum: `lines` times k, as it is multiplied.
std::vector<float> gathered(const Problem& p, const void* from, int64_t leading, bool along_k, uint64_t lines) {
    std::vector<float> to(lines * p.k);
    for (uint64_t line = 0; line < lines; ++line)
        for (uint64_t k = 0; k < p.k; ++k) {
            float v = element(from, p.type, along_k ? line * leading + k : k * leading + line);
            // To the nearest of 11 bits, ties away from zero.
            if (p.compute == COMPUTE_32F_FAST_TF32 && std::isfinite(v)) v = emu::bits<float>((emu::bits<uint32_t>(v) + 0x1000) & ~0x1fffu);
            to[line * p.k + k] = v;
        }
    return to;
}
float sum(const Problem& p, const float* a, const float* b, uint64_t begin, uint64_t end) {
    float total = 0;
    if (p.type == R_32F && p.compute == COMPUTE_32F) {
        for (uint64_t k = begin; k < end; ++k) total = std::fma(a[k], b[k], total);
        return total;
    }
    for (uint64_t k = begin; k < end; k += 16) {
        double step = total;
        for (uint64_t i = k; i < std::min(end, k + 16); ++i) step += double(a[i]) * b[i];
        total = cut(step);
    }
    return total;
}
struct Job {
    Problem p;
    const void *a, *b;
    float *d, *workspace;
    size_t bytes;
    static int run(void* job) {
        std::unique_ptr<Job> mine(static_cast<Job*>(job));
        return mine->multiply();
    }
    bool whole() const {
        auto* is_there = of_driver<int(const void*, size_t)>("emu_is_device_memory");
        auto span = [&](uint64_t lines, int64_t leading, uint64_t inner) { return (lines - 1) * leading + inner; };
        return is_there(a, bytes_of(p.type) * (p.a_across ? span(p.m, p.lda, p.k) : span(p.k, p.lda, p.m))) &&
               is_there(b, bytes_of(p.type) * (p.b_across ? span(p.k, p.ldb, p.n) : span(p.n, p.ldb, p.k))) &&
               is_there(d, 4 * span(p.n, p.ldd, p.m)) && (!bytes || is_there(workspace, bytes));
    }
    int multiply() const {
        // A kernel that comes too late for its memory.
        if (!whole()) return refused("memory that was freed before the stream came to it"), 1;
        // Whoever else uses the workspace finds nothing there.
        if (bytes) std::fill_n((unsigned char*)workspace, bytes, 0xff);
        auto left = gathered(p, a, p.lda, p.a_across, p.m), right = gathered(p, b, p.ldb, !p.b_across, p.n);
        for (uint64_t column = 0; column < p.n; ++column)
            for (uint64_t row = 0; row < p.m; ++row) {
                const float *x = &left[row * p.k], *y = &right[column * p.k];
                float& to = d[column * p.ldd + row];
                if (!p.in_two) {
                    to = sum(p, x, y, 0, p.k);
                    continue;
                }
                float* halves = workspace + 2 * (column * p.m + row);
                halves[0] = sum(p, x, y, 0, p.k / 2), halves[1] = sum(p, x, y, p.k / 2, p.k);
                to = halves[0] + halves[1];
            }
        return 0;
    }
};
}  // namespace

extern "C" {
size_t cublasLtGetVersion() {
    const char* s = std::getenv("EMU_CUBLASLT_VERSION");
    return s ? std::strtoull(s, nullptr, 10) : 130002;
}
size_t cublasLtGetCudartVersion() { return cublasLtGetVersion() / 10000 * 1000; }
const char* cublasLtGetStatusString(int status) {
    switch (status) {
        case SUCCESS: return "success";
        case NOT_INITIALIZED: return "the library was not initialized";
        case INVALID_VALUE: return "an unsupported value or parameter was passed to the function";
        case EXECUTION_FAILED: return "the function failed to launch on the GPU";
        case NOT_SUPPORTED: return "the requested functionality is not supported";
        default: return "unrecognized status";
    }
}
int cublasLtCreate(void** handle) {
    std::lock_guard guard(lock_);
    void* context = nullptr;
    auto* current = of_driver<int(void**)>("cuCtxGetCurrent");
    bool emulated = current && of_driver<int(void*, int (*)(void*), void*)>("emu_enqueue");
    if (!emulated || current(&context) || !context) return NOT_INITIALIZED;
    return handles.make(handle, {});
}
int cublasLtDestroy(void* handle) {
    std::lock_guard guard(lock_);
    return handles.destroy(handle);
}
int cublasLtMatmulDescCreate(void** to, int compute, int scale) {
    std::lock_guard guard(lock_);
    if ((compute != COMPUTE_32F && compute != COMPUTE_32F_FAST_TF32) || scale != R_32F) return refused("a way to calculate that is not emulated");
    return descs.make(to, {compute, {false, false}});
}
int cublasLtMatmulDescSetAttribute(void* desc, int attribute, const void* value, size_t bytes) {
    std::lock_guard guard(lock_);
    auto* d = descs.find(desc);
    int32_t operation;
    if (!d || (attribute != 3 && attribute != 4) || bytes != sizeof operation) return refused("an attribute of a product that is not emulated");
    std::memcpy(&operation, value, sizeof operation);
    if (operation != 0 && operation != 1) return refused("a transposition that is not emulated");
    return d->transposed[attribute - 3] = operation == 1, SUCCESS;
}
int cublasLtMatmulDescDestroy(void* desc) {
    std::lock_guard guard(lock_);
    return descs.destroy(desc);
}
int cublasLtMatrixLayoutCreate(void** to, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    std::lock_guard guard(lock_);
    if (type != R_32F && type != R_16F && type != R_16BF) return refused("a type that is not emulated");
    return layouts.make(to, {type, rows, columns, leading});  // a leading dimension is looked at with the product, as there
}
int cublasLtMatrixLayoutDestroy(void* layout) {
    std::lock_guard guard(lock_);
    return layouts.destroy(layout);
}
int cublasLtMatmulPreferenceCreate(void** to) {
    std::lock_guard guard(lock_);
    return preferences.make(to, {});
}
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
    std::lock_guard guard(lock_);
    auto* p = preferences.find(preference);
    if (p && attribute == 1 && bytes == sizeof p->workspace) return std::memcpy(&p->workspace, value, bytes), SUCCESS;
    if (p && attribute == 3 && bytes == sizeof p->reductions) return std::memcpy(&p->reductions, value, bytes), SUCCESS;
    return refused("an attribute of a preference that is not emulated");
}
int cublasLtMatmulPreferenceDestroy(void* preference) {
    std::lock_guard guard(lock_);
    return preferences.destroy(preference);
}
int cublasLtMatmulAlgoGetHeuristic(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference, int wanted, Answer* answers, int* count) {
    std::lock_guard guard(lock_);
    auto* p = preferences.find(preference);
    Problem problem;
    if (!handles.find(handle) || !p || wanted < 1 || !answers || !count) return refused("a question that makes no sense");
    if (int wrong = understand(desc, a, b, c, d, problem)) return wrong;
    const char* none = std::getenv("EMU_CUBLASLT");
    if (none && std::string(none) == "none") return *count = 0, NOT_SUPPORTED;
    // Long sums in two parts where it may; those that are added in place come in any order.
    uint64_t reduction = problem.k < 300 ? 0 : p->reductions & REDUCTION_INPLACE ? uint64_t(REDUCTION_INPLACE) : p->reductions & REDUCTION_COMPUTE_TYPE;
    problem.in_two = reduction == REDUCTION_COMPUTE_TYPE;
    if (problem.workspace() > p->workspace) problem.in_two = false, reduction = 0;
    *answers = {{MAGIC, problem.hash(), reduction, problem.workspace(), {}}, problem.workspace(), SUCCESS, 1, {}};
    return *count = 1, SUCCESS;
}
int cublasLtMatmul(void* handle, void* desc, const void* alpha, const void* a, void* a_, const void* b, void* b_, const void* beta, const void* c, void* c_, void* d,
                   void* d_, const Algorithm* algorithm, void* workspace, size_t bytes, void* stream) {
    std::lock_guard guard(lock_);
    Problem problem;
    if (!handles.find(handle) || !alpha || !beta || !a || !b || !c || !d || !algorithm) return refused("a product without all that it needs");
    if (int wrong = understand(desc, a_, b_, c_, d_, problem)) return wrong;
    if (*(const float*)alpha != 1 || *(const float*)beta != 0) return refused("factors that are not emulated");
    if (algorithm->magic != MAGIC || algorithm->problem != problem.hash()) return refused("an algorithm of another product");
    if (algorithm->reduction == REDUCTION_INPLACE) return refused("parts of a sum would be added in any order");
    if (algorithm->workspace > bytes) return refused("a workspace of " + std::to_string(bytes) + " bytes for an algorithm of " + std::to_string(algorithm->workspace));
    for (auto p : {a, b, c, (const void*)d, (const void*)workspace})
        if ((uintptr_t)p % ALIGNMENT) return refused("a matrix that does not begin on 256 bytes");
    problem.in_two = algorithm->reduction == REDUCTION_COMPUTE_TYPE;
    auto job = std::make_unique<Job>(Job{problem, a, b, (float*)d, (float*)workspace, bytes});
    if (!job->whole()) return refused("a matrix or a workspace past the end of its memory");
    auto* enqueue = of_driver<int(void*, int (*)(void*), void*)>("emu_enqueue");
    return enqueue(stream, Job::run, job.release()) ? EXECUTION_FAILED : SUCCESS;
}
}
