// How rows reach a row memory: hw.compute.row_writer.RowWriter, hw.compute.fill.FillEngine and
// hw.attention.gate.GateEngine.
#pragma once

#include "common.hpp"

// The state of the answers to memory reads: each comes `latency` cycles after its grant.
struct Answers {
    int64_t  latency;
    uint32_t pending = 0;
    bool     now() const { return pending >> (latency - 1) & 1; }
    void     tick(bool granted) {
        pending = (pending << 1 | granted) & ((1u << latency) - 1);
    }
};

// hw.compute.row_writer.RowWriter; `bank` is where the vector on offer goes.
struct RowWriter {
    bool     valid = false;
    uint32_t bank  = 0;

    void start(uint32_t vectors, uint32_t columns, bool twice, uint32_t banks) {
        m_vectors = vectors;
        m_columns = columns;
        m_twice   = twice;
        m_banks   = banks;
        m_column = m_vector = 0;
        m_last = m_copy = false;
    }
    bool takes(bool granted) const { return (!valid || granted) && (!m_twice || m_copy); }
    bool finishes(bool granted) const { return m_last && valid && granted; }
    void tick(bool offered, bool granted) {
        const bool loads = offered && (!valid || granted);
        const bool done  = loads && (!m_twice || m_copy);
        if (granted) valid = false;
        if (loads) {
            valid  = true;
            bank   = (m_column + m_copy) & (m_banks - 1);
            m_copy = m_twice && !m_copy;
        }
        if (done && ++m_vector == m_vectors) {
            m_vector = 0;
            m_column += m_twice ? 2 : 1;
            m_last = m_column == m_columns;
        }
    }

private:
    uint32_t m_vectors = 0, m_columns = 0, m_banks = 0, m_column = 0, m_vector = 0;
    bool     m_twice = false, m_copy = false, m_last = false;
};

// What both have: an instruction is checked, bit by bit of its longer factor, moves, and retires.
class RowEngine {
public:
    Port      port;
    RowWriter writer;
    Cycle     wake = 0;

protected:
    bool m_reading = false;

    void check(uint32_t vectors, uint32_t stride, Cycle now) {
        m_state = CHECK;
        wake    = now + 1 + bit_length(std::max(vectors, stride));
    }
    // The next state; whether an instruction is to begin.
    bool advance(bool finishes, Cycle now) {
        wake = now + 1;
        switch (m_state) {
        case WAIT:
            wake = NEVER;
            return port.offered;
        case CHECK:
            m_reading = true;
            m_state   = MOVE;
            return false;
        case MOVE:
            if (finishes) m_state = RETIRE;
            return false;
        case RETIRE:
            port.retires = true;
            m_state      = WAIT;
            return false;
        }
        return false;
    }

private:
    enum State { WAIT, CHECK, MOVE, RETIRE };
    State m_state = WAIT;
};

class FillEngine : public RowEngine {
public:
    FillEngine(const Config& config, const UnitConfig& unit)
        : m_banks(unit.banks), m_credits(config.read_queue), m_answers{config.granted_latency} {}

    // A read that is on offer, of the on-chip or the feedback memory.
    bool     wants() const { return m_reading && (m_credits != 0 || m_phase != 0); }
    bool     feedback() const { return m_fill && m_fill->source == SOURCE_FEEDBACK; }
    uint32_t address() const { return m_address; }

    void tick(bool accepted, bool read, bool granted, Cycle now) {
        const bool asked    = wants();
        const bool pool     = m_pool;
        const bool taken    = accepted && m_phase == 0;
        const bool stored   = m_answers.now() && (!pool || m_member == 3);
        const bool moves    = m_level != 0 && writer.takes(granted);
        const bool finishes = writer.finishes(granted);

        port.retires = false;
        port.cause   = writer.valid && granted                  ? CAUSE_ISSUE
                       : writer.valid || (asked && !accepted) ? CAUSE_CONFLICT
                                                              : CAUSE_FILL_DRAIN;
        writer.tick(m_level != 0, granted);
        if (m_answers.now() && pool) m_member = (m_member + 1) & 3;
        m_answers.tick(read);
        m_level += stored - moves;
        m_credits += moves - taken;
        if (accepted) request(pool);

        if (advance(finishes, now)) begin(now);
    }

private:
    const uint32_t m_banks;
    const Fill*    m_fill  = nullptr;
    bool           m_pool = false;
    int            m_credits, m_level = 0;
    uint32_t       m_phase = 0, m_member = 0;
    uint32_t       m_address = 0, m_first = 0, m_second = 0, m_pixels = 0, m_vector = 0;
    Answers        m_answers;

