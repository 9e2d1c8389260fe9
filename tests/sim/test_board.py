# amaranth: UnusedElaboratable=no
"""The driver of a board against the board's own top: bits on its serial pins, an SDRAM at its pins,
a stub for the chip; over a line that loses, repeats and flips bytes."""

import json
import os
import pty
import random
import socket
import threading
from functools import partial

import jsonschema
import pytest
from rich.console import Console

from golden.errors import InputError
from hw.boards.link import MEMORY_COUNTERS
from hw.boards.rows import row_head
from hw.config import preset
from hw.control.regmap import Register
from sim import board, run
from sim.board_top import build_board, running
from sim.errors import SimulationError
from sim.report import SCHEMA
from tests.hw.boards.stub import REFUSED, ROW, WRITES, Stub, row_request

CONFIG   = preset("tiny", dram="sdr-ulx3s", changes="clock_mhz=50")
PATIENCE = 0.05


class FaultyLine:
    """Passes bytes between a descriptor of its own and the line; with ``odds`` for each, a byte is
    lost, doubled, changed in a bit, or another."""

    def __init__(self, line, odds, seed):
        self.faults = 0
        self._line, self._odds, self._random = line, odds, random.Random(seed)
        self.near, self._far = socket.socketpair()

    def __enter__(self):
        self.near.setblocking(False)
        os.set_blocking(self._line, True)
        threading.Thread(target=self._pass, args=(
            lambda: self._far.recv(256), lambda blob: os.write(self._line, blob)),
            daemon=True).start()
        threading.Thread(target=self._pass, args=(
            lambda: os.read(self._line, 256), self._far.sendall), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._far.shutdown(socket.SHUT_RDWR)
        self.near.close()

    def _pass(self, receive, send):
        try:
            while blob := receive():
                send(bytes(byte for each in blob for byte in self._spoil(each)))
        except OSError:
            pass                # one of the two is closed

    def _spoil(self, byte):
        if self._random.random() >= self._odds:
            return [byte]
        self.faults += 1
        return self._random.choice(([], [byte] * 2, [byte ^ 1 << self._random.randrange(8)],
                                    [self._random.randrange(256)]))


@pytest.fixture
def line(request):
    """The serial line of a simulated board, whose memory was not violated at the end."""
    with running(build_board(CONFIG, Stub(CONFIG))) as port, board.serial_line(port) as line:
        yield line


def ready(link):
    while not link.ping().ready:
        pass
    return link


@pytest.mark.cosim
def test_every_operation(line):
    link = ready(board.Link(line, timeout=PATIENCE))
    blob = random.Random(2).randbytes(8 * 700)
    before = link.memory_counters()
    link.write(4096 - 24, blob)                 # across windows and pages
    assert link.read(4096 - 24, len(blob)) == blob
    after = link.memory_counters()
    assert set(after) == set(MEMORY_COUNTERS)
    assert after["written_bytes"] - before["written_bytes"] == len(blob)
    assert after["refresh_cycles"] > before["refresh_cycles"] > 0
    link.write_register(Register.STALL_LIMIT, 0x89ABCDEF)
    assert link.read_register(Register.STALL_LIMIT) == 0x89ABCDEF
    selects = [5, 6, 7, *range(1000, 1200), 65535]
    assert link.counters(selects) == {number: (number * number & 0xFFFFFFFF) << 32 | number
                                      for number in selects}
    with pytest.raises(SimulationError, match="^The board refused REGISTER_WRITE at 0x800$"):
        link.write_register(REFUSED, 1)
    with pytest.raises(SimulationError, match="^The board refused READ at 0x400000$"):
        link.read(CONFIG.offchip_bytes, 8)


@pytest.mark.cosim
def test_rows_of_the_monitor(line):
    """Twice as many words as the board keeps, fetched as they come; then rows beyond what it keeps,
    of which the last ones are dropped."""
    link = ready(board.Link(line, timeout=PATIENCE))
    _, at = link.poll()
    assert at == 0
    for row in range(20):
        link.write_register(ROW, row_request.const(
            {"layer": 5 * row, "row": row, "bytes": 200}).as_bits())
        _, level = link.poll()
        assert level - at == 26
        blob = link.rows(at, 26)
        at   = level
        head = row_head.from_bits(int.from_bytes(blob[:8], "little"))
        assert (head.layer, head.row, head.bytes) == (5 * row, row, 200)
        assert blob[8:] == bytes((5 * row + place) % 256 for place in range(200))
    link.rows(at, 1)
    for row in range(11):
        link.write_register(ROW, row_request.const(
            {"layer": 1, "row": row, "bytes": 200}).as_bits())
    assert link.poll()[1] - at == 9 * 26        # of the 256


@pytest.mark.cosim
def test_a_faulty_line_costs_time_and_nothing_else(line, seed=5):
    """One byte of 250 is lost, doubled or changed. All that is written is written once and as it
    was meant, and all that is read is what is there."""
    rng, size, writes, written = random.Random(seed), 8 * 512, 0, 0
    model  = bytearray(size)
    honest = ready(board.Link(line, timeout=PATIENCE))
    honest.write(0, model)
    before = honest.memory_counters()["written_bytes"]
    with FaultyLine(line, 1 / 250, seed) as faulty:
        link = board.Link(faulty.near.fileno(), timeout=PATIENCE, tries=40)
        link.ping()
        for _ in range(12):
            words = rng.randint(1, 20)
            start = 8 * rng.randrange(512 - words)
            blob  = rng.randbytes(8 * words)
            link.write(start, blob)
            model[start:start + len(blob)] = blob
            written += len(blob)
            start = 8 * rng.randrange(512 - words)
            assert link.read(start, len(blob)) == model[start:start + len(blob)]
            value = rng.getrandbits(32)
            link.write_register(Register.PROGRAM_BASE, value)
            writes += 1
            assert link.read_register(Register.PROGRAM_BASE) == value
        assert faulty.faults > 10 and link.repeated > 5
        faulty._odds = 0
        assert link.read(0, size) == model
        assert link.memory_counters()["written_bytes"] - before == written
        assert link.read_register(WRITES) == writes


def test_a_line_on_which_nobody_answers_is_one_line():
    near, far = socket.socketpair()
    with near, far:
        link = board.Link(near.fileno(), timeout=0.01, tries=3)
        with pytest.raises(SimulationError, match=r"^The board gave no right answer to PING in 3 "
                                                  r"tries; is it programmed \(make program\), and "
                                                  r"this its line\?$"):
            link.ping()
        assert link.repeated == 2


@pytest.mark.parametrize(("port", "what"), [
    ("/no/such/tty", ("Cannot open the board's line '/no/such/tty' (No such file or directory); it "
                      "is PORT=/dev/ttyUSB0 where no other such device is there")),
    ("/dev/null", ("'/dev/null' is no serial line; the board's is PORT=/dev/ttyUSB0 where no other "
                   "such device is there")),
], ids=("missing", "no line"))
def test_lines_that_are_none_are_refused(port, what):
    with pytest.raises(InputError) as refusal, board.serial_line(port):
        pass
    assert str(refusal.value) == what


def test_a_line_is_made_raw():
    far, near = pty.openpty()
    with board.serial_line(os.ttyname(near)) as line:
        os.write(line, b"\n\x03\x11")
        assert os.read(far, 10) == b"\n\x03\x11"
        os.write(far, b"\r\x03\x13")
        assert os.read(line, 10) == b"\r\x03\x13"
    os.close(far)
    os.close(near)


@pytest.mark.cosim
@pytest.mark.slow
@pytest.mark.parametrize("stream", [{}, {"frames": 2, "fps": 1}], ids=["a frame", "live"])
def test_a_frame_through_a_board(tmp_path, monkeypatch, stream):
    """The whole way: `make sim ENGINE=board`, a serial line, the chip, the SDRAM's pins, a mask,
    its attention maps; also of a frame that is written while the machine runs."""
    monkeypatch.setattr(run, "Link", partial(board.Link, timeout=60))   # a board is never so slow
    changes = {"dram": "sdr-ulx3s", "set": "clock_mhz=50"}
    with running(build_board(CONFIG)) as port:
        report = run.run(run.Options(config="tiny", engine="board", port=port, size=16, width=4,
                                     out=str(tmp_path / "run"), **changes, **stream),
                         Console(quiet=True))
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["engine"] == "board"
    assert report["bit_exact"] and report["tensors"]["compared"] == 5 * report["frames"]
    assert "notes" not in report            # every row of the four attention maps found room
    for frame in report["stream"]["frames"][1:]:
        assert 0 < frame["arrived"] < frame["ended"]
    assert report["cycle_model"]["differences"] == []
