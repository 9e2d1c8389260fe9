"""The chip on a board, driven over its serial line: :class:`BoardEngine`."""

import os
import secrets
import select
import termios
import time
import tty
import zlib
from collections import deque
from contextlib import contextmanager
from itertools import groupby

import numpy as np

from golden.errors import InputError
from hw.boards.link import (
    ANSWER,
    CHECK,
    MEMORY_COUNTERS,
    MOST_WORDS,
    REQUEST,
    WORD,
    Operation,
    answer_head,
    request_head,
)
from hw.boards.rows import row_head
from hw.boards.uart import BAUD
from hw.control.counters import Counter, counter_index
from hw.control.regmap import EVERY_INTERRUPT, ID, Interrupt, Register, Status
from sim.errors import SimulationError
from sim.host import ChipEngine
from sim.starting import starting
from sim.taps import attention_maps

__all__ = ["BoardEngine", "Link", "serial_line"]

SPEED       = getattr(termios, f"B{BAUD}", None)     # Linux knows it
MOST_PATIENCE = 16                  # times the first timeout
POLL        = 0.02                  # seconds between looks at the interrupt
WINDOW      = MOST_WORDS * WORD     # bytes of memory that no frame leaves
CYCLES      = counter_index(Counter.CYCLES)
NUMBERS     = 1 << 16               # of words of the monitor's rows, and then again


@contextmanager
def serial_line(port):
    """The serial line ``port``, raw and fast, as a file descriptor.

    Raises
    ------
    InputError
        If it cannot be opened, or is none.
    """
    if SPEED is None:
        raise InputError(f"This system has no serial lines of {BAUD} baud; take Linux")
    try:
        line = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"Cannot open the board's line {port!r} ({error.strerror}); it is "
                         "PORT=/dev/ttyUSB0 where no other such device is there") from None
    try:
        if not os.isatty(line):
            raise InputError(f"{port!r} is no serial line; the board's is PORT=/dev/ttyUSB0 where "
                             "no other such device is there")
        tty.setraw(line)
        mode = termios.tcgetattr(line)
        mode[4] = mode[5] = SPEED
        termios.tcsetattr(line, termios.TCSANOW, mode)
        termios.tcflush(line, termios.TCIOFLUSH)
        yield line
    finally:
        os.close(line)