    void begin(Cycle now) {
        m_fill = &port.offered->fill;
        m_pool = m_fill->mode == FILLMODE_POOL;
        const bool     up      = m_fill->mode == FILLMODE_UP;
        const uint32_t columns = m_pool ? m_fill->width >> 1 : up ? m_fill->width << 1 : m_fill->width;
        if (!m_fill->vectors || !columns) refuse("a FILL of no vectors");
        writer.start(m_fill->vectors, columns, up, m_banks);
        m_address = m_first = m_fill->src_base;
        m_second = m_fill->src_base2;
        m_pixels = m_pool ? m_fill->width >> 1 : m_fill->width;
        m_vector = m_phase = m_member = 0;
        check(m_fill->vectors, m_fill->dst_stride, now);
    }
    void request(bool pool) {
        const uint32_t vectors = m_fill->vectors;
        if (pool && m_phase != 3) {
            m_address = m_phase == 1 ? m_second : m_address + vectors;
            ++m_phase;
            return;
        }
        const bool     last = m_vector + 1 == vectors;
        const uint32_t step = last && pool ? vectors + 1 : 1;
        m_phase = 0;
        m_first += step;
        m_second += step;
        m_address = m_first;
        m_vector  = last ? 0 : m_vector + 1;
        if (last && --m_pixels == 0) m_reading = false;
    }
};

class GateEngine : public RowEngine {
public:
    GateEngine(const Config& config, const UnitConfig& decoder)
        : m_banks(decoder.banks), m_steps(config.vector / config.gate_lanes),
          m_slots((m_steps + GATE_PIPELINE + 1 + m_steps - 1) / m_steps), m_credits(config.read_queue),
          m_free(m_slots), m_answers{config.granted_latency} {}

    bool     wants() const { return m_reading && (m_credits != 0 || m_begun); }
    uint32_t address() const { return asks_skip() ? m_address : m_alpha_address; }

    void tick(bool accepted, bool read, bool granted, Cycle now) {
        const bool asked    = wants();
        const bool skip     = accepted && asks_skip();
        const bool taken    = accepted && !m_begun;
        const bool stored   = m_answers.now() && (!m_wide || m_second);
        const bool issues   = m_level != 0 && (m_part != 0 || m_free != 0);
        const bool starts   = issues && m_part == 0;
        const bool ends     = issues && m_part == m_steps - 1;
        const bool leaves   = m_stages >> (GATE_PIPELINE - 1) & 1;
        const bool result   = leaves && m_done == m_steps - 1;
        const bool moves    = m_results != 0 && writer.takes(granted);
        const bool finishes = writer.finishes(granted);

        port.retires = false;
        port.cause   = issues                      ? CAUSE_ISSUE
                       : writer.valid && !granted ? CAUSE_BACKPRESSURE
                       : asked && !accepted       ? CAUSE_CONFLICT
                                                  : CAUSE_FILL_DRAIN;
        writer.tick(m_results != 0, granted);
        if (m_answers.now() && m_wide) m_second = !m_second;
        m_answers.tick(read);
        m_level += stored - ends;
        m_credits += ends - taken;
        m_results += result - moves;
        m_free += moves - starts;
        m_stages = (m_stages << 1 | issues) & ((1u << GATE_PIPELINE) - 1);
        if (issues) m_part = ends ? 0 : m_part + 1;
        if (leaves) m_done = result ? 0 : m_done + 1;
        if (accepted) m_begun = !skip;
        if (skip) request();

        if (advance(finishes, now)) begin(now);
    }

private:
    const uint32_t m_banks;
    const int      m_steps, m_slots;
    const Gate*    m_gate  = nullptr;
    bool           m_wide = false, m_begun = false, m_second = false;
    int            m_credits, m_level = 0, m_results = 0, m_free;
    int            m_part = 0, m_done = 0;
    uint32_t       m_stages = 0;
    uint32_t       m_address = 0, m_alpha_address = 0, m_alpha_pixel = 0, m_column = 0, m_vector = 0;
    Answers        m_answers;

    bool asks_skip() const { return !m_wide || m_begun; }

    void begin(Cycle now) {
        m_gate = &port.offered->gate;
        m_wide = m_gate->wide;
        if (!m_gate->vectors || !m_gate->width) refuse("a GATE of no vectors");
        writer.start(m_gate->vectors, m_gate->width, false, m_banks);
        m_address       = m_gate->skip_base;
        m_alpha_address = m_alpha_pixel = m_gate->alpha_base;
        m_column = m_vector = 0;
        check(m_gate->vectors, m_gate->dst_stride, now);
    }
    void request() {
        ++m_address;
        ++m_alpha_address;
        if (++m_vector != m_gate->vectors) return;
        m_vector = 0;
        if (m_gate->same || (m_column & 1)) m_alpha_pixel = m_alpha_address;
        else m_alpha_address = m_alpha_pixel;
        if (m_column + 1 == m_gate->width) m_reading = false;
        ++m_column;
    }
};
