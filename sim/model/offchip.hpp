// hw.memory.offchip.OffchipMemory and hw.memory.dram.DramScheduler, without what is stored.
#pragma once

#include "common.hpp"

struct Burst {
    uint32_t address;       // in beats
    uint32_t beats;
    int      id;
};

// What the chip's side of the bus does in one cycle.
struct OffchipWires {
    bool  read_address  = false;        // a transfer on AR
    bool  write_address = false;        // on AW
    bool  write_data    = false;        // on W
    bool  write_last    = false;
    bool  read_ready    = false;        // RREADY
    Burst read, write;
};

class OffchipMemory {
public:
    // On the bus, as registers.
    bool read_valid = false;
    bool read_last  = false;

    int64_t read_beats = 0, written_beats = 0, row_hits = 0, row_misses = 0;
    Cycle   wake = 0;

    explicit OffchipMemory(const Config& config)
        : m_config(config), m_columns(1u << config.column_bits),
          m_refresh_at(config.refresh_interval - 1) {}

    bool address_room(bool write) const { return waiting(write).level != QUEUE; }
    bool data_room() const { return m_data.has_room(); }
    bool acknowledges() const { return m_responses.level != 0; }
    int  acknowledged() const { return m_responses.head(); }

    int64_t busy_cycles(Cycle now) const { return m_busy + (now - m_seen) * busy(); }
    int64_t refresh_cycles(Cycle now) const {
        return m_refreshes + std::max<Cycle>(0, std::min(now, m_refresh_end) - m_refresh_begin);
    }

    // Nobody waits for an answer.
    bool quiet() const {
        return empty() && !m_bus_valid && !read_valid && !acknowledges() && !m_data.moves();
    }

    void tick(const OffchipWires& wires, Cycle now) {
        m_busy += (now - m_seen) * busy();
        m_seen = now;

        // The data bus.
        const bool last  = m_index + 1 == m_bus.beats;
        const int  sum   = m_credit + m_config.rate;
        const bool paced = sum >= RATE_ONE;
        bool       move  = false;
        if (m_bus_valid && paced)
            move = m_bus_write
                       ? m_data.offers && (m_responses.level != QUEUE || !(last && m_bus.last))
                       : !read_valid || wires.read_ready;
        const bool ends = move && last;
        if (!m_bus_valid) m_credit = 0;
        else if (!paced || move) m_credit = sum & (RATE_ONE - 1);

        const bool acknowledge = acknowledges();
        const bool starts      = m_writes.level != 0 && m_complete != 0 && !m_write_cut.valid;
        const bool cuts        = m_reads.level != 0 && !m_read_cut.valid;

        schedule(ends, now);

        if (acknowledge) m_responses.pop();
        if (wires.read_ready) read_valid = false;
        if (move) {
            m_index = last ? 0 : m_index + 1;
            if (m_moved.write) {
                ++written_beats;
                if (last && m_moved.last) m_responses.push(m_moved.id);
            } else {
                ++read_beats;
                read_valid = true;
                read_last  = last && m_moved.last;
            }
        }
        m_data.tick(wires.write_data, move && m_moved.write);
        m_complete += (wires.write_data && wires.write_last) - starts;
        if (cuts) m_read_cut.take(m_reads.head().address, m_reads.head().beats);
        if (cuts) m_reads.pop();
        if (starts) {
            m_write_cut.take(m_writes.head().address, m_writes.head().beats);
            m_write_id = m_writes.pop().id;
        }
        if (wires.read_address) m_reads.push(wires.read);
        if (wires.write_address) m_writes.push(wires.write);
        wake = next(now);
    }

private:
    static constexpr int QUEUE = OFFCHIP_QUEUE;
    static constexpr int BATCH = OFFCHIP_BATCH;
    static constexpr int BANKS = 64;

    struct Access {
        uint32_t address = 0, beats = 0;
        bool     last = false, write = false;
        int      id = 0;
    };

    const Config&       m_config;
    const uint32_t      m_columns;
    Queue<Burst, QUEUE> m_reads, m_writes;
    BurstSplitter       m_read_cut, m_write_cut;
    int                 m_write_id = 0;
    BufferedQueue       m_data{OFFCHIP_DATA};
    int                 m_complete = 0;
    Queue<int, QUEUE>   m_responses;

