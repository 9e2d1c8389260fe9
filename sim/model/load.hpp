// hw.memory.load.LoadEngines: three load channels and the program on one AXI read port.
#pragma once

#include "offchip.hpp"

class LoadEngines {
public:
    static constexpr int CHANNELS = 3;
    static constexpr int FETCHER  = CHANNELS;
    static constexpr int CLIENTS  = CHANNELS + 1;

    Port    ports[CHANNELS];
    int64_t bytes[TRAFFICS] = {};
    int64_t bursts          = 0;
    Cycle   wake            = 0;

    // To the fetcher, as registers: a whole instruction arrived.
    bool answers = false;

    // Of this cycle: the fetcher's request is taken; a frame starts.
    bool fetch_taken   = false;
    bool frame_started = false;

    explicit LoadEngines(const Config& config) : m_config(config) {}

    bool idle() const { return m_order.level == 0 && !m_full; }

    // A word should go to on-chip memory: the one in the beat register, or if pipelined an earlier
    // one, which lies in a register of its own.
    bool     wants_onchip() const { return m_config.pipelined ? m_asked.valid : offers_word(); }
    uint32_t onchip_address() const {
        return m_config.pipelined ? m_asked.address : m_channels[m_client].address;
    }

    // What the bus sees, once on-chip memory has answered.
    void wires(OffchipWires& wires, const OffchipMemory& memory, bool onchip_granted) {
        m_delivers = m_full && m_client < CHANNELS && m_channels[m_client].moves
                     && (m_channels[m_client].load->target != LOADTARGET_ONCHIP
                         || (m_config.pipelined ? !m_spilled.valid : onchip_granted));
        if (m_config.pipelined) {
            const Word coming = m_spilled.valid ? m_spilled
                              : offers_word()   ? Word{true, m_channels[m_client].address} : Word{};
            const bool free   = !m_asked.valid || onchip_granted;
            m_next_asked      = free ? coming : m_asked;
            m_next_spilled    = free ? Word{} : coming;
        }
        m_taken = m_full && (m_client == FETCHER || (m_delivers && ends_beat()));
        m_address_taken    = m_address_valid && memory.address_room(false);
        wires.read_ready   = !m_full || m_taken;
        wires.read_address = m_address_taken;
        wires.read         = m_address;
        m_arrives          = memory.read_valid && wires.read_ready;
        m_arrives_last     = memory.read_last;
        m_may_ask          = !m_address_valid || memory.address_room(false);
    }

    void tick(bool fetch_wanted, uint32_t fetch_address, Cycle now) {
        // Who asks.
        uint32_t asks = 0;
        if (m_may_ask) {
            for (int client = 0; client < CLIENTS; ++client) {
                const bool valid = client == FETCHER ? fetch_wanted : m_channels[client].cut.valid;
                asks |= uint32_t{valid && m_under_way[client] != OUTSTANDING} << client;
            }
        }
        const uint32_t grant   = m_arbiter.grant(asks);
        const int      granted = grant ? std::countr_zero(grant) : -1;
        const int      client  = m_client;
        fetch_taken = granted == FETCHER;

        // The beat that leaves.
        answers       = m_full && client == FETCHER && m_last;
        frame_started = false;
        for (int number = 0; number < CHANNELS; ++number)
            advance(number, m_delivers && client == number, granted == number);
        if (m_taken) m_full = false;
        m_asked   = m_next_asked;
        m_spilled = m_next_spilled;

        // The beat that comes.
        if (m_arrives) {
            m_full   = true;
            m_client = m_order.head();
            m_last   = m_arrives_last;
            bytes[m_client == FETCHER ? TRAFFIC_PROGRAM
                                      : int(m_channels[m_client].load->traffic)] += m_config.vector;
            if (m_last) {
                m_order.pop();
                --m_under_way[m_client];
            }
        }

        // The address.
        if (m_address_taken) m_address_valid = false;
        if (grant) {
            ++bursts;
            ++m_under_way[granted];
            m_order.push(granted);
            m_address_valid = true;
            if (granted == FETCHER) {
                m_address = {fetch_address / uint32_t(m_config.vector),
                             uint32_t(INSTRUCTION_BYTES / m_config.vector), 0};
            }
        }
        wake = next(now);
    }

private:
    static constexpr int OUTSTANDING = LOAD_OUTSTANDING;
    static constexpr int WINDOW      = LOAD_WINDOW;