class Link:
    """The host's end of :mod:`hw.boards.link`.

    Whatever a faulty line makes of the bytes, an operation is done once and whole, or raises.

    Parameters
    ----------
    line : int
        File descriptor, which does not block.
    timeout : float
        Seconds without a byte after which a request is repeated the first time; more than the
        board's ``quiet``. The next times it is twice as long each.
    tries : int
        How often a request is sent at most.

    Attributes
    ----------
    repeated : int
        Requests that were sent again.

    Raises
    ------
    SimulationError
        By every operation: the board does not answer, or its memory or registers refuse.
    """

    def __init__(self, line, *, timeout=0.1, tries=10):
        self.repeated  = 0
        self._line     = line
        self._timeout  = timeout
        self._tries    = tries
        self._sequence = secrets.randbelow(256)     # a board remembers the last one of another run

    def ping(self):
        """The board's :class:`hw.boards.link.Flags`."""
        return self.poll()[0]

    def poll(self):
        """The same, and the number behind the last word of the monitor's rows."""
        head, _ = self._ask(Operation.PING)
        return head.flags, head.value

    def rows(self, first, count):
        """So many words of the monitor's rows, of which those before ``first`` are done with."""
        return self._ask(Operation.MONITOR, first, count, answers=count)[1]

    def write(self, address, blob):
        """Write whole words from a multiple of eight bytes on."""
        for start, part in _windows(address, len(blob)):
            self._ask(Operation.WRITE, start, part // WORD,
                      blob[start - address:start - address + part])

    def read(self, address, size):
        """Whole words from a multiple of eight bytes on."""
        return b"".join(self._ask(Operation.READ, start, part // WORD, answers=part // WORD)[1]
                        for start, part in _windows(address, size))

    def write_register(self, register, value):
        self._ask(Operation.REGISTER_WRITE, register, 1, value.to_bytes(WORD, "little"))

    def read_register(self, register):
        return self._ask(Operation.REGISTER_READ, register)[0].value

    def counters(self, selects):
        """Performance counter by number."""
        found = {}
        for first, count in _runs(sorted(selects)):
            _, blob = self._ask(Operation.COUNTERS, first, count, answers=count)
            found |= zip(range(first, first + count), _words(blob), strict=True)
        return found

    def memory_counters(self):
        """What the memory's controller counted since power-up, by name."""
        count = len(MEMORY_COUNTERS)
        _, blob = self._ask(Operation.MEMORY_COUNTERS, 0, count, answers=count)
        return dict(zip(MEMORY_COUNTERS, _words(blob), strict=True))

    def _ask(self, operation, address=0, words=1, blob=b"", *, answers=0):
        """Head and data of the answer to one request."""
        self._sequence = (self._sequence + 1) % 256
        frame  = _checked(request_head.const({
            "magic": REQUEST, "sequence": self._sequence, "operation": operation,
            "words": words - 1, "address": int(address)}).as_bits().to_bytes(WORD, "little") + blob)
        start  = bytes([ANSWER, self._sequence, operation.value])
        length = WORD * (1 + answers)
        came   = bytearray()
        for attempt in range(self._tries):
            self.repeated += attempt > 0
            self._send(frame)
            answer = self._receive(came, start, length,
                                   self._timeout * min(2 ** attempt, MOST_PATIENCE))
            if answer is not None:
                head = answer_head.from_bits(int.from_bytes(answer[:WORD], "little"))
                if head.flags.refused:
                    raise SimulationError(_refusal(operation, address, head.flags))
                return head, answer[WORD:]
        raise SimulationError(f"The board gave no right answer to {operation.name} in "
                              f"{self._tries} tries; is it programmed (make program), and this "
                              "its line?")

    def _send(self, frame):
        while frame:
            _, writable, _ = select.select([], [self._line], [], self._timeout)
            if not writable:
                return              # nobody takes it, so there will be no answer
            frame = frame[os.write(self._line, frame):]

    def _receive(self, came, start, length, timeout):
        """The answer that begins with ``start``, without its check, wherever it is in what ``came``
        and comes; None if nothing more does."""
        while True:
            place = came.find(start)
            while place >= 0:
                whole = bytes(came[place:place + length + CHECK])
                if len(whole) == length + CHECK and _checked(whole[:length]) == whole:
                    return whole[:length]
                place = came.find(start, place + 1)
            readable, _, _ = select.select([self._line], [], [], timeout)
            more = os.read(self._line, 1 << 16) if readable else b""
            if not more:
                return None
            came += more


def _refusal(operation, address, flags):
    if not flags.ready:
        return "The board's memory does not become ready"
    return f"The board refused {operation.name} at 0x{int(address):x}"


def _checked(blob):
    return blob + zlib.crc32(blob).to_bytes(CHECK, "little")


def _windows(address, size):
    """``(start, bytes)`` of the parts of a run that leave no window."""
    end = address + size
    while address < end:
        part = min(end - address, WINDOW - address % WINDOW)
        yield address, part
        address += part


def _runs(numbers):
    """``(first, count)`` of what follows on each other in sorted ``numbers``, a frame's at most."""
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in run]
        for start in range(0, len(run), MOST_WORDS):
            yield run[start], len(run[start:start + MOST_WORDS])


def _words(blob):
    return [int.from_bytes(blob[at:at + WORD], "little") for at in range(0, len(blob), WORD)]


