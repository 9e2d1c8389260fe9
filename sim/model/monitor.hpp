// hw.monitor.monitor.AttentionMonitor, watching every map as the host of a run sets it, with a sink
// that always takes: only its reads matter.
#pragma once

#include "common.hpp"
#include "rows.hpp"

class AttentionMonitor {
public:
    Cycle wake = 0;

    explicit AttentionMonitor(const Config& config)
        : m_vector(config.vector), m_answers{config.granted_latency} {}

    bool     wants() const { return m_state == READ; }
    uint32_t address() const { return m_row.base + m_x / m_vector; }

    // `finished` is the row that the attention unit's convolution retires in this cycle.
    void tick(const Conv* finished, uint32_t width, bool accepted, bool read, Cycle now) {
        const bool arrives = m_answers.now();
        m_answers.tick(read);
        const bool has_room = m_rows.level != MONITOR_QUEUE;
        switch (m_state) {
        case IDLE:
            if (m_rows.level) {
                m_row   = m_rows.pop();
                m_x     = 0;
                m_state = READ;
            }
            break;
        case READ:
            if (accepted) m_state = TAKE;
            break;
        case TAKE:
            if (arrives) m_state = SEND;
            break;
        case SEND:
            ++m_x;
            if (m_x >= m_row.width) m_state = IDLE;
            else if (m_x % m_vector == 0) m_state = READ;
            break;
        }
        // Looked up, selected, queued: a cycle each.
        if (m_offered.width && has_room) m_rows.push(m_offered);
        m_offered  = m_selected;
        m_selected = {finished ? uint32_t(finished->out_base) : 0, finished ? width : 0};
        const bool busy = m_state != IDLE || m_rows.level || m_offered.width || m_selected.width;
        wake = busy ? now + 1 : NEVER;
    }

private:
    enum State { IDLE, READ, TAKE, SEND };
    struct Row {
        uint32_t base, width;
    };

    const uint32_t              m_vector;
    State                       m_state = IDLE;
    Row                         m_row{}, m_selected{}, m_offered{};
    uint32_t                    m_x = 0;
    Queue<Row, MONITOR_QUEUE>   m_rows;
    Answers                     m_answers;
};
