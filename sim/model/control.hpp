// The way of an instruction: hw.control.fetch.ProgramFetcher, hw.control.buffer.InstructionBuffer
// and hw.control.frontend.FrontEnd; with the ledger of what every engine did.
#pragma once

#include <vector>

#include "common.hpp"

using Streams = std::vector<Instruction>[ENGINES];

class ProgramFetcher {
public:
    Cycle wake = 0;

    // As registers, or found from registers alone.
    bool     request_valid   = false;
    uint32_t request_address = 0;
    int      offered_to      = -1;      // the engine whose instruction is on offer
    uint32_t exhausted       = 0;       // a bit for each engine

    ProgramFetcher(const Streams& streams, const uint32_t* addresses, uint32_t base)
        : m_streams(streams), m_where(base) {
        for (int engine = 0; engine < ENGINES; ++engine) m_rest_address[engine] = addresses[engine];
    }

    // The instruction on offer.
    const Instruction* instruction() const { return m_offered; }

    // `ready`: front ends that take an instruction; `taken`: the request on offer is; `answered`:
    // the words of one came.
    void tick(uint32_t ready, bool taken, bool answered) {
        const bool can_ask = (!request_valid || taken) && m_askers.level != FETCH_OUTSTANDING;
        const int  owner   = answered ? m_askers.head() : -1;

        // What is stored goes to the front ends, one a cycle.
        uint32_t stored = 0;
        for (int engine = 0; engine < ENGINES; ++engine)
            stored |= uint32_t{m_written[engine] != m_delivered[engine]} << engine;
        const uint32_t offering = offered_to < 0 ? 0 : 1u << offered_to;
        const uint32_t waiting  = stored & ready & ~offering;
        const bool     free     = (offering & ~ready) == 0;

        // Requests.
        uint32_t wants = 0;
        for (int engine = 0; engine < ENGINES; ++engine)
            wants |= uint32_t{(m_more >> engine & 1)
                              && m_reserved[engine] - m_delivered[engine] != FETCH_DEPTH} << engine;
        if (taken) request_valid = false;
        switch (m_state) {
        case CHECK:
            m_state = HEADERS;
            break;
        case HEADERS:
            if (m_header >= 0) {
                if (!m_streams[m_header].empty()) m_more |= 1u << m_header;
                if (m_header == ENGINES - 1) m_state = FETCH;
            }
            if (can_ask && m_asked != ENGINES) {
                ask(m_where, m_asked++);
                m_where += INSTRUCTION_BYTES;
            }
            m_header = owner;
            break;
        case FETCH:
            if (can_ask && wants) {
                const int choice = m_last_request = next_after(wants, m_last_request);
                ask(m_rest_address[choice], choice);
                m_rest_address[choice] += INSTRUCTION_BYTES;
                if (++m_reserved[choice] == m_streams[choice].size()) m_more &= ~(1u << choice);
            }
            if (answered) ++m_written[owner];
            break;
        }
        if (answered) m_askers.pop();

        if (free) {
            offered_to = -1;
            if (waiting) {
                offered_to = m_last_delivery = next_after(waiting, m_last_delivery);
                m_offered  = &m_streams[offered_to][m_delivered[offered_to]++];
            }
        }
        exhausted = 0;
        if (m_state == FETCH)
            for (int engine = 0; engine < ENGINES; ++engine)
                exhausted |= uint32_t{!(m_more >> engine & 1) && engine != offered_to
                                      && m_reserved[engine] == m_delivered[engine]} << engine;
    }

    // Of the registers as they are now; `ready` as they will be in the next cycle.
    Cycle next(uint32_t ready, bool answers, Cycle now) const {
        if (m_state != FETCH || request_valid || answers || offered_to >= 0) return now + 1;
        for (int engine = 0; engine < ENGINES; ++engine) {
            if ((m_more >> engine & 1) && m_reserved[engine] - m_delivered[engine] != FETCH_DEPTH
                && m_askers.level != FETCH_OUTSTANDING)
                return now + 1;
            if (m_written[engine] != m_delivered[engine] && (ready >> engine & 1)) return now + 1;
        }
        return NEVER;
    }

private:
    enum State { CHECK, HEADERS, FETCH };