class BoardEngine(ChipEngine):
    """The chip on a board. Outputs are read back, and what the attention monitor sends is fetched
    while the machine runs; a map of which a row found no room on the board is none, and ``notes``
    say so.

    Frames that come while it runs are written then, and ``arrived`` are the cycles that the machine
    counted just after it was told.

    Parameters
    ----------
    link : Link
    program, config, cycle_limit, stall_limit, progress
        As :class:`sim.host.ChipEngine` takes them.
    """

    def __init__(self, program, config, link, **common):
        super().__init__(program, config, **common)
        self._link = link

    def load(self, frames):
        """Write program, weights and frames into the board's memory."""
        image, link = bytes(self._image(frames)), self._link
        while not link.ping().ready:
            time.sleep(POLL)
        found = link.read_register(Register.ID)
        if found != ID:
            raise SimulationError(f"The board has ID 0x{found:08x} and not 0x{ID:08x}; its "
                                  "bitstream is none of these machines")
        link.write_register(Register.IRQ_STATUS, EVERY_INTERRUPT)
        link.write_register(Register.FRAMES_READY, 0)
        image += bytes(-len(image) % WORD)
        program, later = self._program, len(self._arrivals)
        first = program.frame_address(len(frames) - later)      # of those that come later
        end   = first + later * program.frame_bytes
        self._later = [image[at:at + program.frame_bytes]
                       for at in range(first, end, program.frame_bytes)]
        link.write(0, image[:first])
        link.write(end, image[end:])

    def start(self):
        self._before = self._link.memory_counters()
        self._arrived = [0] if self._arrivals else []
        self._sent    = bytearray()             # by the monitor
        _, self._next = self._link.poll()       # word of it
        self._link.rows(self._next, 1)          # what another run left has an end
        for register, value in starting(self._settings()):
            self._link.write_register(register, value)
        self._began  = time.monotonic(), time.process_time()

    def wait(self):
        """Hand over frames as they are due, block until the end, and raise what went wrong.

        Raises
        ------
        SimulationError
            If the board does not answer any more, or the machine stops itself.
        """
        link, clock_hz = self._link, self._config.clock_mhz * 1e6
        due = deque(zip(self._arrivals, self._later, strict=True))
        while not self._is_done():
            left = due[0][0] / clock_hz - (time.monotonic() - self._began[0]) if due else POLL
            if left > 0:
                time.sleep(min(left, POLL))
            else:
                frame = len(self._arrived)
                link.write(self._program.frame_address(frame), due.popleft()[1])
                link.write_register(Register.FRAMES_READY, frame + 1)
                self._arrived.append(link.counters([CYCLES])[CYCLES])
        self._fetch(link.poll()[1])
        wall, cpu = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        status = Status.from_bits(link.read_register(Register.STATUS))
        after  = link.memory_counters()
        after["written_bytes"] -= sum(map(len, self._later))        # by the host
        self._keep({
            "stopped": True, "error": status.error.value, "engine": status.engine.value,
            "memory": status.memory, "wall_s": wall, "cpu_s": cpu,
            "counters": link.counters(self._selectors.values()),
            "offchip": {name: after[name] - self._before[name] for name in MEMORY_COUNTERS},
        })
        self._judge()

    def _is_done(self):
        """Whether the interrupt is that of the end; those of masks are taken note of."""
        link = self._link
        flags, level = link.poll()
        self._fetch(level)
        if not flags.interrupt:
            return False
        events = Interrupt.from_bits(link.read_register(Register.IRQ_STATUS))
        if events.mask:
            link.write_register(Register.IRQ_STATUS, Interrupt.const({"mask": 1}).as_bits())
        return bool(events.done)

    def _fetch(self, level):
        """What the monitor sent up to word ``level``."""
        while left := (level - self._next) % NUMBERS:
            count = min(left, MOST_WORDS)
            self._sent += self._link.rows(self._next, count)
            self._next = (self._next + count) % NUMBERS

    def _maps(self):
        """Attention maps, a dictionary for each frame, of the rows that came."""
        words, at = [np.zeros(0, np.uint32)], 0
        while at < len(self._sent):
            head = row_head.from_bits(int.from_bytes(self._sent[at:at + WORD], "little"))
            at  += WORD
            row  = np.frombuffer(self._sent, np.uint8, head.bytes, at)
            words.append(row.astype(np.uint32) | head.layer << 8)
            at  += head.bytes + -head.bytes % WORD
        words, program = np.concatenate(words), self._program
        maps = attention_maps(words, program.layers, frames=program.frames)
        for layer in program.layers:
            size = program.frames * layer.height * layer.width
            came = np.count_nonzero(words >> 8 == layer.id)
            if came and layer.tensor not in maps[0]:
                self.notes.append(f"attention map {layer.tensor}: {came} of {size} pixels found "
                                  "room on the board, so it is not compared")
        return maps

    @property
    def arrived(self):
        return self._arrived

    def read_back(self):
        """Per frame the outputs."""
        first = self._outputs_at - self._outputs_at % WORD
        last  = self._outputs_at + self._output_bytes
        blob  = self._link.read(first, last + -last % WORD - first)
        return self._with_outputs(self._maps(), blob[self._outputs_at - first:])

    def recorded(self):
        return []

    def traced(self):
        return None
