// hw.memory.banked.BankedMemory: who gets which bank.
#pragma once

#include "common.hpp"

// Requests to one memory, a bit for each port, and where they go.
template <int PORTS>
struct Requests {
    uint32_t mask = 0;
    uint32_t address[PORTS];

    void ask(int port, uint32_t where) {
        mask |= 1u << port;
        address[port] = where;
    }
};

// What became of the requests of a cycle, a bit for each port: taken, and on the way to their data.
struct Taken {
    uint32_t accepted, granted;

    bool accepts(int port) const { return accepted >> port & 1; }
    bool grants(int port) const { return granted >> port & 1; }
};

template <int READERS, int WRITERS, int BACKGROUND>
class BankedMemory {
public:
    Requests<READERS> reads;
    Requests<WRITERS> writes;
    int64_t           read_count[READERS]  = {};
    int64_t           write_count[WRITERS] = {};

    BankedMemory(int banks, bool pipelined) : m_banks(banks), m_pipelined(pipelined) {}

    // Requests of this cycle, in a pipelined memory those that wait in registers, are granted; those
    // that come are forgotten, or wait there, or behind it.
    Taken take_reads(bool counted) {
        Taken taken{};
        if (!(reads.mask | m_asked.mask | m_spilled.mask)) return taken;
        if (m_pipelined) {
            taken.accepted = reads.mask & ~m_spilled.mask;
            taken.granted  = grant(m_asked);
            for (uint32_t rest = taken.accepted; rest; rest &= rest - 1) {
                const int port = std::countr_zero(rest);
                m_spilled.ask(port, reads.address[port]);
            }
            const uint32_t moves = m_spilled.mask & ~(m_asked.mask & ~taken.granted);
            m_asked.mask &= ~taken.granted;
            m_spilled.mask &= ~moves;
            for (uint32_t rest = moves; rest; rest &= rest - 1) {
                const int port = std::countr_zero(rest);
                m_asked.ask(port, m_spilled.address[port]);
            }
        } else {
            taken.accepted = taken.granted = grant(reads);
        }
        reads.mask = 0;
        if (counted) count(taken.accepted, read_count);
        return taken;
    }
    uint32_t grant_writes(bool counted) {
        const uint32_t granted = arbitrate(writes, writes.mask, m_writers);
        writes.mask = 0;
        if (counted) count(granted, write_count);
        return granted;
    }

private:
    static constexpr int MOST_BANKS = 64;
    const uint32_t    m_banks;
    const bool        m_pipelined;
    Requests<READERS> m_asked, m_spilled;
    RoundRobin        m_readers[MOST_BANKS];
    RoundRobin        m_writers[MOST_BANKS];

    uint32_t bank(uint32_t address) const { return address & (m_banks - 1); }

    uint32_t grant(const Requests<READERS>& reads) {
        constexpr uint32_t urgent = (1u << (READERS - BACKGROUND)) - 1;
        uint32_t granted = arbitrate(reads, reads.mask & urgent, m_readers);
        for (uint32_t rest = reads.mask & ~urgent; rest; rest &= rest - 1) {
            const int port = std::countr_zero(rest);
            bool      busy = false;
            for (uint32_t others = reads.mask & urgent; others; others &= others - 1)
                busy |= bank(reads.address[std::countr_zero(others)]) == bank(reads.address[port]);
            if (!busy) granted |= 1u << port;
        }
        return granted;
    }

    template <int PORTS>
    uint32_t arbitrate(const Requests<PORTS>& requests, uint32_t mask, RoundRobin* arbiters) {
        uint32_t granted = 0;
        while (mask) {
            const uint32_t first = bank(requests.address[std::countr_zero(mask)]);
            uint32_t       same  = 0;
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                const int port = std::countr_zero(rest);
                if (bank(requests.address[port]) == first) same |= 1u << port;
            }
            granted |= arbiters[first].grant(same);
            mask &= ~same;
        }
        return granted;
    }
    template <int PORTS>
    static void count(uint32_t granted, int64_t (&counts)[PORTS]) {
        for (; granted; granted &= granted - 1) ++counts[std::countr_zero(granted)];
    }
};
