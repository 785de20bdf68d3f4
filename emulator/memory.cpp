#include "memory.h"
#include "emulator.h"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <utility>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emu {
namespace {
constexpr size_t GUARD = 17 * 256;  // so that memory starts on 256 bytes, as it may on a card, and on no more
constexpr size_t QUARANTINE_BYTES = 32 << 20, QUARANTINE_BLOCKS = 1024;
std::map<uint64_t, size_t> allocations;  // where it starts, and its bytes
struct Block { uint64_t p; size_t bytes; };
std::deque<Block> quarantine;
size_t used, quarantined;
std::string seen;

void open([[maybe_unused]] uint64_t p, [[maybe_unused]] size_t n, [[maybe_unused]] bool readable) {
#if defined(__SANITIZE_ADDRESS__)
    readable ? __asan_unpoison_memory_region((void*)p, n) : __asan_poison_memory_region((void*)p, n);
#endif
}
[[maybe_unused]] bool untouched(uint64_t p, size_t n) {  // all ones; compares the memory with itself, one byte on
    auto* c = (const unsigned char*)p;
    return n == 0 || (c[0] == 0xff && std::memcmp(c, c + 1, n - 1) == 0);
}
void say([[maybe_unused]] uint64_t p, [[maybe_unused]] size_t n, [[maybe_unused]] const std::string& what) {
#if !defined(__SANITIZE_ADDRESS__)  // there the access itself was reported
    if (untouched(p, n)) return;
    seen = what;
    std::memset((void*)p, 0xff, n);
#endif
}
size_t total_memory() {
    static const size_t total = [] {
        const char* s = std::getenv("EMU_MEMORY");
        return s ? std::strtoull(s, nullptr, 10) : size_t(64) << 30;
    }();
    return total;
}
void evict(size_t bytes, size_t blocks) {
    while (quarantined > bytes || quarantine.size() > blocks) {
        Block b = quarantine.front();
        quarantine.pop_front(), quarantined -= b.bytes;
        say(b.p, b.bytes, "write to an allocation of " + std::to_string(b.bytes) + " bytes that had been freed");
        open(b.p - GUARD, b.bytes + 2 * GUARD, true);
        std::free((char*)b.p - GUARD);
    }
}

struct Pinned { size_t bytes; bool ours; };
std::map<uintptr_t, Pinned> pinned;
std::vector<void*> released_pinned;
}  // namespace

uint64_t allocate(size_t n) {
    if (n > total_memory() || used > total_memory() - n) return 0;
    auto* base = static_cast<unsigned char*>(std::aligned_alloc(4096, (n + 2 * GUARD + 4095) & ~size_t(4095)));
    if (!base) return 0;
    std::memset(base, 0xff, n + 2 * GUARD);
    auto p = reinterpret_cast<uint64_t>(base + GUARD);
    allocations[p] = n, used += n;
    open(p - GUARD, GUARD, false), open(p + n, GUARD, false);
    return p;
}
bool release(uint64_t p) {
    auto it = allocations.find(p);
    if (it == allocations.end()) return false;
    size_t n = it->second;
    say(p - GUARD, GUARD, "write before an allocation of " + std::to_string(n) + " bytes");
    say(p + n, GUARD, "write past an allocation of " + std::to_string(n) + " bytes");
    allocations.erase(it), used -= n;
    std::memset((void*)p, 0xff, n);
    open(p, n, false);
    quarantine.push_back({p, n}), quarantined += n;
    evict(QUARANTINE_BYTES, QUARANTINE_BLOCKS);
    return true;
}
bool in_one_allocation(const void* p, size_t bytes) {
    auto next = allocations.upper_bound((uint64_t)p);
    if (next == allocations.begin()) return false;
    auto& [start, size] = *std::prev(next);
    return (uint64_t)p + bytes <= start + size;
}
Memory memory() { return {total_memory() - used, total_memory()}; }
std::string damage() {
    for (auto& [p, n] : allocations) {
        say(p - GUARD, GUARD, "write before an allocation of " + std::to_string(n) + " bytes");
        say(p + n, GUARD, "write past an allocation of " + std::to_string(n) + " bytes");
    }
    for (auto b = quarantine.rbegin(); b != quarantine.rend() && b - quarantine.rbegin() < 8; ++b)  // the newest; others when they go
        if (b->bytes <= 1 << 16) say(b->p, b->bytes, "write to an allocation of " + std::to_string(b->bytes) + " bytes that had been freed");
    return std::exchange(seen, "");
}

void* allocate_pinned(size_t n) {
    void* p = std::aligned_alloc(4096, (std::max(n, size_t(1)) + 4095) & ~size_t(4095));
    if (p) std::memset(p, 0xff, n), pinned[(uintptr_t)p] = {n, true};
    return p;
}
void pin(void* p, size_t n) { pinned[(uintptr_t)p] = {n, false}; }
bool unpin(void* p) {
    auto it = pinned.find((uintptr_t)p);
    if (it == pinned.end() || it->second.ours) return false;
    return pinned.erase(it), true;
}
bool release_pinned(void* p) {
    auto it = pinned.find((uintptr_t)p);
    if (it == pinned.end() || !it->second.ours) return false;
    std::memset(p, 0xff, it->second.bytes);  // a copy that is still queued will read this
    released_pinned.push_back(p);
    return pinned.erase(it), true;
}
bool is_pinned(const void* p, size_t n) {
    auto next = pinned.upper_bound((uintptr_t)p);
    if (next == pinned.begin()) return false;
    auto& [start, block] = *std::prev(next);
    return (uintptr_t)p + n <= start + block.bytes;
}
void forget_released_pinned() {
    for (void* p : released_pinned) std::free(p);
    released_pinned.clear();
}
}  // namespace emu