    // The access that has the bus, and the one that is being prepared.
    bool     m_bus_valid = false, m_bus_write = false;
    Access   m_bus, m_moved;
    uint32_t m_bus_bank = 0, m_index = 0;
    int      m_credit   = 0;
    bool     m_offered = false, m_prepared = false, m_was_hit = false;
    Access   m_access;
    Cycle    m_ready_at = 0;
    int      m_streak   = 0;
    uint64_t m_open     = 0;
    uint32_t m_rows[BANKS] = {};

    // Refresh: in cycle `m_refresh_at` it becomes due with the next one; it takes the cycles from
    // `m_refresh_begin` up to, not including, `m_refresh_end`.
    Cycle   m_refresh_at;
    bool    m_refresh_due   = false;
    Cycle   m_refresh_begin = 0, m_refresh_end = 0;
    int64_t m_refreshes     = 0;        // cycles, of those before
    int64_t m_busy          = 0;
    Cycle   m_seen          = 0;

    const Queue<Burst, QUEUE>& waiting(bool write) const { return write ? m_writes : m_reads; }
    bool busy() const { return m_offered || m_bus_valid; }

    // One cycle of the scheduler; `ends`: the access on the bus moves its last beat.
    void schedule(bool ends, Cycle now) {
        m_moved       = m_bus;
        m_moved.write = m_bus_write;
        const bool     refreshing = now < m_refresh_end;
        const bool     free       = !m_bus_valid || ends;
        const bool     advance    = m_offered && m_prepared && now >= m_ready_at && free
                             && !m_refresh_due && !refreshing;
        const bool     turns      = m_access.write != m_bus_write;
        const uint32_t above      = m_access.address >> m_config.column_bits;
        const uint32_t bank       = above & ((1u << m_config.bank_bits) - 1);
        const uint32_t row        = above >> m_config.bank_bits;
        const bool     is_open    = m_open >> bank & 1;
        const bool     hit        = is_open && m_rows[bank] == row;
        const bool     held       = m_bus_valid && (turns || (m_bus_bank == bank && !hit));
        const bool     takes      = !m_offered || advance;
        const bool     was_due    = m_refresh_due;

        if (now == m_refresh_at) {
            m_refresh_due = true;
            m_refresh_at += m_config.refresh_interval;
        }
        if (refreshing) {
        } else if (was_due) {
            if (free) {
                m_refresh_due   = false;
                m_refreshes    += m_refresh_end - m_refresh_begin;
                m_refresh_begin = now + 1;
                m_refresh_end   = now + 1 + m_config.refresh_busy;
                m_open          = 0;
                m_prepared      = false;
            }
        } else if (m_offered && !m_prepared && !held) {
            const Cycle cost = m_config.row_hit + (hit ? 0 : m_config.activate)
                               + (is_open && !hit ? m_config.precharge : 0)
                               + (turns ? m_config.turnaround : 0);
            m_ready_at = now + 1 + (cost < 2 ? 0 : cost - 2);
            m_prepared = true;
            m_was_hit  = hit;
            m_open |= uint64_t{1} << bank;
            m_rows[bank] = row;
        }

        if (ends) m_bus_valid = false;
        if (advance) {
            m_bus_valid = true;
            m_bus       = m_access;
            m_bus_write = m_access.write;
            m_bus_bank  = bank;
            ++(m_was_hit ? row_hits : row_misses);
        }
        if (takes) {
            const bool full  = m_streak == BATCH;
            const bool write = m_write_cut.valid && (!m_read_cut.valid || (m_access.write ^ full));
            m_offered        = m_read_cut.valid || m_write_cut.valid;
            if (m_offered) {
                BurstSplitter& cut = write ? m_write_cut : m_read_cut;
                m_streak   = write != m_access.write ? 1 : full ? m_streak : m_streak + 1;
                m_prepared = false;
                m_access   = {cut.address, cut.length(m_columns) + 1, cut.last(m_columns), write,
                              m_write_id};
                cut.onward(m_columns);
            }
        }
    }

    bool empty() const {
        return !m_offered && !m_read_cut.valid && !m_write_cut.valid && m_reads.level == 0
               && (m_writes.level == 0 || m_complete == 0) && !m_refresh_due;
    }

    Cycle next(Cycle now) const {
        const bool waits = m_offered && m_prepared && !m_refresh_due
                           && (m_read_cut.valid || m_reads.level == 0)
                           && (m_write_cut.valid || m_writes.level == 0 || m_complete == 0);
        if ((!waits && !empty()) || m_bus_valid || read_valid || acknowledges() || m_data.moves())
            return now + 1;
        Cycle event = m_refresh_at;
        if (waits) event = std::min(event, std::max(m_ready_at, m_refresh_end));
        return std::max(event, now + 1);
    }
};
