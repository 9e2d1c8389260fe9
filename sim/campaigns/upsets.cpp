// Thousands of runs of one program in one process, each with bits flipped at a moment of its own.
//
// Takes the place of verilator_main.cpp, without cocotb: `targets.inc`, which state.py
// writes, lists every register and memory of the model as a member of its C++ object. The first run is
// undisturbed. It leaves snapshots of all state, and is the reference. Any other run starts from the
// last snapshot before its upset, and is over early when all state equals the reference's again.
//
// Plusargs: +offchip_image=FILE, +program_base=, +cycle_limit=, +stall_limit=, +intervals=,
// +outputs_at= and +outputs_bytes= (of off-chip memory). Answers with one line of the reference; then
// takes jobs from standard input, a line each, `cycle target row bit [target row bit ...]`, and
// answers each with a line; see upsets.py for the fields.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "Vtop.h"
#include "Vtop___024root.h"
#include "verilated.h"

#include "machine.inc"

#define control(port) m_top.control___05F##port     // as Verilator encodes `__`
#define monitor(port) m_top.monitor___05F##port

void Vtop___024root___eval_settle(Vtop___024root* root);

double sc_time_stamp() { return 0; }

namespace {

struct Target {
    uint8_t* base;
    size_t   stride, bytes;
};

constexpr uint32_t BUS_LIMIT = 1000;    // cycles after which the host gives up on an access

uint64_t number(const char* name) {
    const std::string key   = std::string{name} + "=";
    const std::string match = Verilated::threadContextp()->commandArgsPlusMatch(key.c_str());
    return std::strtoull(match.c_str() + std::min(match.size(), key.size() + 1), nullptr, 10);
}

class Machine {
public:
    Machine() : m_top{"top"} {
        auto& root = *m_top.rootp;
#define REGISTER(member) \
    m_targets.push_back({reinterpret_cast<uint8_t*>(&root.member), 0, sizeof root.member});
#define MEMORY(member)                                                                     \
    m_targets.push_back({reinterpret_cast<uint8_t*>(&root.member), sizeof root.member[0], \
                         sizeof root.member});
#define OBSERVER(member, corrected)                                                           \
    m_observers.push_back({reinterpret_cast<uint8_t*>(&root.member), 0, sizeof root.member}); \
    m_corrected.push_back(corrected);
#include "targets.inc"
        for (const auto& target : m_targets) m_size += target.bytes;
        m_words = {reinterpret_cast<uint8_t*>(&root.OFFCHIP), sizeof root.OFFCHIP[0],
                   sizeof root.OFFCHIP};
    }

    // From power-up to the write that starts the run, with the image loaded.
    void boot() {
        monitor(tready) = 1;
        for (int i = 0; i < 4; ++i) cycle();
        m_top.load = 1;
        for (int i = 0; i < 4; ++i) cycle();
        write(IRQ_ENABLE, 1);
        write(MONITOR_LAYER, 0);
        write(MONITOR_WIDTH, 0x7FF);
        write(MONITOR_HEIGHT, 0xFFF);
        write(MONITOR_ENABLE, 1);
        write(PROGRAM_BASE, number("program_base"));
    }
    void limit(uint64_t cycles, uint64_t stall) {
        write(CYCLE_LIMIT_LO, cycles & 0xFFFFFFFF);
        write(CYCLE_LIMIT_HI, cycles >> 32);
        write(STALL_LIMIT, stall);
    }
    bool start() {
        m_seen.clear();
        return write(CONTROL, 1);
    }

    // One cycle, in which the host does nothing.
    void cycle() {
        if (monitor(tvalid) && monitor(tready)) {
            m_seen.push_back(static_cast<uint64_t>(monitor(tuser)) << 9
                             | static_cast<uint64_t>(monitor(tlast)) << 8
                             | monitor(tdata));
        }
        m_top.clk = 1;
        m_top.eval();
        m_top.clk = 0;
        m_top.eval();
    }
    bool interrupt() const { return m_top.irq; }

