// The machine without its data: every register of the chip and its off-chip memory that decides
// when something happens, and none that decides what. Cycle for cycle that of the RTL.
//
// `run_machine` is called from sim/model/kernel.py; machine_constants.hpp is written by
// sim/model/header.py from hw/isa.py and its like.

#include <algorithm>
#include <cstring>
#include <memory>

#include "control.hpp"
#include "conv.hpp"
#include "load.hpp"
#include "monitor.hpp"
#include "onchip.hpp"
#include "rows.hpp"
#include "store.hpp"

namespace {

constexpr int UNITS = 3;
enum Unit { ENCODER, ATTENTION, DECODER };

constexpr int LOAD_OF[]  = {ENGINE_LOAD_ENCODER, ENGINE_LOAD_ATTENTION, ENGINE_LOAD_DECODER};
constexpr int STORE_OF[] = {ENGINE_STORE, ENGINE_STORE_DECODER};
constexpr int FILL_OF[]  = {ENGINE_ENCODER_FILL, ENGINE_ATTENTION_FILL, ENGINE_DECODER_FILL};
constexpr int CONV_OF[]  = {ENGINE_ENCODER_CONV, ENGINE_ATTENTION_CONV, ENGINE_DECODER_CONV};
constexpr int FILL_READS[] = {READ_ENCODER, READ_ATTENTION, READ_DECODER};

// Of a chip that is not running.
const OffchipWires IDLE_BUS{false, false, false, false, true, {}, {}};

class Machine {
public:
    Machine(const Config& config, const Streams& streams, const uint32_t* addresses,
            int64_t* retired_at)
        : m_config(config), m_memory(config), m_load(config), m_stores(config),
          m_onchip(config.onchip_banks, config.pipelined), m_feedback(1, config.pipelined),
          m_fills{FillEngine(config, config.units[ENCODER]),
                  FillEngine(config, config.units[ATTENTION]),
                  FillEngine(config, config.units[DECODER])},
          m_convs{ConvEngine(config, config.units[ENCODER]),
                  ConvEngine(config, config.units[ATTENTION]),
                  ConvEngine(config, config.units[DECODER])},
          m_gate(config, config.units[DECODER]), m_monitor(config),
          m_fetcher(streams, addresses, config.program_base) {
        for (int engine = 0; engine < ENGINES; ++engine) {
            m_retired_at[engine] = retired_at;
            retired_at += streams[engine].size();
        }
    }

    void run(volatile int64_t* progress, Result& result) {
        const Cycle begin = m_config.first_cycle;
        m_load.wake = m_stores.wake = m_fetcher.wake = begin;
        m_monitor.wake = m_gate.wake = NEVER;
        for (auto& fill : m_fills) fill.wake = NEVER;
        for (auto& conv : m_convs) conv.wake = NEVER;
        m_dirty = ALL;
        m_begin = begin;

        Cycle now = 0;
        while (now < begin) {           // the memory refreshes before anything runs
            m_memory.tick(IDLE_BUS, now);
            now = std::min(m_memory.wake, begin);
        }
        uint32_t turns = 0;
        while (!m_finished) {
            cycle(now);
            const Cycle following = next(now);
            if (following >= NEVER) stuck(now);
            m_last = now;
            if (now - begin >= m_config.cycle_limit)
                refuse("no end within " + std::to_string(m_config.cycle_limit) + " cycles");
            now = following;
            if ((++turns & 0xFFFF) == 0) {
                if (progress[1]) refuse("interrupted");
                progress[0] = now - begin;
            }
        }
        fill_in(result, m_last - begin + 1);
        const Cycle read = m_last + 1 + m_config.cycles_to_read;
        for (now = m_last + 1; now < read; now = std::max(now + 1, m_memory.wake))
            m_memory.tick(IDLE_BUS, now);
        result.busy_cycles    = m_memory.busy_cycles(read);
        result.refresh_cycles = m_memory.refresh_cycles(read);
        progress[0] = result.cycles;
    }

private:
    static constexpr uint32_t ALL = (1u << ENGINES) - 1;

    const Config&              m_config;
    OffchipMemory              m_memory;
    LoadEngines                m_load;
    StoreEngines               m_stores;
    BankedMemory<READERS, WRITERS, 1> m_onchip;
    BankedMemory<2, 1, 0>      m_feedback;
    FillEngine                 m_fills[UNITS];
    ConvEngine                 m_convs[UNITS];
    GateEngine                 m_gate;
    AttentionMonitor           m_monitor;
    ProgramFetcher             m_fetcher;
    FrontEnd                   m_fronts[ENGINES];
    int64_t                    m_counts[ENGINES] = {};  // retired instructions
    int64_t*                   m_retired_at[ENGINES];   // and the cycles of each
    uint32_t                   m_dirty = 0;             // front ends that the next cycle may change
    uint32_t                   m_ready = ALL;           // front ends that take an instruction
    Cycle                      m_begin = 0, m_last = 0;
    bool                       m_finished = false, m_ending = false;
    std::vector<int64_t>       m_frames_started, m_frames_ended;
    int64_t                    m_begun   = 0;           // frames
    Cycle                      m_awaited = NEVER;       // of the run: when one comes that is missing

