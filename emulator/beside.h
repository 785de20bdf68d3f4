// What libcuda.so offers to the emulated libraries beside it, found there by name.
#pragma once
#include <cstddef>

extern "C" {
// Work that a stream does as it would a kernel: now, or when somebody has to wait for it. It gives 0, or the launch
// failed. `work` frees what it was given; EMU_LAUNCH_FAILS=cublasLtMatmul lets all such work fail.
int emu_enqueue(void* stream, int (*work)(void*), void* with);
int emu_is_device_memory(const void* p, size_t bytes);
}
