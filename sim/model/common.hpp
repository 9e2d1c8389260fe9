// What the blocks of the cycle model share: time, queues, arbiters, the way to sleep.
//
// A block holds the registers of its RTL. In every cycle first all handshakes are found from
// registers alone (`wires` of the blocks), then every block takes its step (`tick`), which writes
// only registers of its own. A block that would do nothing before cycle `wake` is not called until
// then; what it spends its cycles on does not change meanwhile.
#pragma once

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "machine_constants.hpp"

using Cycle = int64_t;

constexpr Cycle NEVER = INT64_MAX / 2;

[[noreturn]] inline void refuse(const std::string& why) { throw std::runtime_error(why); }

inline int bit_length(uint32_t value) { return std::bit_width(value); }

// A ring of up to SIZE entries: the contents of amaranth.lib.fifo.SyncFIFO.
template <typename T, int SIZE>
class Queue {
public:
    int level = 0;
    const T& head() const { return m_items[m_first]; }
    void push(const T& item) {
        m_items[(m_first + level) % SIZE] = item;
        ++level;
    }
    T pop() {
        T item = m_items[m_first];
        m_first = (m_first + 1) % SIZE;
        --level;
        return item;
    }

private:
    int m_first = 0;
    T   m_items[SIZE];
};

// Levels of amaranth.lib.fifo.SyncFIFOBuffered: what was written is offered two cycles later.
struct BufferedQueue {
    int  depth;
    int  inner  = 0;
    bool offers = false;

    bool has_room() const { return inner != depth - 1; }
    bool moves() const { return inner != 0 && !offers; }
    void tick(bool write, bool read) {
        const bool forward = inner != 0 && (!offers || read);
        offers = forward || (offers && !read);
        inner += write - forward;
    }
};

// hw.memory.arbiter.RoundRobin, which is told in every cycle that its grant was taken.
struct RoundRobin {
    uint32_t later = 0;

    uint32_t grant(uint32_t requests) {
        if (!requests) return 0;
        const uint32_t waiting  = requests & later;
        const uint32_t eligible = waiting ? waiting : requests;
        const uint32_t granted  = eligible & -eligible;
        later = ~(granted | (granted - 1));
        return granted;
    }
};

// The index after `last`, wrapping around, whose bit is set: round_robin of hw.control.buffer.
inline int next_after(uint32_t requests, int last) {
    const uint32_t beyond = requests & ~((2u << last) - 1);
    return std::countr_zero(beyond ? beyond : requests);
}

// hw.memory.bursts.BurstSplitter.
struct BurstSplitter {
    bool     valid   = false;
    uint32_t address = 0;
    uint32_t left    = 0;

    uint32_t room(uint32_t window) const { return ~address & (window - 1); }
    bool     last(uint32_t window) const { return left <= room(window); }
    uint32_t length(uint32_t window) const { return last(window) ? left : room(window); }
    void     take(uint32_t at, uint32_t beats) {
        valid   = true;
        address = at;
        left    = beats - 1;
    }
    void onward(uint32_t window) {
        const uint32_t step = room(window);
        valid = !last(window);
        address += step + 1;
        left -= step + 1;
    }
};

// What one engine spends its cycles on. `spend` says what it does in cycle `now`, and until it is
// called again.
struct Causes {
    int64_t spent[CAUSES] = {};
    int     cause         = CAUSE_NO_WORK;
    Cycle   since         = 0;

    void settle(Cycle now) {
        spent[cause] += now - since;
        since = now;
    }
    void spend(int what, Cycle now) {
        if (what == cause) return;
        settle(now);
        cause = what;
    }
};

// The issue port of one engine: hw.interfaces.EngineSignature. An engine that is not asked in a
// cycle keeps its cause and does not retire.
struct Port {
    const Instruction* offered = nullptr;
    bool               retires = false;     // in this cycle
    int                cause   = CAUSE_FILL_DRAIN;
};