    // False where the machine does not answer.
    bool write(uint32_t address, uint32_t value) {
        control(awaddr)  = address;
        control(wdata)   = value;
        control(wstrb)   = 15;
        control(awvalid) = control(wvalid) = control(bready) = 1;
        bool answered = false;
        for (uint32_t waited = 0; !answered && waited < BUS_LIMIT; ++waited) {
            m_top.eval();
            const bool address_taken = control(awready), data_taken = control(wready);
            answered = control(bvalid);
            cycle();
            if (address_taken) control(awvalid) = 0;
            if (data_taken) control(wvalid) = 0;
        }
        control(awvalid) = control(wvalid) = control(bready) = 0;
        m_top.eval();
        return answered;
    }
    bool read(uint32_t address, uint32_t& value) {
        control(araddr)  = address;
        control(arvalid) = control(rready) = 1;
        bool answered = false;
        for (uint32_t waited = 0; !answered && waited < BUS_LIMIT; ++waited) {
            m_top.eval();
            const bool taken = control(arready);
            answered = control(rvalid);
            value    = control(rdata);
            cycle();
            if (taken) control(arvalid) = 0;
        }
        control(arvalid) = control(rready) = 0;
        m_top.eval();
        return answered;
    }

    bool flip(size_t target, size_t row, size_t bit) {
        if (target >= m_targets.size()) return false;
        const auto& [base, stride, bytes] = m_targets[target];
        const size_t offset = row * stride + bit / 8;
        if (offset >= bytes) return false;
        base[offset] ^= 1 << bit % 8;
        return true;
    }
    // What flip() changed reaches everything that follows from it without a clock edge.
    void settle() { Vtop___024root___eval_settle(m_top.rootp); }

    // The first target whose bits follow from others: a flip there would undo itself. -1: none.
    int follower() {
        for (size_t i = 0; i < m_targets.size(); ++i) {
            const uint8_t before = *m_targets[i].base;
            flip(i, 0, 0);
            settle();
            if (*m_targets[i].base == before) return static_cast<int>(i);
            flip(i, 0, 0);
        }
        settle();
        return -1;
    }

    // All state between two cycles.
    std::vector<uint8_t> save() const {
        std::vector<uint8_t> state(m_size);
        uint8_t*             at = state.data();
        for (const auto& target : m_targets) {
            std::memcpy(at, target.base, target.bytes);
            at += target.bytes;
        }
        return state;
    }
    void restore(const std::vector<uint8_t>& state) {
        const uint8_t* at = state.data();
        for (const auto& target : m_targets) {
            std::memcpy(target.base, at, target.bytes);
            at += target.bytes;
        }
        settle();
    }
    bool equals(const std::vector<uint8_t>& state) const {
        const uint8_t* at = state.data();
        for (const auto& target : m_targets) {
            if (std::memcmp(target.base, at, target.bytes)) {
                const bool observer = std::any_of(
                    m_observers.begin(), m_observers.end(),
                    [&](const Target& one) { return one.base == target.base; });
                if (!observer) return false;
            }
            at += target.bytes;
        }
        return true;
    }

    // Off-chip memory. The bytes of its words are in reverse order.
    std::vector<uint8_t> offchip(size_t from, size_t count) const {
        const size_t         word = m_words.stride;
        std::vector<uint8_t> bytes(count);
        for (size_t i = 0; i < count; ++i)
            bytes[i] = m_words.base[(from + i) / word * word + word - 1 - (from + i) % word];
        return bytes;
    }

    // Errors of memories that were counted.
    uint64_t observed(bool corrected) const {
        uint64_t sum = 0;
        for (size_t i = 0; i < m_observers.size(); ++i) {
            uint64_t value = 0;
            if (m_corrected[i] != corrected) continue;
            std::memcpy(&value, m_observers[i].base, std::min<size_t>(8, m_observers[i].bytes));
            sum += value;
        }
        return sum;
    }

