// Checks the emulated driver through the driver's own interface, as a program finds it: emulator/selftest runs this.
// `selftest vocabulary` and `selftest launch` run on a card as well.
#include <dlfcn.h>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

static void* library;
template <class... A> static int call(const char* name, A... arguments) {
    auto f = (int (*)(A...))dlsym(library, name);
    if (!f) std::printf("%s is missing\n", name), std::exit(1);
    return f(arguments...);
}
static int failures;
static void expect(long got, long want, const char* what, int line) {
    if (got == want) return;
    std::printf("selftest.cpp:%d: %s is %ld, not %ld\n", line, what, got, want);
    ++failures;
}
#define EXPECT(what, want) expect((long)(what), (long)(want), #what, __LINE__)
#define OK(...) EXPECT(call(__VA_ARGS__), 0)

using Ptr = uint64_t;
using Handle = void*;
static Handle module_;
static Handle function(const char* name) {
    Handle f = nullptr;
    EXPECT(call("cuModuleGetFunction", &f, module_, name), 0);
    return f;
}
static Ptr device(size_t bytes) {
    Ptr p = 0;
    OK("cuMemAlloc_v2", &p, bytes);
    return p;
}
template <class... A> static int launch_on(Handle stream, Handle f, unsigned blocks, unsigned threads, unsigned dynamic, A... arguments) {
    void* pointers[] = {&arguments...};
    return call("cuLaunchKernel", f, blocks, 1u, 1u, threads, 1u, 1u, dynamic, stream, (void**)pointers, (void**)nullptr);
}
template <class... A> static int launch(const char* name, unsigned blocks, unsigned threads, unsigned dynamic, A... arguments) {
    int result = launch_on(nullptr, function(name), blocks, threads, dynamic, arguments...);
    int later = call("cuCtxSynchronize");
    return result ? result : later;
}
template <class T> static T read(Ptr p) {
    T v;
    OK("cuMemcpyDtoH_v2", (void*)&v, p, sizeof v);
    return v;
}
static void begin() {
    int count = 0, d = -1;
    Handle c = nullptr;
    OK("cuInit", 0u);
    OK("cuDeviceGetCount", &count);
    OK("cuDeviceGet", &d, 0);
    OK("cuDevicePrimaryCtxRetain", &c, d);
    OK("cuCtxSetCurrent", c);
    OK("cuModuleLoadData", &module_, (const void*)"// emulated module\n");
}

