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
constexpr size_t GUARD = 17 * 256;  // so memory starts on 256 bytes, as on a card, and on no more
constexpr size_t QUARANTINE_BYTES = 32 << 20, QUARANTINE_BLOCKS = 1024;
// What guards and freed memory hold: NaNs in every format, and another in each allocation, so that a sum of what lies
// behind two arrays, written behind a third, is seen there.
unsigned next_pattern() {
    static unsigned n = 0;
    auto half = [](unsigned i) { return 0x7ff8u | (i & 7) | (i & 8) << 12; };
    return ++n, half(n) << 16 | half(n >> 4);
}
struct Allocation { size_t bytes; unsigned pattern; };
std::map<uint64_t, Allocation> allocations;
struct Block { uint64_t p; size_t bytes; unsigned pattern; };
std::deque<Block> quarantine;
size_t used, quarantined;
std::string seen;

void open([[maybe_unused]] uint64_t p, [[maybe_unused]] size_t n, [[maybe_unused]] bool readable) {
#if defined(__SANITIZE_ADDRESS__)
    readable ? __asan_unpoison_memory_region((void*)p, n) : __asan_poison_memory_region((void*)p, n);
#endif
}
void fill(uint64_t p, size_t n, unsigned pattern) {
    for (size_t i = 0; i < n; i += 4) std::memcpy((char*)p + i, &pattern, std::min<size_t>(4, n - i));
}
[[maybe_unused]] bool untouched(uint64_t p, size_t n, unsigned pattern) {  // compares the memory with itself, a word on
    auto* c = (const char*)p;
    return std::memcmp(c, &pattern, std::min<size_t>(n, 4)) == 0 && (n <= 4 || std::memcmp(c, c + 4, n - 4) == 0);
}
void say([[maybe_unused]] uint64_t p, [[maybe_unused]] size_t n, [[maybe_unused]] unsigned pattern, [[maybe_unused]] const char* what,
         [[maybe_unused]] size_t bytes, [[maybe_unused]] const char* more = "") {
#if !defined(__SANITIZE_ADDRESS__)  // there the access itself was reported
    if (untouched(p, n, pattern)) return;
    seen = std::string("write ") + what + " an allocation of " + std::to_string(bytes) + " bytes" + more;
    fill(p, n, pattern);
#endif
}
void look_around(uint64_t p, const Allocation& a) {
    say(p - GUARD, GUARD, a.pattern, "before", a.bytes), say(p + a.bytes, GUARD, a.pattern, "past", a.bytes);
}
void look_at(const Block& b) { say(b.p, b.bytes, b.pattern, "to", b.bytes, " that had been freed"); }
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
        look_at(b);
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
    auto p = reinterpret_cast<uint64_t>(base + GUARD);
    unsigned pattern = next_pattern();
    fill(p - GUARD, GUARD, pattern), std::memset((void*)p, 0xff, n), fill(p + n, GUARD, pattern);
    allocations[p] = {n, pattern}, used += n;
    open(p - GUARD, GUARD, false), open(p + n, GUARD, false);
    return p;
}
bool release(uint64_t p) {
    auto it = allocations.find(p);
    if (it == allocations.end()) return false;
    auto [n, pattern] = it->second;
    look_around(p, it->second);
    allocations.erase(it), used -= n;
    fill(p, n, pattern);
    open(p, n, false);
    quarantine.push_back({p, n, pattern}), quarantined += n;
    evict(QUARANTINE_BYTES, QUARANTINE_BLOCKS);
    return true;
}
bool in_one_allocation(const void* p, size_t bytes) {
    auto next = allocations.upper_bound((uint64_t)p);
    if (next == allocations.begin()) return false;
    auto& [start, a] = *std::prev(next);
    return (uint64_t)p + bytes <= start + a.bytes;
}
Memory memory() { return {total_memory() - used, total_memory()}; }
std::string damage() {
    for (auto& [p, a] : allocations) look_around(p, a);
    size_t newest = 0;  // of what was freed; the others are looked at when they go
    for (auto b = quarantine.rbegin(); b != quarantine.rend() && newest < 8; ++b, ++newest)
        if (b->bytes <= 1 << 16) look_at(*b);
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
