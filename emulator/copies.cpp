// The driver's calls on memory, streams and events.
#include "driver.h"
#include <cstring>
#include <map>
#include <vector>

using emu::Event;
namespace {
using Ptr = uint64_t;
std::map<void*, std::unique_ptr<Event>>& events() { static std::map<void*, std::unique_ptr<Event>> m; return m; }
Event* find_event(void* handle) {
    auto it = events().find(handle);
    return it == events().end() ? nullptr : it->second.get();
}
#define EVENT(handle, name)                 \
    Event* name = find_event(handle);       \
    if (!name) return INVALID_HANDLE

bool on_device(Ptr p, size_t n) { return n == 0 || emu::in_one_allocation((const void*)p, n); }
int queue_to_device(emu::Stream* s, Ptr d, const void* h, size_t n) {
    if (!on_device(d, n)) return INVALID_VALUE;
    if (emu::is_pinned(h, n)) s->add([=] { std::memcpy((void*)d, h, n); });  // read at the last moment that the program allows
    else {  // the call returns when it has read the memory, and no sooner
        auto staged = std::make_shared<std::vector<char>>((const char*)h, (const char*)h + n);
        s->add([=] { std::memcpy((void*)d, staged->data(), n); });
    }
    return SUCCESS;
}
int queue_to_host(emu::Stream* s, void* h, Ptr d, size_t n) {
    if (!on_device(d, n)) return INVALID_VALUE;
    s->add([=] { std::memcpy(h, (void*)d, n); });
    if (!emu::is_pinned(h, n)) { s->run(); return take_trouble(); }
    return SUCCESS;
}
template <class T> int queue_fill(emu::Stream* s, Ptr d, T v, size_t n) {
    if (!on_device(d, n * sizeof(T)) || d % sizeof(T)) return INVALID_VALUE;
    s->add([=] { for (size_t i = 0; i < n; ++i) std::memcpy((char*)d + i * sizeof(T), &v, sizeof v); });
    return SUCCESS;
}
// A call without a stream is one on the null stream that waits.
int finish(int result) {
    if (result) return result;
    emu::null_stream()->run();
    return take_trouble();
}
uint64_t pool_attributes[16];
}  // namespace