    const Streams& m_streams;
    State          m_state = CHECK;
    uint32_t       m_where;
    int            m_asked = 0, m_header = -1;
    uint32_t       m_more  = 0;
    uint32_t       m_rest_address[ENGINES];
    uint32_t       m_reserved[ENGINES] = {}, m_written[ENGINES] = {}, m_delivered[ENGINES] = {};
    int            m_last_request = 0, m_last_delivery = 0;
    Queue<int, FETCH_OUTSTANDING> m_askers;
    const Instruction* m_offered = nullptr;

    void ask(uint32_t address, int engine) {
        m_askers.push(engine);
        request_valid   = true;
        request_address = address;
    }
};

// hw.control.layers.LayerLedger.
struct LayerRecord {
    int64_t busy, issued, first, last;
    bool    known;
};

class FrontEnd {
public:
    Causes      causes;
    int64_t     retired = 0;
    LayerRecord layers[LEDGER_LAYERS] = {};

    const Instruction* offered   = nullptr;
    const Instruction* following = nullptr;
    bool               began     = false;   // a frame, in this cycle

    bool waits() const { return m_pending != 0; }

    // Whether its next instruction begins a frame, and nothing else holds it back.
    bool begins() const {
        return following && !m_pending && following->opcode == OPCODE_LOAD
               && following->load.frame_start;
    }

    // One cycle; `counts` are the retired instructions of all engines before it; `missing`: the
    // next frame is. Returns whether one more retires.
    bool tick(const Port& port, const Instruction* given, bool exhausted, const int64_t* counts,
              bool missing, Cycle now) {
        const bool finishes = offered && port.retires;
        bool       met      = true;
        int        wanted   = 0;
        if (m_pending) {
            const Wait& wait = following->waits[std::countr_zero(m_pending)];
            wanted = wait.engine;
            met    = counts[wanted] >= int64_t(wait.count);
        }
        const bool held  = missing && begins();
        const bool clear = following && !m_pending && !held;
        const bool syncs = clear && following->opcode == OPCODE_SYNC;
        const bool sync  = syncs && !offered;
        const bool take  = clear && !syncs && (!offered || finishes);

        causes.spend(offered                  ? port.cause
                     : !following             ? exhausted ? CAUSE_NO_WORK : CAUSE_OFFCHIP
                     : m_pending && !met      ? is_load(wanted) ? CAUSE_OFFCHIP : CAUSE_DEPENDENCY
                     : held                   ? CAUSE_OFFCHIP
                     : sync                   ? CAUSE_DEPENDENCY
                                              : CAUSE_FILL_DRAIN,
                     now);
        if (finishes) close(now);
        if (m_pending && met) m_pending &= m_pending - 1;
        if (finishes) offered = nullptr;
        began = take && begins();
        if (take) {
            causes.settle(now + 1);
            offered  = following;
            m_issued = causes.spent[CAUSE_ISSUE];
            m_since  = now + 1;
        }
        if (take || sync) following = nullptr;
        if (given) {
            following = given;
            m_pending = 0;
            for (int index = 0; index < WAITS; ++index)
                m_pending |= uint32_t{given->waits[index].count != 0} << index;
        }
        m_changed = finishes || take || sync || given || (met && following && m_pending);
        retired += finishes || sync;
        return finishes || sync;
    }

    // Whether the next cycle may change anything if nothing else does.
    bool stirs(const int64_t* counts, bool missing) const {
        if (m_changed) return true;
        if (!following || (missing && begins())) return false;
        if (m_pending) {
            const Wait& wait = following->waits[std::countr_zero(m_pending)];
            return counts[wait.engine] >= int64_t(wait.count);
        }
        return !offered;
    }

private:
    uint32_t m_pending = 0;
    bool     m_changed = false;
    int64_t  m_issued  = 0;         // cycles of ISSUE before the instruction on offer
    Cycle    m_since   = 0;         // its first cycle

    static bool is_load(int engine) { return LOAD_ENGINES >> engine & 1; }

    // The instruction on offer retires with this cycle.
    void close(Cycle now) {
        causes.settle(now + 1);
        LayerRecord& record = layers[offered->layer];
        record.busy += now + 1 - m_since;
        record.issued += causes.spent[CAUSE_ISSUE] - m_issued;
        if (!record.known) record.first = m_since;
        record.last  = now;
        record.known = true;
    }
};
