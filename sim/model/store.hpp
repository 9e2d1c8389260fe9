// hw.memory.stores.StoreEngines: two store channels on one AXI write port.
#pragma once

#include "offchip.hpp"
#include "onchip.hpp"
#include "rows.hpp"

class StoreEngines {
public:
    static constexpr int CHANNELS = 2;

    Port    ports[CHANNELS];
    int64_t bytes[TRAFFICS] = {};
    int64_t bursts          = 0;
    bool    frame_ended     = false;        // in this cycle
    Cycle   wake            = 0;

    explicit StoreEngines(const Config& config) : m_config(config) {
        for (Channel& channel : m_channels) channel.answers.latency = config.granted_latency;
    }

    bool idle() const {
        for (const Channel& channel : m_channels)
            if (channel.unacknowledged || channel.on_way) return false;
        return true;
    }

    bool wants_onchip(int number) const {
        const Channel& channel = m_channels[number];
        return channel.left != 0 && channel.promised != BUFFER;
    }
    uint32_t onchip_address(int number) const { return m_channels[number].address; }

    void wires(OffchipWires& wires, const OffchipMemory& memory) {
        // Addresses take turns; a grant holds until memory takes the address.
        uint32_t asks = 0;
        for (int number = 0; number < CHANNELS; ++number)
            asks |= uint32_t{m_channels[number].address_valid} << number;
        m_fresh = !m_holds;
        m_grant = m_holds ? m_held : m_order.level == GRANTS ? 0 : m_arbiter.grant(asks);
        m_address_taken     = m_grant && memory.address_room(true);
        wires.write_address = m_address_taken;
        if (m_grant) wires.write = m_channels[std::countr_zero(m_grant)].burst;

        // Data of the oldest granted burst.
        m_writer = m_order.level ? m_order.head() : -1;
        m_sends  = m_writer >= 0 && m_channels[m_writer].offers() && memory.data_room();
        wires.write_data = m_sends;
        wires.write_last = m_sends && m_channels[m_writer].owed == 0;

        m_acknowledged = memory.acknowledges() ? memory.acknowledged() : -1;
    }

    void tick(const Taken& reads, Cycle now) {
        const bool ends = m_sends && m_channels[m_writer].owed == 0;
        frame_ended = false;
        for (int number = 0; number < CHANNELS; ++number)
            advance(number, reads.accepts(READ_STORE + number), reads.grants(READ_STORE + number));
        if (ends) m_order.pop();
        if (m_grant && m_fresh) m_order.push(std::countr_zero(m_grant));
        m_held  = m_grant;
        m_holds = m_grant && !m_address_taken;
        wake    = next(now);
    }

private:
    static constexpr int BUFFER      = STORE_BUFFER;
    static constexpr int OUTSTANDING = STORE_OUTSTANDING;
    static constexpr int WINDOW      = STORE_WINDOW;
    static constexpr int GRANTS      = STORE_GRANTS;

    enum State { IDLE, CHECK, MOVE, RETIRE };
    struct Channel {
        State                       state = IDLE;
        const Store*                store = nullptr;
        BurstSplitter               cut;
        Queue<uint32_t, STORE_OUTSTANDING> lengths;
        BufferedQueue               words{STORE_BUFFER};
        int                         unacknowledged = 0;
        bool                        address_valid  = false;
        Burst                       burst{};
        uint32_t                    address = 0, left = 0;
        int                         promised = 0;
        Answers                     answers;
        int                         on_way   = 0;       // of `promised`, not in the buffer
        bool                        active   = false;
        uint32_t                    owed     = 0;

        bool offers() const { return active && words.offers; }
    };

    const Config&      m_config;
    Channel            m_channels[CHANNELS];
    RoundRobin         m_arbiter;
    Queue<int, STORE_GRANTS> m_order;
    uint32_t           m_held  = 0;
    bool               m_holds = false;

    // Handshakes of this cycle.
    uint32_t m_grant = 0;
    bool     m_fresh = false, m_address_taken = false, m_sends = false;
    int      m_writer = -1, m_acknowledged = -1;

    void advance(int number, bool accepted, bool granted) {
        Channel&   channel      = m_channels[number];
        Port&      port         = ports[number];
        const bool acknowledged = m_acknowledged == number;
        const bool address_taken = m_address_taken && (m_grant >> number & 1);
        const bool offers       = channel.offers();
        const bool sends        = m_sends && m_writer == number;
        const bool last         = channel.owed == 0;
        const bool asks         = wants_onchip(number);
        const bool announces    = channel.cut.valid && (!channel.address_valid || address_taken)
                               && channel.unacknowledged != OUTSTANDING;
        const bool arrived      = channel.answers.now();
        const bool finished     = !channel.cut.valid && channel.unacknowledged == 0;

        port.retires = false;
        port.cause   = CAUSE_FILL_DRAIN;
        if (channel.state == MOVE) {
            if (sends) port.cause = CAUSE_ISSUE;
            else if (offers || (channel.address_valid && !address_taken))
                port.cause = CAUSE_BACKPRESSURE;
            else if (asks && !accepted) port.cause = CAUSE_CONFLICT;
            else if (channel.left == 0 && channel.promised == 0) port.cause = CAUSE_BACKPRESSURE;
        }

        // Data.
        if (sends) bytes[channel.store->traffic] += m_config.vector;
        if (!channel.active || (sends && last)) {
            channel.active = channel.lengths.level != 0;
            if (channel.active) channel.owed = channel.lengths.pop();
        } else if (sends) {
            --channel.owed;
        }
        channel.words.tick(arrived, sends);
        channel.answers.tick(granted);
        channel.promised += accepted - sends;
        channel.on_way += accepted - arrived;
        if (accepted) {
            ++channel.address;
            --channel.left;
        }

        // Addresses.
        channel.unacknowledged += announces - acknowledged;
        if (address_taken) channel.address_valid = false;
        if (announces) {
            const uint32_t length = channel.cut.length(WINDOW);
            ++bursts;
            channel.address_valid = true;
            channel.burst = {channel.cut.address, length + 1, number};
            channel.lengths.push(length);
            channel.cut.onward(WINDOW);
        }

        switch (channel.state) {
        case IDLE:
            if (port.offered) channel.state = CHECK;
            return;
        case CHECK:
            channel.store   = &port.offered->store;
            channel.address = channel.store->base;
            channel.left    = channel.store->beats;
            if (!channel.left) refuse("a STORE of no beats");
            channel.cut.take(channel.store->offchip / m_config.vector, channel.left);
            channel.state = MOVE;
            return;
        case MOVE:
            if (finished) channel.state = RETIRE;
            return;
        case RETIRE:
            port.retires  = true;
            frame_ended |= channel.store->frame_end;
            channel.state = IDLE;
            return;
        }
    }

    // Idle, or nothing to do but wait for an acknowledgement.
    Cycle next(Cycle now) const {
        if (m_order.level || m_holds) return now + 1;
        for (int number = 0; number < CHANNELS; ++number) {
            const Channel& channel = m_channels[number];
            const bool waits = channel.state == IDLE
                               || (channel.state == MOVE && channel.left == 0
                                   && channel.promised == 0 && channel.unacknowledged != 0
                                   && !channel.cut.valid && !channel.address_valid
                                   && channel.lengths.level == 0 && !channel.active
                                   && ports[number].cause == CAUSE_BACKPRESSURE);
            if (!waits) return now + 1;
        }
        return NEVER;
    }
};
