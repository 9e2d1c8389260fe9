// Main loop of a Verilator model under cocotb, with the clock made here.
//
// cocotb's own loop asks Python's scheduler for each clock edge. With the plusarg +clock=PERIOD (in
// units of the time precision) this one toggles the port `clk` itself, and Python runs only when a
// callback is due: a value change that somebody awaits, or a timer. Without the plusarg it is the
// usual loop. A callback on a rising edge sees the values from before the edge, as in any simulator.
//
// A build for waveforms also takes +wave=FILE +wave_from=CYCLE +wave_cycles=N +wave_period=PS, and
// writes N cycles, from the one in which the port `cycle` reaches CYCLE. Time in the file is that of
// the machine: cycle n begins at n * PS picoseconds.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "Vtop.h"
#include "verilated.h"
#include "verilated_vpi.h"
#if VM_TRACE
#include "verilated_fst_c.h"
#endif

extern "C" void vlog_startup_routines_bootstrap();

namespace {

constexpr uint64_t NEVER = ~uint64_t{0};

uint64_t now = 0;

template <typename Top>
void drive_clock(Top& top, bool level) {
    if constexpr (requires { top.clk; }) top.clk = level;
}

void settle_callbacks() {
    while (VerilatedVpi::callValueCbs()) {}
}

// Everything that belongs to one point in time, in the order of IEEE 1800-2012, 4.4.
void run_time_step(Vtop& top) {
    do {
        do {
            top.eval_step();
            VerilatedVpi::clearEvalNeeded();
            VerilatedVpi::doInertialPuts();
            settle_callbacks();
        } while (VerilatedVpi::evalNeeded());
        VerilatedVpi::callCbs(cbReadWriteSynch);
        VerilatedVpi::doInertialPuts();
        settle_callbacks();
    } while (VerilatedVpi::evalNeeded());
    top.eval_end_step();
    VerilatedVpi::callCbs(cbReadOnlySynch);
}

bool callbacks_are_due() {
    return VerilatedVpi::hasCbs(cbReadWriteSynch) || VerilatedVpi::hasCbs(cbReadOnlySynch)
           || VerilatedVpi::hasCbs(cbNextSimTime);
}

// The value of a plusarg, nullptr without it.
const char* plusarg(int argc, char** argv, const char* name) {
    const size_t length = std::strlen(name);
    for (int i = 1; i < argc; ++i) {
        if (std::strncmp(argv[i], name, length) == 0) return argv[i] + length;
    }
    return nullptr;
}

uint64_t number(int argc, char** argv, const char* name) {
    const char* text = plusarg(argc, argv, name);
    return text ? std::strtoull(text, nullptr, 10) : 0;
}

#if VM_TRACE
class Waves {
public:
    Waves(Vtop& top, int argc, char** argv)
        : m_path{plusarg(argc, argv, "+wave=")}, m_from{number(argc, argv, "+wave_from=")},
          m_steps{2 * number(argc, argv, "+wave_cycles=")},
          m_period{number(argc, argv, "+wave_period=")} {
        if (!m_path) return;
        Verilated::traceEverOn(true);
        top.trace(&m_file, 99);
    }
    // After every edge, once everything has settled.
    template <typename Top>
    void edge(Top& top, bool level) {
        if (!m_path || m_step == m_steps) return;
        if (m_step == 0) {
            if constexpr (requires { top.cycle; }) {
                if (!level || top.cycle < m_from) return;
            }
            m_file.open(m_path);
        }
        m_file.dump(m_from * m_period + m_step * m_period / 2);
        if (++m_step == m_steps) m_file.close();
    }
    ~Waves() {
        if (m_file.isOpen()) m_file.close();
    }

private:
    const char*    m_path;
    const uint64_t m_from, m_steps, m_period;
    uint64_t       m_step = 0;
    VerilatedFstC  m_file;
};
#else
struct Waves {
    Waves(Vtop&, int, char**) {}
    void edge(Vtop&, bool) {}
};
#endif

}  // namespace

double sc_time_stamp() { return static_cast<double>(now); }

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Verilated::fatalOnVpiError(false);
    const uint64_t half = number(argc, argv, "+clock=") / 2;
    const auto     top  = std::make_unique<Vtop>("");
    Waves          waves{*top, argc, argv};

    vlog_startup_routines_bootstrap();
    VerilatedVpi::callCbs(cbStartOfSimulation);
    settle_callbacks();

    bool       level     = false;
    bool       unseen    = false;       // an edge whose values have not settled yet
    uint64_t   next_edge = half ? half : NEVER;
    const auto toggle    = [&] {
        level  = !level;
        unseen = true;
        next_edge += half;
        drive_clock(*top, level);
    };
    while (!Verilated::gotFinish()) {
        run_time_step(*top);
        if (unseen) waves.edge(*top, level);
        unseen = false;
        const uint64_t deadline = VerilatedVpi::cbNextDeadline();

        // Nearly always nothing but the clock changes, and nobody looks.
        bool called = false;
        while (!called && next_edge < deadline && !callbacks_are_due() && !Verilated::gotFinish()) {
            now = next_edge;
            toggle();
            called = VerilatedVpi::callValueCbs();      // those see the values before the edge
            if (called) break;
            top->eval_step();
            top->eval_end_step();
            waves.edge(*top, level);
            unseen = false;
            called = VerilatedVpi::callValueCbs();
        }
        if (called) {
            settle_callbacks();
            continue;                                   // with the rest of this point in time
        }

        now = std::min(deadline, next_edge);
        if (now == NEVER) break;
        VerilatedVpi::callCbs(cbNextSimTime);
        settle_callbacks();
        if (now == next_edge) {
            toggle();
            settle_callbacks();
        }
        if (now == deadline) {
            VerilatedVpi::callTimedCbs();
            settle_callbacks();
        }
    }
    top->final();
    VerilatedVpi::callCbs(cbEndOfSimulation);
    return Verilated::threadContextp()->errorCount() > 0;
}