    std::vector<uint64_t> m_seen;       // by the monitor

private:
    Vtop                m_top;
    std::vector<Target> m_targets, m_observers;
    std::vector<bool>   m_corrected;    // of the observers
    size_t              m_size = 0;
    Target              m_words;
};

// How a run ended.
struct End {
    bool     interrupt = false, answers = false;
    uint32_t status = 0;
    uint64_t cycles = 0;
};

std::string hex(const std::vector<uint8_t>& bytes) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string           text;
    for (const uint8_t byte : bytes) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

}  // namespace

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    const uint64_t cycle_limit = number("cycle_limit"), stall_limit = number("stall_limit");
    const uint64_t patience = cycle_limit + stall_limit + 1000;     // of the host
    const uint64_t intervals = number("intervals");
    const size_t   outputs_at = number("outputs_at"), outputs_bytes = number("outputs_bytes");
    auto           machine = std::make_unique<Machine>();

    const auto finish = [&](uint64_t at) {
        End end;
        for (end.cycles = at; end.cycles < patience && !machine->interrupt(); ++end.cycles)
            machine->cycle();
        end.interrupt = machine->interrupt();
        if (end.interrupt) end.answers = machine->read(STATUS, end.status);
        return end;
    };

    // How long it takes, then the same again with snapshots.
    machine->boot();
    machine->limit(cycle_limit, stall_limit);
    if (machine->follower() >= 0) return 6;
    const auto ready = machine->save();
    if (!machine->start()) return 3;
    const End reference = finish(0);
    if (!reference.answers) return 3;
    const auto expected = machine->offchip(outputs_at, outputs_bytes);
    const auto maps     = machine->m_seen;

    const uint64_t interval = std::max<uint64_t>(1, reference.cycles / intervals);
    std::vector<std::vector<uint8_t>> snapshots;
    std::vector<size_t>               seen;
    machine->restore(ready);
    if (!machine->start()) return 3;
    for (uint64_t at = 0; at < reference.cycles; ++at) {
        if (at % interval == 0) {
            snapshots.push_back(machine->save());
            seen.push_back(machine->m_seen.size());
        }
        machine->cycle();
    }
    // A snapshot is the whole truth: from each, the machine gets to the next.
    for (size_t k = 0; k + 1 < snapshots.size(); ++k) {
        machine->restore(snapshots[k]);
        for (uint64_t i = 0; i < interval; ++i) machine->cycle();
        if (!machine->equals(snapshots[k + 1])) return 4;
    }
    std::cout << reference.cycles << ' ' << reference.status << ' ' << machine->observed(true) << ' '
              << maps.size() << ' ' << hex(expected) << std::endl;

    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream job{line};
        uint64_t           at = 0;
        job >> at;
        if (!job || at >= reference.cycles) return 5;
        const size_t k = at / interval;
        machine->restore(snapshots[k]);
        machine->m_seen.assign(maps.begin(), maps.begin() + seen[k]);
        for (uint64_t i = k * interval; i < at; ++i) machine->cycle();
        for (size_t target, row, bit; job >> target >> row >> bit;)
            if (!machine->flip(target, row, bit)) return 5;
        machine->settle();

        End  end;
        bool same = false;
        for (end.cycles = at; end.cycles < patience && !machine->interrupt();) {
            machine->cycle();
            ++end.cycles;
            const size_t next = end.cycles / interval;
            if (end.cycles % interval == 0 && next < snapshots.size()
                && machine->m_seen.size() == seen[next] && machine->equals(snapshots[next])
                && std::equal(machine->m_seen.begin(), machine->m_seen.end(), maps.begin())) {
                same = true;
                break;
            }
        }
        std::vector<uint8_t> got;
        bool                 maps_changed = false;
        const uint64_t corrected = machine->observed(true), detected = machine->observed(false);
        if (!same) {
            end = finish(end.cycles);
            maps_changed = machine->m_seen != maps;
            got          = machine->offchip(outputs_at, outputs_bytes);
        }
        std::cout << same << ' ' << (same || end.interrupt) << ' ' << (same || end.answers) << ' '
                  << (same ? reference.status : end.status) << ' ' << end.cycles << ' '
                  << maps_changed << ' ' << corrected << ' ' << detected << ' '
                  << (same || got == expected ? "=" : hex(got)) << std::endl;
    }
    return 0;
}