extern "C" {
int cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER;
    auto m = emu::memory();
    return *free = m.free, *total = m.total, SUCCESS;
}
int cuMemAlloc_v2(Ptr* p, size_t n) {
    ENTER;
    if (!n) return INVALID_VALUE;
    if (!(*p = emu::allocate(n))) emu::run_all(), *p = emu::allocate(n);  // what queued frees will give back
    return *p ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemFree_v2(Ptr p) {
    ENTER;
    if (!p) return SUCCESS;
    emu::run_all();  // it waits for the device
    return emu::release(p) ? take_trouble() : INVALID_VALUE;
}
int cuMemAllocAsync(Ptr* p, size_t n, void* stream) {
    STREAM(stream, s);
    (void)s;
    return cuMemAlloc_v2(p, n);
}
int cuMemAllocFromPoolAsync(Ptr* p, size_t n, void*, void* stream) { return cuMemAllocAsync(p, n, stream); }
int cuMemFreeAsync(Ptr p, void* stream) {
    ENTER;
    STREAM(stream, s);
    if (!on_device(p, 1)) return INVALID_VALUE;
    s->add([=] { if (!emu::release(p)) emu::trouble() = {INVALID_VALUE, "memory was freed twice"}; });
    if (s->queue.size() == 1) s->run();
    return SUCCESS;
}
int cuMemHostAlloc(void** p, size_t n, unsigned) {
    ENTER;
    return (*p = emu::allocate_pinned(n)) ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemAllocHost_v2(void** p, size_t n) { return cuMemHostAlloc(p, n, 0); }
int cuMemFreeHost(void* p) {
    ENTER;
    if (!emu::release_pinned(p)) return INVALID_VALUE;
    if (emu::all_idle()) emu::forget_released_pinned();
    return SUCCESS;
}
int cuMemHostGetFlags(unsigned* flags, void* p) {
    ENTER;
    *flags = 0;
    return emu::is_pinned(p, 1) ? SUCCESS : INVALID_VALUE;
}
int cuMemHostGetDevicePointer_v2(Ptr* d, void* p, unsigned) {
    ENTER;
    *d = (Ptr)p;
    return emu::is_pinned(p, 1) ? SUCCESS : INVALID_VALUE;
}
int cuMemHostRegister_v2(void* p, size_t n, unsigned) {
    ENTER;
    return emu::pin(p, n), SUCCESS;
}
int cuMemHostUnregister(void* p) {
    ENTER;
    emu::run_all();
    return emu::unpin(p) ? SUCCESS : 713;  // CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED
}

int cuMemcpyHtoDAsync_v2(Ptr d, const void* h, size_t n, void* stream) {
    ENTER;
    STREAM(stream, s);
    return queue_to_device(s, d, h, n);
}
int cuMemcpyDtoHAsync_v2(void* h, Ptr d, size_t n, void* stream) {
    ENTER;
    STREAM(stream, s);
    return queue_to_host(s, h, d, n);
}
int cuMemcpyDtoDAsync_v2(Ptr d, Ptr from, size_t n, void* stream) {
    ENTER;
    STREAM(stream, s);
    if (!on_device(d, n) || !on_device(from, n)) return INVALID_VALUE;
    s->add([=] { std::memmove((void*)d, (void*)from, n); });
    return SUCCESS;
}
int cuMemcpyPeerAsync(Ptr d, void*, Ptr from, void*, size_t n, void* stream) { return cuMemcpyDtoDAsync_v2(d, from, n, stream); }
int cuMemcpyAsync(Ptr d, Ptr from, size_t n, void* stream) {  // addresses tell which kind it is
    bool to = emu::in_one_allocation((void*)d, n), of = emu::in_one_allocation((void*)from, n);
    if (to && of) return cuMemcpyDtoDAsync_v2(d, from, n, stream);
    return to ? cuMemcpyHtoDAsync_v2(d, (void*)from, n, stream) : cuMemcpyDtoHAsync_v2((void*)d, from, n, stream);
}
int cuMemcpyHtoD_v2(Ptr d, const void* h, size_t n) {
    ENTER;
    return finish(queue_to_device(emu::null_stream(), d, h, n));
}
int cuMemcpyDtoH_v2(void* h, Ptr d, size_t n) {
    ENTER;
    return finish(queue_to_host(emu::null_stream(), h, d, n));
}
int cuMemcpyDtoD_v2(Ptr d, Ptr from, size_t n) { return finish(cuMemcpyDtoDAsync_v2(d, from, n, nullptr)); }
int cuMemsetD8Async(Ptr d, unsigned char v, size_t n, void* stream) {
    ENTER;
    STREAM(stream, s);
    return queue_fill(s, d, v, n);
}
int cuMemsetD16Async(Ptr d, unsigned short v, size_t n, void* stream) {
    ENTER;
    STREAM(stream, s);
    return queue_fill(s, d, v, n);
}
int cuMemsetD32Async(Ptr d, unsigned v, size_t n, void* stream) {
    ENTER;
    STREAM(stream, s);
    return queue_fill(s, d, v, n);
}
int cuMemsetD8_v2(Ptr d, unsigned char v, size_t n) { return finish(cuMemsetD8Async(d, v, n, nullptr)); }
int cuMemsetD32_v2(Ptr d, unsigned v, size_t n) { return finish(cuMemsetD32Async(d, v, n, nullptr)); }

int cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = pool_attributes, SUCCESS; }
int cuDeviceGetMemPool(void** pool, int) { return *pool = pool_attributes, SUCCESS; }
int cuDeviceSetMemPool(int, void*) { return SUCCESS; }
int cuMemPoolTrimTo(void*, size_t) { return SUCCESS; }
int cuMemPoolSetAttribute(void*, unsigned attribute, void* v) {
    std::lock_guard lock(one_at_a_time);
    if (attribute < 1 || attribute > 8) return INVALID_VALUE;
    return std::memcpy(&pool_attributes[attribute], v, attribute < 4 ? 4 : 8), SUCCESS;
}
int cuMemPoolGetAttribute(void*, unsigned attribute, void* v) {
    std::lock_guard lock(one_at_a_time);
    if (attribute < 1 || attribute > 8) return INVALID_VALUE;
    auto m = emu::memory();
    if (attribute >= 5) pool_attributes[attribute] = m.total - m.free;  // reserved and used, now and at most
    return std::memcpy(v, &pool_attributes[attribute], attribute < 4 ? 4 : 8), SUCCESS;
}

int cuStreamCreate(void** s, unsigned flags) {
    ENTER;
    return *s = emu::add_stream(!(flags & 1)), SUCCESS;
}
int cuStreamCreateWithPriority(void** s, unsigned flags, int) { return cuStreamCreate(s, flags); }
int cuStreamDestroy_v2(void* s) {
    ENTER;
    return emu::remove_stream(s) ? SUCCESS : INVALID_HANDLE;
}
int cuStreamSynchronize(void* stream) {
    ENTER;
    STREAM(stream, s);
    if (s == emu::null_stream()) s->add([] {});  // so that it waits for those that it waits for
    s->run();
    if (emu::all_idle()) emu::forget_released_pinned();
    return take_trouble();
}
int cuStreamQuery(void* stream) {  // some time after the first question the work is done
    ENTER;
    STREAM(stream, s);
    if (s->queue.empty()) return take_trouble();
    if (emu::stream_coin()) s->run();
    return NOT_READY;
}
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    ENTER;
    STREAM(stream, s);
    EVENT(event, e);
    if (e->stream && e->stream != s && !e->complete()) s->add([on = e->stream, n = e->position] { on->run(n); });
    return SUCCESS;
}
int cuStreamIsCapturing(void*, int* status) { return *status = 0, SUCCESS; }
int cuLaunchHostFunc(void* stream, void (*f)(void*), void* data) {
    ENTER;
    STREAM(stream, s);
    s->add([=] { f(data); });
    return SUCCESS;
}
int cuCtxSynchronize() {
    ENTER;
    emu::run_all();
    emu::forget_released_pinned();
    return take_trouble();
}