    // First cycle of the run in which the frame that begins next is in memory.
    Cycle arrival() const {
        return m_begun < m_config.arrivals ? reinterpret_cast<const int64_t*>(m_config.arrived)[m_begun]
                                           : 0;
    }

    // Grants in row memories: convolution before gate before fill.
    void grant_rows(bool (&conv)[UNITS], bool (&fill)[UNITS], bool& gate) const {
        for (int unit = 0; unit < UNITS; ++unit) {
            const ConvEngine& engine = m_convs[unit];
            const RowWriter&  writer = m_fills[unit].writer;
            const bool wants = engine.front.memory == Memory::ROW;
            conv[unit] = wants;
            fill[unit] = writer.valid && !(wants && engine.front.bank == writer.bank);
            if (unit != DECODER) continue;
            const RowWriter& gated = m_gate.writer;
            gate = gated.valid && !(wants && engine.front.bank == gated.bank);
            if (gated.valid && gated.bank == writer.bank) fill[unit] = false;
        }
    }

    void cycle(Cycle now) {
        // Requests and grants, from registers.
        auto& reads  = m_onchip.reads;
        auto& writes = m_onchip.writes;
        for (int unit = 0; unit < UNITS; ++unit) {
            const FillEngine& fill = m_fills[unit];
            if (!fill.wants()) continue;
            if (!fill.feedback()) reads.ask(FILL_READS[unit], fill.address());
            else m_feedback.reads.ask(unit == ATTENTION, 0);
        }
        if (m_gate.wants()) reads.ask(READ_GATE, m_gate.address());
        for (int store = 0; store < StoreEngines::CHANNELS; ++store)
            if (m_stores.wants_onchip(store))
                reads.ask(READ_STORE + store, m_stores.onchip_address(store));
        if (m_monitor.wants()) reads.ask(READ_MONITOR, m_monitor.address());
        if (m_load.wants_onchip()) writes.ask(WRITE_LOAD, m_load.onchip_address());
        for (int unit = 0; unit < UNITS; ++unit)
            if (m_convs[unit].front.memory == Memory::ONCHIP)
                writes.ask(WRITE_ENCODER + unit, m_convs[unit].front.address);
        const Taken    read    = m_onchip.take_reads(true);
        const uint32_t written = writes.mask ? m_onchip.grant_writes(true) : 0;
        const Taken    fed     = m_feedback.take_reads(false);
        bool conv_row[UNITS], fill_row[UNITS], gate_row = false;
        grant_rows(conv_row, fill_row, gate_row);

        OffchipWires bus;
        m_load.wires(bus, m_memory, written >> WRITE_LOAD & 1);
        m_stores.wires(bus, m_memory);
        const bool answered = m_load.answers;

        // Registers. `worked`: engines that were asked.
        const Cycle run    = now - m_begin;
        uint32_t    worked = 0, retires = 0;
        const auto  look   = [&](const Port& port, int engine) {
            worked |= 1u << engine;
            retires |= uint32_t{port.retires} << engine;
        };
        bool fetch_taken = false;
        if (m_load.wake <= now) {
            m_load.tick(m_fetcher.request_valid, m_fetcher.request_address, now);
            fetch_taken = m_load.fetch_taken;
            if (m_load.frame_started) m_frames_started.push_back(run);
            for (int channel = 0; channel < UNITS; ++channel)
                look(m_load.ports[channel], LOAD_OF[channel]);
        }
        if (m_stores.wake <= now) {
            m_stores.tick(read, now);
            if (m_stores.frame_ended) m_frames_ended.push_back(run);
            for (int channel = 0; channel < StoreEngines::CHANNELS; ++channel)
                look(m_stores.ports[channel], STORE_OF[channel]);
        }
        if (m_memory.wake <= now || bus.read_address || bus.write_address || bus.write_data) {
            m_memory.tick(bus, now);
            if (m_memory.read_valid) m_load.wake = now + 1;
            if (m_memory.acknowledges()) m_stores.wake = now + 1;
        }
        for (int unit = 0; unit < UNITS; ++unit) {
            FillEngine& fill = m_fills[unit];
            if (fill.wake > now) continue;
            const Taken& taken = fill.feedback() ? fed : read;
            const int    port  = fill.feedback() ? unit == ATTENTION : FILL_READS[unit];
            fill.tick(taken.accepts(port), taken.grants(port), fill_row[unit], now);
            look(fill.port, FILL_OF[unit]);
        }
        if (m_gate.wake <= now) {
            m_gate.tick(read.accepts(READ_GATE), read.grants(READ_GATE), gate_row, now);
            look(m_gate.port, ENGINE_GATE);
        }
        const Conv* alpha_row = nullptr;
        for (int unit = 0; unit < UNITS; ++unit) {
            ConvEngine& conv = m_convs[unit];
            if (conv.wake > now) continue;
            const Memory memory = conv.front.memory;
            const bool granted  = memory == Memory::ROW      ? conv_row[unit]
                                  : memory == Memory::ONCHIP ? written >> (WRITE_ENCODER + unit) & 1
                                                             : memory == Memory::FEEDBACK;
            conv.tick(granted, now);
            look(conv.port, CONV_OF[unit]);
            if (conv.alpha_row) alpha_row = conv.alpha_row;
        }
        if (m_monitor.wake <= now || alpha_row)
            m_monitor.tick(alpha_row, alpha_row ? m_convs[ATTENTION].alpha_width : 0,
                           read.accepts(READ_MONITOR), read.grants(READ_MONITOR), now);

        const uint32_t exhausted  = m_fetcher.exhausted;
        const uint32_t ready      = m_ready;
        const int      offered_to = m_fetcher.offered_to;
        const Instruction* const given = m_fetcher.instruction();
        const bool fetches = m_fetcher.wake <= now || answered;
        if (fetches) m_fetcher.tick(ready, fetch_taken, answered);

        // Front ends.
        uint32_t asked = m_dirty | retires;
        if (offered_to >= 0) asked |= 1u << offered_to;
        if (m_awaited <= run) asked |= LOAD_ENGINES, m_awaited = NEVER;
        uint32_t retired = 0;
        const bool missing = run < arrival();
        for (uint32_t rest = worked & ~asked; rest; rest &= rest - 1) {
            const int engine = std::countr_zero(rest);
            if (m_fronts[engine].offered) m_fronts[engine].causes.spend(port(engine).cause, run);
        }
        for (uint32_t rest = asked; rest; rest &= rest - 1) {
            const int engine = std::countr_zero(rest);
            FrontEnd& front  = m_fronts[engine];
            Port&     at     = port(engine);
            at.retires       = retires >> engine & 1;
            const bool gives = offered_to == engine && (ready >> engine & 1);
            retired |= uint32_t{front.tick(at, gives ? given : nullptr, exhausted >> engine & 1,
                                           m_counts, missing, run)} << engine;
            if (at.offered != front.offered || at.retires) {
                at.offered = front.offered;
                if (at.offered) wake_engine(engine, now + 1);
            }
            m_begun += front.began;
            if (front.following) m_ready &= ~(1u << engine);
            else m_ready |= 1u << engine;
        }
        for (uint32_t rest = retired; rest; rest &= rest - 1) {
            const int engine = std::countr_zero(rest);
            m_retired_at[engine][m_counts[engine]++] = run;
        }

        m_dirty = exhausted ^ m_fetcher.exhausted;
        const bool absent = run + 1 < arrival();
        for (uint32_t rest = retired ? ALL : asked; rest; rest &= rest - 1) {
            const int engine = std::countr_zero(rest);
            m_dirty |= uint32_t{m_fronts[engine].stirs(m_counts, absent)} << engine;
            if (absent && m_fronts[engine].begins()) m_awaited = arrival();
        }
        if (fetches || m_ready != ready || m_load.answers)
            m_fetcher.wake = m_fetcher.next(m_ready, m_load.answers, now);
        if (m_fetcher.request_valid) m_load.wake = now + 1;

        // The run ends with the cycle that sees nothing left.
        if (m_ending) m_finished = true;
        m_ending = over();
    }

