// A board, simulated: bits on the pins of its serial line, bytes at a pseudo-terminal.
//
// Takes the place of verilator_main.cpp, without cocotb, for a model with the ports clk, rx, tx and
// violations. Prints the terminal's name, then runs until standard input ends, and prints how often
// the memory's data sheet was violated. Plusarg: +bit=CYCLES.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include "Vtop.h"
#include "verilated.h"

double sc_time_stamp() { return 0; }

namespace {

constexpr int      BITS  = 10;          // start, eight of data, stop
constexpr uint64_t LOOKS = 256;         // cycles between looks at the terminal

// Bytes to bits.
class Sender {
public:
    explicit Sender(uint64_t bit) : m_bit{bit} {}
    bool free() const { return m_left == 0; }
    void send(uint8_t byte) { m_bits = byte << 1 | 1 << 9, m_left = BITS, m_wait = m_bit; }
    bool level() {
        if (!m_left) return true;
        const bool now = m_bits & 1;
        if (--m_wait == 0) m_bits >>= 1, --m_left, m_wait = m_bit;
        return now;
    }

private:
    const uint64_t m_bit;
    uint64_t       m_wait = 0;
    unsigned       m_bits = 0;
    int            m_left = 0;
};

// Bits to bytes, looked at in their middle; -1 where none is whole.
class Receiver {
public:
    explicit Receiver(uint64_t bit) : m_bit{bit} {}
    int look(bool level) {
        if (!m_left) {
            if (!level) m_left = BITS, m_wait = m_bit / 2, m_bits = 0;
            return -1;
        }
        if (m_wait--) return -1;
        m_wait = m_bit - 1;
        m_bits |= level << (BITS - m_left);
        return --m_left ? -1 : m_bits >> 1 & 0xFF;
    }

private:
    const uint64_t m_bit;
    uint64_t       m_wait = 0;
    unsigned       m_bits = 0;
    int            m_left = 0;
};

bool readable(int file) {
    pollfd asked{file, POLLIN, 0};
    return poll(&asked, 1, 0) > 0;
}

}  // namespace

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    uint64_t bit = 0;
    for (int i = 1; i < argc; ++i)
        if (std::strncmp(argv[i], "+bit=", 5) == 0) bit = std::strtoull(argv[i] + 5, nullptr, 10);

    const int line = posix_openpt(O_RDWR | O_NOCTTY);
    if (bit == 0 || line < 0 || grantpt(line) || unlockpt(line)) {
        std::fprintf(stderr, "board_main: no +bit=CYCLES, or no pseudo-terminal\n");
        return 2;
    }
    const int held = open(ptsname(line), O_RDWR | O_NOCTTY);    // so that it has somebody always
    termios   raw;
    tcgetattr(held, &raw);
    cfmakeraw(&raw);
    tcsetattr(held, TCSANOW, &raw);
    std::printf("%s\n", ptsname(line));
    std::fflush(stdout);

    Vtop     top{"top"};
    Sender   sender{bit};
    Receiver receiver{bit};
    uint8_t  coming[1024];
    ssize_t  count = 0, next = 0;
    for (uint64_t cycle = 0; !Verilated::gotFinish(); ++cycle) {
        if (cycle % LOOKS == 0) {
            if (next == count && readable(line)) {
                count = read(line, coming, sizeof coming);
                next  = 0;
                if (count < 0) count = 0;
            }
            char ignored;
            if (readable(STDIN_FILENO) && read(STDIN_FILENO, &ignored, 1) == 0) break;
        }
        if (sender.free() && next < count) sender.send(coming[next++]);
        top.rx  = sender.level();
        top.clk = 1;
        top.eval();
        const int byte = receiver.look(top.tx);
        if (byte >= 0) {
            const uint8_t out = byte;
            if (write(line, &out, 1) != 1) break;
        }
        top.clk = 0;
        top.eval();
    }
    std::printf("%u\n", static_cast<unsigned>(top.violations));
    top.final();
    return 0;
}