int cuEventCreate(void** handle, unsigned flags) {
    ENTER;
    auto e = std::make_unique<Event>();
    e->timed = !(flags & 2);
    *handle = e.get();
    return events()[*handle] = std::move(e), SUCCESS;
}
int cuEventRecord(void* event, void* stream) {
    ENTER;
    STREAM(stream, s);
    EVENT(event, e);
    return e->record(s), SUCCESS;
}
int cuEventRecordWithFlags(void* event, void* stream, unsigned) { return cuEventRecord(event, stream); }
int cuEventQuery(void* event) {
    ENTER;
    EVENT(event, e);
    if (e->complete()) return take_trouble();
    if (emu::stream_coin()) e->wait();
    return NOT_READY;
}
int cuEventSynchronize(void* event) {
    ENTER;
    EVENT(event, e);
    e->wait();
    return take_trouble();
}
int cuEventElapsedTime(float* ms, void* first, void* second) {
    ENTER;
    EVENT(first, a);
    EVENT(second, b);
    if (!a->timed || !b->timed || !a->mark || !b->mark) return INVALID_HANDLE;
    if (!a->complete() || !b->complete()) return NOT_READY;
    return *ms = std::chrono::duration<float, std::milli>(b->mark->when - a->mark->when).count(), SUCCESS;
}
int cuEventElapsedTime_v2(float* ms, void* a, void* b) { return cuEventElapsedTime(ms, a, b); }
int cuEventDestroy_v2(void* event) {
    ENTER;
    return events().erase(event) ? SUCCESS : INVALID_HANDLE;
}
}