    bool over() const {
        if (m_fetcher.exhausted != ALL || m_ready != ALL || !m_load.idle() || !m_stores.idle())
            return false;
        return std::none_of(m_fronts, m_fronts + ENGINES,
                            [](const FrontEnd& front) { return front.offered; });
    }

    Cycle next(Cycle now) const {
        if (m_dirty || m_ending) return now + 1;
        Cycle event = std::min({m_load.wake, m_stores.wake, m_gate.wake, m_monitor.wake,
                                m_fetcher.wake, m_awaited < NEVER ? m_begin + m_awaited : NEVER});
        for (const FillEngine& fill : m_fills) event = std::min(event, fill.wake);
        for (const ConvEngine& conv : m_convs) event = std::min(event, conv.wake);
        return event >= NEVER && m_memory.quiet() ? NEVER : std::min(event, m_memory.wake);
    }

    Port& port(int engine) {
        for (int unit = 0; unit < UNITS; ++unit) {
            if (engine == LOAD_OF[unit]) return m_load.ports[unit];
            if (engine == FILL_OF[unit]) return m_fills[unit].port;
            if (engine == CONV_OF[unit]) return m_convs[unit].port;
        }
        for (int store = 0; store < StoreEngines::CHANNELS; ++store)
            if (engine == STORE_OF[store]) return m_stores.ports[store];
        return m_gate.port;
    }