static void vocabulary() {
    begin();
    Ptr line = device(4), scratch = device(2048 * 8), out = device(64 * 4);
    auto failed_line = [&](const char* kernel, int result) {
        EXPECT(result, 0);
        int at = read<int>(line);
        if (at) std::printf("%s: the check in line %d failed\n", kernel, at), ++failures;
    };
    auto zero = [&] { OK("cuMemsetD8_v2", line, (unsigned char)0, size_t(4)); };
    zero(), failed_line("vocabulary_test", launch("vocabulary_test", 1, 80, 0, line));
    for (unsigned threads : {32u, 64u, 96u, 256u, 1024u}) zero(), failed_line("block_test", launch("block_test", 1, threads, 0, line, scratch, out));
    Handle hopper = function("hopper_test");
    int dynamic = (64 + 256) * 64 * 2;
    EXPECT(launch_on(nullptr, hopper, 1, 128, dynamic + (48 << 10), line), 1);  // not asked for
    OK("cuFuncSetAttribute", hopper, 8, dynamic);
    zero();
    EXPECT(launch_on(nullptr, hopper, 1, 128, dynamic, line), 0);
    failed_line("hopper_test", call("cuCtxSynchronize"));
}
static void launches() {
    begin();
    Ptr p = device(16);
    Handle none;
    EXPECT(call("cuModuleGetFunction", &none, module_, "no_such_kernel"), 500);
    EXPECT(launch("selftest_set", 1, 65, 0, p, 1.f, 0ull), 701);  // its __launch_bounds__ say 64
    EXPECT(launch("selftest_set", 0, 32, 0, p, 1.f, 0ull), 1);
    EXPECT(launch("selftest_set", 1, 32, 49 << 10, p, 1.f, 0ull), 1);
    EXPECT(launch("selftest_set", 1, 32, 0, p, 1.f, 0ull), 0);
    EXPECT(read<float>(p), 1);
    std::thread([] {
        Ptr q;
        EXPECT(call("cuMemAlloc_v2", &q, size_t(4)), 201);  // this thread has no context
    }).join();
}
static void race() {
    begin();
    EXPECT(launch("selftest_race", 1, 64, 0, device(16)), 0);
}
static void guards() {
    begin();
    Ptr p = device(16), gone = device(64);
    EXPECT(read<uint32_t>(p), ~0u);  // nobody wrote it
    EXPECT(launch("selftest_set", 1, 32, 0, p, 1.f, 4ull), 719);   // one past the end
    EXPECT(launch("selftest_set", 1, 32, 0, p, 1.f, 3ull), 0);     // which is not held against the next
    EXPECT(launch("selftest_set", 1, 32, 0, p - 4, 1.f, 0ull), 719);  // one before the start
    OK("cuMemFree_v2", gone);
    EXPECT(launch("selftest_set", 1, 32, 0, gone, 1.f, 2ull), 719);
    EXPECT(call("cuMemFree_v2", gone), 1);
    // What lies behind one array, written behind another.
    Ptr other = device(16);
    EXPECT(launch("selftest_move", 1, 32, 0, p + 16, other + 16), 719);
    EXPECT(launch("selftest_stuck", 1, 64, 0, p), 719);
    uint32_t host[5] = {};
    EXPECT(call("cuMemcpyHtoD_v2", p, (const void*)host, sizeof host), 1);
    EXPECT(call("cuMemcpyDtoH_v2", (void*)host, p, sizeof host), 1);
}
static void streams() {
    begin();
    Handle copy = nullptr, work = nullptr, event = nullptr;
    OK("cuStreamCreate", &copy, 1u);
    OK("cuStreamCreate", &work, 1u);
    OK("cuEventCreate", &event, 2u);
    Ptr from = device(4), to = device(4);
    float* pinned = nullptr;
    OK("cuMemHostAlloc", (void**)&pinned, size_t(4), 0u);
    Handle move = function("selftest_move");
    auto moved = [&] {
        OK("cuStreamSynchronize", work);
        return read<float>(to);
    };
    // Overwritten before the copy was waited for: the later value arrives.
    *pinned = 1;
    OK("cuMemcpyHtoDAsync_v2", from, (const void*)pinned, size_t(4), copy);
    *pinned = 2;
    OK("cuStreamSynchronize", copy);
    EXPECT(read<float>(from), 2);
    // Another stream that does not wait sees what was there before; one that waits sees the copy.
    *pinned = 3;
    OK("cuMemcpyHtoDAsync_v2", from, (const void*)pinned, size_t(4), copy);
    OK("cuEventRecord", event, copy);
    EXPECT(launch_on(work, move, 1, 32, 0, from, to), 0);
    EXPECT(moved(), 2);
    OK("cuStreamWaitEvent", work, event, 0u);
    EXPECT(launch_on(work, move, 1, 32, 0, from, to), 0);
    EXPECT(moved(), 3);
    // Memory that is not pinned is read before the call returns.
    float plain = 4;
    OK("cuMemcpyHtoDAsync_v2", from, (const void*)&plain, size_t(4), work);
    plain = 5;
    EXPECT(launch_on(work, move, 1, 32, 0, from, to), 0);
    EXPECT(moved(), 4);
    // A result in pinned memory is not there before somebody waits for it.
    OK("cuMemcpyDtoHAsync_v2", (void*)pinned, to, size_t(4), work);
    EXPECT(*pinned, 3);
    OK("cuEventRecord", event, work);
    int asked = 0;
    for (; call("cuEventQuery", event) == 600; ++asked) {}
    EXPECT(asked > 0, 1);
    EXPECT(*pinned, 4);
    // Freed in the order of the stream: what ran before may use it, what runs after sees NaN.
    Ptr brief = 0;
    OK("cuMemAllocAsync", &brief, size_t(4), work);
    OK("cuMemsetD32Async", brief, 0x3f800000u, size_t(1), work);
    EXPECT(launch_on(work, move, 1, 32, 0, brief, to), 0);
    OK("cuMemFreeAsync", brief, work);
    EXPECT(moved(), 1);
    const char* variant = std::getenv("EMU_VARIANT");
    if (!variant || std::strcmp(variant, "sanitized") != 0) {  // there the read itself ends the program
        EXPECT(launch_on(work, move, 1, 32, 0, brief, to), 0);
        EXPECT(std::isnan(moved()), 1);
    }
    // Pinned memory that was given back too early.
    *pinned = 6;
    OK("cuMemcpyHtoDAsync_v2", from, (const void*)pinned, size_t(4), copy);
    OK("cuMemFreeHost", (void*)pinned);
    OK("cuStreamSynchronize", copy);
    EXPECT(read<uint32_t>(from), ~0u);
    Handle first = nullptr, second = nullptr;
    OK("cuEventCreate", &first, 0u);
    OK("cuEventCreate", &second, 0u);
    OK("cuEventRecord", first, work);
    EXPECT(launch_on(work, move, 1, 32, 0, from, to), 0);
    OK("cuEventRecord", second, work);
    OK("cuEventSynchronize", second);
    float ms = -1;
    OK("cuEventElapsedTime", &ms, first, second);
    EXPECT(ms >= 0, 1);
    EXPECT(call("cuEventElapsedTime", &ms, event, second), 400);
}
static void limits() {  // with EMU_MEMORY=1000000, EMU_DRIVER_VERSION=12020, EMU_CAPABILITY=86
    begin();
    size_t free = 0, total = 0;
    int version = 0, major = 0, minor = 0;
    Ptr p = 0, q = 0;
    OK("cuDriverGetVersion", &version);
    OK("cuDeviceGetAttribute", &major, 75, 0);
    OK("cuDeviceGetAttribute", &minor, 76, 0);
    EXPECT(version, 12020);
    EXPECT(major * 10 + minor, 86);
    OK("cuMemAlloc_v2", &p, size_t(600000));
    OK("cuMemGetInfo_v2", &free, &total);
    EXPECT(total, 1000000);
    EXPECT(free, 400000);
    EXPECT(call("cuMemAlloc_v2", &q, size_t(600000)), 2);
    OK("cuMemFree_v2", p);
    OK("cuMemAlloc_v2", &q, size_t(600000));
    EXPECT(call("cuMemAlloc_v2", &p, size_t(0)), 1);
}
static void images() {
    begin();
    Handle m = nullptr;
    auto load = [&](const char* image) { return call("cuModuleLoadData", &m, (const void*)image); };
    EXPECT(load("\x7f" "ELF\x02"), 0);
    EXPECT(load("\x50\xed\x55\xba\x01"), 0);
    EXPECT(load("//\n// Generated by NVIDIA NVVM Compiler\n//\n\n.version 8.7\n.target sm_90a\n"), 0);
    EXPECT(load(".version 99.0\n"), 222);
    EXPECT(load("half a file of the cache"), 200);
    EXPECT(load(""), 200);
    const char *name = nullptr, *text = nullptr;
    OK("cuGetErrorName", 200, &name);
    OK("cuGetErrorString", 200, &text);
    EXPECT(std::strcmp(name, "CUDA_ERROR_INVALID_IMAGE"), 0);
    EXPECT(std::strcmp(text, "device kernel image is invalid"), 0);
    EXPECT(call("cuGetErrorName", 12345, &name), 1);
}
static void no_device() {  // with EMU_DEVICES=0
    EXPECT(call("cuInit", 0u), 100);
}
static void fails() {  // with EMU_LAUNCH_FAILS=selftest_set
    begin();
    Ptr p = device(16);
    EXPECT(launch_on(nullptr, function("selftest_set"), 1, 32, 0, p, 1.f, 0ull), 0);
    EXPECT(call("cuCtxSynchronize"), 700);
    EXPECT(call("cuMemFree_v2", p), 700);  // as on a card, the context is lost
}
static void speed() {
    begin();
    Ptr out = device(2000 * 256 * 4);
    EXPECT(launch("shuffle_bench", 2000, 256, 0, out), 0);
}
static void runtime_compiler() {
    library = dlopen("libnvrtc.so.13", RTLD_NOW);
    if (!library) std::printf("%s\n", dlerror()), std::exit(1);
    const char *names[] = {"device.cuh", "entry_points.h"};
    const char *texts[] = {"#ifdef __CUDACC__\n#include <cuda_fp16.h>\n#else\n#include \"vocabulary.h\"\n#endif\n#include \"entry_points.h\"\n", ""};
    const char* source = "#include \"device.cuh\"\nextern \"C\" __global__ void f() {}\n";
    auto compile = [&](const char* text, int headers) {
        Handle program = nullptr;
        OK("nvrtcCreateProgram", &program, text, "f.cu", headers, (const char* const*)texts, (const char* const*)names);
        const char* options[] = {"--gpu-architecture=sm_90a"};
        int result = call("nvrtcCompileProgram", program, 1, (const char* const*)options);
        size_t n = 0;
        OK("nvrtcGetProgramLogSize", program, &n);
        std::string log(n, 0), image;
        OK("nvrtcGetProgramLog", program, log.data());
        EXPECT(result == 0, std::strlen(log.c_str()) == 0);
        if (result == 0) {
            OK("nvrtcGetCUBINSize", program, &n);
            image.resize(n);
            OK("nvrtcGetCUBIN", program, image.data());
            EXPECT(image.starts_with("// emulated module"), 1);
        }
        OK("nvrtcDestroyProgram", &program);
        return result;
    };
    bool fails = std::getenv("EMU_NVRTC");
    EXPECT(compile(source, 2), fails ? 6 : 0);
    EXPECT(compile(source, 1), 6);  // device.cuh includes a file that was not given
    EXPECT(compile(source, 0), 6);
    EXPECT(compile("#include \"device.cuh\"\n", 2), 6);  // no kernel
}

