// Streams of the emulated driver: queues whose work is done as late as the program allows.
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

namespace emu {
struct Stream {
    bool waits_for_null;  // made without CU_STREAM_NON_BLOCKING
    std::deque<std::function<void()>> queue;
    uint64_t queued = 0, done = 0;  // how many were ever
    void add(std::function<void()> op);
    // Does what was queued up to number `until`. Other streams follow only where this one waits for them.
    void run(uint64_t until);
    void run() { run(queued); }
};
using StreamRef = std::shared_ptr<Stream>;
Stream* null_stream();
Stream* find_stream(void* handle);  // null if there is none such
void* add_stream(bool waits_for_null);
bool remove_stream(void* handle);
void run_all();
bool all_idle();

struct Event {
    bool timed;
    struct Mark { std::chrono::steady_clock::time_point when; };
    Stream* stream = nullptr;
    uint64_t position = 0;
    std::shared_ptr<Mark> mark;  // of the last record
    bool complete() const { return !stream || stream->done >= position; }
    void wait() { if (stream) stream->run(position); }
    void record(Stream* s);
};
// A choice of the adversary that depends on EMU_SEED alone; `false` is seed 0's.
bool late_launch();
bool stream_coin();

// What went wrong while a queue was run: for the call that waits for it.
struct Trouble { int code = 0; std::string text; };
Trouble& trouble();
}  // namespace emu
