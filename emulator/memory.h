// Device memory and pinned memory of the emulated driver.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {
// Device memory is the host's, between guards. All of it is NaN until it is written, the guards for ever. 0: no memory left.
uint64_t allocate(size_t bytes);
// What was freed becomes NaN and is kept for a while, so that its users see it and writers are seen.
bool release(uint64_t p);
bool in_one_allocation(const void* p, size_t bytes);
struct Memory { size_t free, total; };
Memory memory();
// What was written outside of any allocation since the last call, in words; or nothing.
std::string damage();

void* allocate_pinned(size_t bytes);
void pin(void* p, size_t bytes);  // memory that the program made itself
bool unpin(void* p);
bool release_pinned(void* p);
bool is_pinned(const void* p, size_t bytes);
void forget_released_pinned();  // once nothing is queued that could read it
}  // namespace emu