// The products of cuBLASLt: what it makes, and everything it must refuse. c = a b, column by column, a 3 x 2 and b 2 x 4.
static void products() {
    begin();
    Handle driver = library, handle = nullptr;
    library = dlopen("libcublasLt.so.13", RTLD_NOW);
    if (!library) std::printf("%s\n", dlerror()), std::exit(1);
    const int REFUSED = 7, F32 = 0, COMPUTE_32F = 68;
    struct Answer { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; } answer, long_answer;
    int count = 0;
    auto layout = [](uint64_t rows, uint64_t columns, int64_t leading, int type = 0) {
        Handle l = nullptr;
        OK("cublasLtMatrixLayoutCreate", &l, type, rows, columns, leading);
        return l;
    };
    Handle desc = nullptr, preference = nullptr;
    OK("cublasLtCreate", &handle);
    OK("cublasLtMatmulDescCreate", &desc, COMPUTE_32F, F32);
    OK("cublasLtMatmulPreferenceCreate", &preference);
    size_t room = 1 << 16;
    uint32_t apart = 2;
    OK("cublasLtMatmulPreferenceSetAttribute", preference, 1, (const void*)&room, sizeof room);
    auto ask = [&](Handle a, Handle b, Handle c, Answer* to) {
        return call("cublasLtMatmulAlgoGetHeuristic", handle, desc, a, b, c, c, preference, 1, to, &count);
    };
    Handle a = layout(3, 2, 4), b = layout(2, 4, 2), c = layout(3, 4, 3);
    Handle long_a = layout(3, 500, 3), long_b = layout(500, 4, 500);
    EXPECT(ask(a, b, c, &answer), 0);
    EXPECT(count, 1);
    EXPECT(ask(layout(3, 2, 2), b, c, &answer), REFUSED);           // columns of 3 that begin every 2
    EXPECT(ask(a, layout(3, 4, 3), c, &answer), REFUSED);           // 2 terms by 3
    EXPECT(ask(a, b, layout(4, 3, 4), &answer), REFUSED);           // a result the other way round
    EXPECT(ask(a, layout(2, 4, 2, 14), c, &answer), REFUSED);       // f32 by bf16
    EXPECT(ask(a, layout(2, 0, 2), c, &answer), REFUSED);
    EXPECT(ask(long_a, long_b, c, &long_answer), 0);
    EXPECT(ask(a, b, c, &answer), 0);
    Handle lt = library;
    library = driver;
    Ptr pa = device(4 * 4 * 2), pb = device(4 * 2 * 4), pc = device(4 * 3 * 4), work = device(room), pla = device(4 * 3 * 500), plb = device(4 * 500 * 4);
    float fa[8] = {1, 2, 3, NAN, 4, 5, 6, NAN}, fb[8] = {1, 1, 1, 0, 0, 1, 2, -1};
    OK("cuMemcpyHtoD_v2", pa, (const void*)fa, sizeof fa);
    OK("cuMemcpyHtoD_v2", pb, (const void*)fb, sizeof fb);
    const float one = 1, zero = 0;
    auto multiply = [&](const Answer& how, Ptr from, Handle a, Ptr by, Handle b, Ptr to, size_t bytes) {
        library = lt;
        int result = call("cublasLtMatmul", handle, desc, &one, from, a, by, b, &zero, to, c, to, c, how.algorithm, work, bytes, (Handle)nullptr);
        library = driver;
        int later = call("cuCtxSynchronize");
        return result ? result : later;
    };
    EXPECT(multiply(answer, pa, a, pb, b, pc, room), 0);
    const float want[12] = {5, 7, 9, 1, 2, 3, 4, 5, 6, -2, -1, 0};
    for (int i = 0; i < 12; ++i) EXPECT(read<float>(pc + 4 * i), want[i]);
    EXPECT(multiply(long_answer, pa, a, pb, b, pc, room), REFUSED);          // an algorithm of another product
    EXPECT(multiply(answer, pa, a, pb + 256, b, pc, room), REFUSED);         // past the end of its memory
    EXPECT(multiply(answer, pa, a, pb + 4, b, pc, room), REFUSED);           // not where it would be fast
    EXPECT(multiply(answer, pa, a, pb, b, pc, room + 4), REFUSED);           // a workspace that is not there
    EXPECT(multiply(long_answer, pla, long_a, plb, long_b, pc, room), REFUSED);  // parts that are added in any order
    library = lt;
    OK("cublasLtMatmulPreferenceSetAttribute", preference, 3, (const void*)&apart, sizeof apart);
    EXPECT(ask(long_a, long_b, c, &long_answer), 0);
    EXPECT(long_answer.workspace > 0, 1);
    EXPECT(multiply(long_answer, pla, long_a, plb, long_b, pc, 4), REFUSED);     // less than the algorithm needs
    EXPECT(multiply(long_answer, pla, long_a, plb, long_b, pc, room), 0);
    EXPECT(multiply(answer, pa, a, pb, b, pc, room), 0);                         // what was there is not read
    EXPECT(read<float>(pc), 5);
    library = lt;
    OK("cublasLtMatrixLayoutDestroy", b);
    EXPECT(ask(a, b, c, &answer), REFUSED);                                      // a description that is gone
    OK("cublasLtDestroy", handle);
    EXPECT(ask(a, layout(2, 4, 2), c, &answer), REFUSED);
    library = driver;
    // Without a context there is no handle.
    OK("cuCtxSetCurrent", (Handle)nullptr);
    library = lt;
    EXPECT(call("cublasLtCreate", &handle), 1);
}

int main(int n, char** arguments) {
    std::string what = n > 1 ? arguments[1] : "";
    library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) return std::printf("%s\n", dlerror()), 1;
    struct { const char* name; void (*run)(); } all[] = {
        {"vocabulary", vocabulary}, {"launches", launches}, {"guards", guards}, {"race", race}, {"streams", streams}, {"limits", limits}, {"images", images},
        {"no_device", no_device}, {"fails", fails}, {"speed", speed}, {"runtime_compiler", runtime_compiler}, {"products", products}};
    for (auto& test : all)
        if (what == test.name) return test.run(), failures != 0;
    return std::printf("selftest: no part is called %s\n", what.c_str()), 2;
}