    enum State { IDLE, CHECK, MOVE, RETIRE };
    struct Channel {
        State         state = IDLE;
        bool          moves = false;
        const Load*   load  = nullptr;
        BurstSplitter cut;
        uint32_t      index = 0, address = 0, part = 0;
    };

    const Config&               m_config;
    Channel                     m_channels[CHANNELS];
    RoundRobin                  m_arbiter;
    Queue<int, CLIENTS * LOAD_OUTSTANDING> m_order;
    int                         m_under_way[CLIENTS] = {};
    bool                        m_address_valid = false;
    Burst                       m_address{};
    bool                        m_full = false, m_last = false;
    int                         m_client = 0;

    // In a pipelined machine, the word on offer to on-chip memory, and the one that waits behind it.
    struct Word {
        bool     valid   = false;
        uint32_t address = 0;
    };
    Word m_asked, m_spilled;

    // Handshakes of this cycle.
    Word m_next_asked, m_next_spilled;
    bool m_delivers = false, m_taken = false, m_arrives = false, m_arrives_last = false;
    bool m_address_taken = false, m_may_ask = false;

    bool offers_word() const {
        return m_full && m_client < CHANNELS && m_channels[m_client].moves
               && m_channels[m_client].load->target == LOADTARGET_ONCHIP;
    }
    uint32_t parts() const { return m_config.vector / 4; }
    bool     ends_beat() const {
        const Channel& channel = m_channels[m_client];
        return !channel.load->expand || channel.part + 1 == parts();
    }

    void advance(int number, bool delivers, bool granted) {
        Channel& channel = m_channels[number];
        Port&    port    = ports[number];
        port.retires = false;
        port.cause   = CAUSE_FILL_DRAIN;
        if (granted) {
            m_address = {channel.cut.address, channel.cut.length(WINDOW) + 1, 0};
            channel.cut.onward(WINDOW);
        }
        switch (channel.state) {
        case IDLE:
            if (!port.offered) return;
            channel.load    = &port.offered->load;
            channel.index   = 0;
            channel.part    = 0;
            channel.address = channel.load->base;
            channel.state   = CHECK;
            return;
        case CHECK:
            if (!channel.load->beats) refuse("a LOAD of no beats");
            channel.cut.take(channel.load->offchip / m_config.vector, channel.load->beats);
            channel.state = MOVE;
            channel.moves = true;
            return;
        case MOVE:
            port.cause = CAUSE_OFFCHIP;
            if (delivers) {
                const bool ends = !channel.load->expand || channel.part + 1 == parts();
                port.cause = CAUSE_ISSUE;
                frame_started |= channel.load->frame_start && !channel.index && !channel.part;
                if (ends && channel.index + 1 == channel.load->beats) {
                    channel.state = RETIRE;
                    channel.moves = false;
                }
                ++channel.address;
                channel.part = ends ? 0 : channel.part + 1;
                channel.index += ends;
            } else if (m_full && m_client == number) {
                port.cause = CAUSE_CONFLICT;        // units always take their beats
            }
            return;
        case RETIRE:
            if (m_asked.valid || m_spilled.valid) return;
            port.retires  = true;
            channel.state = IDLE;
            return;
        }
    }

    Cycle next(Cycle now) const {
        if (m_full || m_address_valid || answers || m_asked.valid || m_spilled.valid) return now + 1;
        for (int client = 0; client < CHANNELS; ++client) {
            const Channel& channel = m_channels[client];
            const bool     waits   = channel.state == IDLE
                               || (channel.state == MOVE && ports[client].cause == CAUSE_OFFCHIP);
            if (!waits || (channel.cut.valid && m_under_way[client] != OUTSTANDING)) return now + 1;
        }
        return NEVER;
    }
};