    void wake_engine(int engine, Cycle when) {
        for (int unit = 0; unit < UNITS; ++unit) {
            if (engine == LOAD_OF[unit]) m_load.wake = when;
            if (engine == FILL_OF[unit]) m_fills[unit].wake = when;
            if (engine == CONV_OF[unit]) m_convs[unit].wake = when;
        }
        if (engine == ENGINE_STORE || engine == ENGINE_STORE_DECODER) m_stores.wake = when;
        if (engine == ENGINE_GATE) m_gate.wake = when;
    }

    [[noreturn]] void stuck(Cycle now) const {
        for (int engine = 0; engine < ENGINES; ++engine)
            if (m_fronts[engine].following || m_fronts[engine].offered)
                refuse("nothing moves any more in cycle " + std::to_string(now - m_begin)
                       + "; engine " + std::to_string(engine) + " is still at work");
        refuse("nothing moves any more in cycle " + std::to_string(now - m_begin));
    }

    void fill_in(Result& result, Cycle cycles) {
        std::memset(&result, 0, sizeof result);
        result.cycles = cycles;
        for (int engine = 0; engine < ENGINES; ++engine) {
            FrontEnd& front = m_fronts[engine];
            front.causes.settle(cycles);
            std::copy_n(front.causes.spent, CAUSES, result.causes[engine]);
            result.retired[engine] = m_counts[engine];
            for (int layer = 0; layer < LEDGER_LAYERS; ++layer) {
                const LayerRecord& record = front.layers[layer];
                int64_t (&fields)[4]      = result.layers[engine][layer];
                fields[LAYERFIELD_BUSY]   = record.busy;
                fields[LAYERFIELD_ISSUED] = record.issued;
                fields[LAYERFIELD_FIRST]  = record.first;
                fields[LAYERFIELD_LAST]   = record.last;
            }
        }
        result.frames[0] = m_frames_started.size();
        result.frames[1] = m_frames_ended.size();
        std::copy_n(m_frames_started.begin(), std::min<size_t>(m_frames_started.size(), FRAME_STAMPS),
                    result.frame_started);
        std::copy_n(m_frames_ended.begin(), std::min<size_t>(m_frames_ended.size(), FRAME_STAMPS),
                    result.frame_ended);
        std::copy_n(m_load.bytes, TRAFFICS, result.read_bytes);
        std::copy_n(m_stores.bytes, TRAFFICS, result.written_bytes);
        result.bursts[0] = m_load.bursts;
        result.bursts[1] = m_stores.bursts;
        std::copy_n(m_onchip.read_count, READERS, result.onchip_reads);
        std::copy_n(m_onchip.write_count, WRITERS, result.onchip_writes);
        result.memory_read_bytes    = m_memory.read_beats * m_config.vector;
        result.memory_written_bytes = m_memory.written_beats * m_config.vector;
        result.row_hits             = m_memory.row_hits;
        result.row_misses           = m_memory.row_misses;
    }
};

}  // namespace

// `words` are the instructions of all engines, one stream after the other; `why` takes the reason
// why there is no result. `retired_at` takes the cycle in which each instruction retired.
// `progress[0]` tells the cycles done; `progress[1]` other than 0 stops.
extern "C" int run_machine(const Config* config, const uint64_t* words, const int64_t* counts,
                           const uint32_t* addresses, int64_t* progress, Result* result,
                           int64_t* retired_at, char* why, int64_t why_bytes) {
    try {
        Streams streams;
        for (int engine = 0; engine < ENGINES; ++engine)
            for (int64_t index = 0; index < counts[engine]; ++index, words += INSTRUCTION_WORDS)
                streams[engine].push_back(decode(words));
        std::make_unique<Machine>(*config, streams, addresses, retired_at)->run(progress, *result);
        return 0;
    } catch (const std::exception& error) {
        std::strncpy(why, error.what(), why_bytes - 1);
        return 1;
    }
}
