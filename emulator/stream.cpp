#include "stream.h"
#include <cstdlib>
#include <map>

namespace emu {
namespace {
Stream the_null_stream{true, {}};
std::map<void*, std::unique_ptr<Stream>>& streams() { static std::map<void*, std::unique_ptr<Stream>> m; return m; }
// Streams that were destroyed: events may still name them.
std::deque<std::unique_ptr<Stream>>& retired() { static std::deque<std::unique_ptr<Stream>> d; return d; }
uint64_t seed() {
    static const uint64_t s = [] { const char* t = std::getenv("EMU_SEED"); return t ? std::strtoull(t, nullptr, 10) : 0; }();
    return s;
}
}  // namespace

void Stream::add(std::function<void()> op) {
    // The null stream and those that are not non-blocking wait for each other.
    if (this == &the_null_stream) {
        for (auto& [handle, s] : streams())
            if (s->waits_for_null && !s->queue.empty()) queue.push_back([s = s.get(), n = s->queued] { s->run(n); }), ++queued;
    } else if (waits_for_null && !the_null_stream.queue.empty()) {
        queue.push_back([n = the_null_stream.queued] { the_null_stream.run(n); }), ++queued;
    }
    queue.push_back(std::move(op)), ++queued;
    if (queue.size() > 256) run(queued - 128);  // a real queue is finite as well
}
void Stream::run(uint64_t until) {
    while (done < until && !queue.empty()) {
        auto op = std::move(queue.front());
        queue.pop_front();
        op();
        ++done;
    }
}
Stream* null_stream() { return &the_null_stream; }
Stream* find_stream(void* handle) {
    if ((uintptr_t)handle <= 2) return &the_null_stream;  // 1 and 2: the null stream and the thread's own by their names
    auto it = streams().find(handle);
    return it == streams().end() ? nullptr : it->second.get();
}
void* add_stream(bool waits_for_null) {
    auto s = std::make_unique<Stream>(Stream{waits_for_null, {}});
    void* handle = s.get();
    streams()[handle] = std::move(s);
    return handle;
}
bool remove_stream(void* handle) {
    auto it = streams().find(handle);
    if (it == streams().end()) return false;
    it->second->run();
    retired().push_back(std::move(it->second));
    return streams().erase(it), true;
}
void run_all() {
    the_null_stream.run();
    for (auto& [handle, s] : streams()) s->run();
}
bool all_idle() {
    for (auto& [handle, s] : streams()) if (!s->queue.empty()) return false;
    return the_null_stream.queue.empty();
}
void Event::record(Stream* s) {
    auto m = std::make_shared<Mark>();
    s->add([m] { m->when = std::chrono::steady_clock::now(); });
    stream = s, position = s->queued, mark = m;
    if (s->queue.size() == 1) s->run();  // nothing is before it
}
bool stream_coin() {
    static uint64_t state = seed() * 0x9e3779b97f4a7c15;
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    return (z ^ z >> 29) >> 63;
}
bool late_launch() { return seed() % 4 == 0 ? false : seed() % 4 == 2 ? true : stream_coin(); }
Trouble& trouble() { static Trouble t; return t; }
}  // namespace emu
