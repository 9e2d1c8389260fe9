// Main loop of a Verilator model under cocotb, with the clock made here.
//
// cocotb's own loop asks Python's scheduler for each clock edge. With the plusarg +clock=PERIOD (in
// units of the time precision) this one toggles the port `clk` itself, and Python runs only when a
// callback is due: a value change that somebody awaits, or a timer. Without the plusarg it is the
// usual loop. A callback on a rising edge sees the values from before the edge, as in any simulator.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "Vtop.h"
#include "verilated.h"
#include "verilated_vpi.h"

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

uint64_t clock_period(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        if (std::strncmp(argv[i], "+clock=", 7) == 0) return std::strtoull(argv[i] + 7, nullptr, 10);
    }
    return 0;
}

}  // namespace

double sc_time_stamp() { return static_cast<double>(now); }

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Verilated::fatalOnVpiError(false);
    const uint64_t half = clock_period(argc, argv) / 2;
    const auto     top  = std::make_unique<Vtop>("");

    vlog_startup_routines_bootstrap();
    VerilatedVpi::callCbs(cbStartOfSimulation);
    settle_callbacks();

    bool       level     = false;
    uint64_t   next_edge = half ? half : NEVER;
    const auto toggle    = [&] {
        level = !level;
        next_edge += half;
        drive_clock(*top, level);
    };
    while (!Verilated::gotFinish()) {
        run_time_step(*top);
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
