// What the files that implement the driver's calls share.
#pragma once
#include "memory.h"
#include "stream.h"
#include <mutex>

enum Result {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201, UNSUPPORTED_PTX_VERSION = 222, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801
};
extern std::recursive_mutex one_at_a_time;
bool context_is_current();
// After a fault that a card does not survive every call returns its code.
extern int dead;
int take_trouble();

// Begins a call that needs a context.
#define ENTER                                                  \
    std::lock_guard lock(one_at_a_time);                       \
    if (!context_is_current()) return INVALID_CONTEXT;         \
    if (dead) return dead
#define STREAM(handle, name)                                   \
    emu::Stream* name = emu::find_stream(handle);              \
    if (!name) return INVALID_HANDLE
