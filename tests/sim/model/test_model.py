"""The cycle model alone: what it writes, what it refuses, and that every figure of it is looked at.

That it counts what the RTL counts is asked of every whole frame in ``tests/sim/test_machine.py``
and of random networks in ``make fuzz``.
"""

import json
from dataclasses import replace

import jsonschema
import pytest
from rich.console import Console

from golden.models import load_graph
from hw.compiler import compile_network
from hw.config import REFERENCE, TINY, preset
from hw.control.counters import Counter
from hw.isa import INSTRUCTION_BYTES, Cause, Engine, Opcode
from sim import run, simulators
from sim.counters import selectors
from sim.errors import SimulationError
from sim.model import differences, kernel, run_model
from sim.model.kernel import prepare_model
from sim.report import SCHEMA

OPTIONS = {"config": "tiny", "size": 16, "width": 4, "engine": "model"}


@pytest.fixture(scope="module")
def program():
    return compile_network(load_graph("elec4848", 16, 4), TINY)


@pytest.fixture(scope="module")
def once(program):
    return run_model(program, TINY)


def test_report_of_the_model_is_that_of_a_run(tmp_path, capsys):
    out = tmp_path / "out"
    report = run.run(run.Options(**OPTIONS, frames=2, out=str(out)), Console())
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert (report["engine"], report["bit_exact"]) == ("model", None)
    assert report["tensors"]["compared"] == 0
    assert report["occupancy"]["over_time"]["source"] == "model"
    assert all(sum(unit["stack"].values()) == report["cycles"]["total"]
               for unit in report["units"].values())
    assert not list(out.glob("*hardware*")), "there is no hardware"
    said = " ".join(capsys.readouterr().out.split())
    assert "elec4848 on tiny by the exact cycle model, 2 frame(s)" in said
    assert "of the golden integer model; the cycle model moves no data" in said
    page = (out / "report.html").read_text()
    assert "Measured by the exact cycle model" in page
    assert "hardware simulated" not in page


def test_counts_everything_that_a_report_asks(program, once):
    assert selectors(program.layers, 1, protected=True).keys() <= once.counters.keys()


def test_says_the_same_twice(program, once):
    again = run_model(program, TINY)
    assert again.counters == once.counters
    assert again.offchip == once.offchip
    assert again.timetable == once.timetable


def test_timetable_is_that_of_the_counters(once):
    for engine, done in once.timetable.items():
        assert len(done) - 1 == once.counters[Counter.RETIRED, engine]
        assert done == sorted(done)
        assert done[-1] < once.cycles


@pytest.mark.parametrize("machine", ["sdr-ulx3s", "lpddr4-3200", "ddr4-2400"])
def test_memory_decides_about_time_and_not_about_work(program, once, machine):
    other = run_model(program, preset("tiny", dram=machine))
    assert other.cycles != once.cycles
    assert other.offchip["read_bytes"] == once.offchip["read_bytes"]
    for engine in Engine:
        key = Counter.CAUSE, engine, Cause.ISSUE
        assert other.counters[key] == once.counters[key]


def test_program_that_waits_for_itself_is_refused(program):
    """The first instruction of one engine waits for its own end."""
    image   = bytearray(program.image)
    header  = program.program_base + Engine.DECODER_FILL * INSTRUCTION_BYTES
    address = int.from_bytes(image[header:header + INSTRUCTION_BYTES], "little") >> 54 & 0xFFFFFFFF
    word    = int.from_bytes(image[address:address + INSTRUCTION_BYTES], "little")
    assert word & 0xF == Opcode.FILL.value
    wait    = Engine.DECODER_FILL | 1 << 4
    word    = word & ~(((1 << 22) - 1) << 24) | wait << 24
    image[address:address + INSTRUCTION_BYTES] = word.to_bytes(INSTRUCTION_BYTES, "little")
    with pytest.raises(SimulationError) as refused:
        run_model(replace(program, image=bytes(image)), TINY)
    assert "nothing moves any more in cycle" in str(refused.value)


def test_limit_of_cycles(program):
    with pytest.raises(SimulationError, match="no end within 500 cycles"):
        run_model(program, TINY, cycle_limit=500)


def test_a_slow_memory_is_no_hang():
    """The machine of the most cycles a nanosecond with the memory of the fewest bytes."""
    config  = preset("reference", dram="sdr-ulx3s")
    program = compile_network(load_graph("unet-busi", 32, 8), config)
    cycles  = run_model(program, config).cycles
    assert 4 * program.estimated_cycles + 1_000_000 < cycles < program.cycle_limit(config)


def test_every_counter_is_compared(once):
    """Changed by one, each is told, with engine and cause."""
    for key, value in once.counters.items():
        assert len(differences(once.counters | {key: value + 1}, once.offchip, once)) == 1
    for name, value in once.offchip.items():
        assert differences(once.counters, once.offchip | {name: value + 1}, once) == [
            f"off-chip memory, {name}: {value + 1} in the hardware, {value} in the model"]
    key = Counter.CAUSE, Engine.ENCODER_CONV, Cause.ISSUE
    assert differences(once.counters | {key: 3}, once.offchip, once) == [
        f"cause, encoder conv, issue: 3 in the hardware, {once.counters[key]} in the model"]


def test_first_instruction_that_differs_is_named(once):
    class Trace:
        def timetable(self):
            moved = {engine: list(done) for engine, done in once.timetable.items()}
            moved[Engine.GATE][3] += 7
            moved[Engine.DECODER_CONV][-1] += 1
            return moved

    cycle = once.timetable[Engine.GATE][3]
    assert differences(once.counters, once.offchip, once, Trace()) == [
        f"gate, instruction 2: retired in cycle {cycle + 7} in the hardware, {cycle} in the model"]


def test_compiled_once(monkeypatch):
    prepare_model()

    def compiles(*_, **__):
        raise AssertionError("compiled again")

    monkeypatch.setattr(simulators, "_call", compiles)
    kernel._kernel.cache_clear()
    prepare_model()


@pytest.mark.parametrize(("options", "line"), [
    *((half, ("ENGINE=board and PORT=/dev/ttyUSB0, the board's serial line, go together; give "
              "both, or none")) for half in ({"engine": "board"}, {"port": "/dev/ttyUSB0"})),
    ({"engine": "modle"}, "Engine must be one of rtl, model, golden, board, not 'modle'"),
    ({"engine": "model", "taps": True},
     "TAPS looks into simulated hardware, and ENGINE=model has none; take ENGINE=rtl"),
    ({"engine": "golden", "trace": True},
     "TRACE looks into simulated hardware, and ENGINE=golden has none; take ENGINE=rtl"),
])
def test_refusals(options, line):
    with pytest.raises(run.InputError) as refused:
        run.prepare(run.Options(config="tiny", **options))
    assert str(refused.value) == line


def test_no_mask_of_a_live_stream_waits_for_a_later_frame():
    """Where no unit lends, the cheapest stream begins a frame before the end of the one before, and
    then cannot end that without it."""
    graph, waits = load_graph("elec4848"), {}
    for live in (False, True):
        stream  = compile_network(graph, REFERENCE, frames=3, live=live, pure=True)
        arrival = 2 * stream.estimated_cycles
        ran     = run_model(stream, REFERENCE, arrivals=[0, arrival]).counters
        assert ran[Counter.FRAME_STARTED, 1] > arrival
        waits[live] = ran[Counter.FRAME_ENDED, 0] > arrival
    assert waits == {False: True, True: False}
