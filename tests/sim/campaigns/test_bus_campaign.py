"""Frames on a hostile bus: a few of them run, and that a wrong one would be noticed."""

from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from golden.models import load_graph
from golden.names import NETWORKS
from hw.compiler import compile_network
from hw.config import TINY
from hw.isa import INSTRUCTION_BYTES, Engine
from hw.top import TAPS
from sim.campaigns.bus_campaign import (
    BROKEN,
    WHOLE,
    BusFault,
    Case,
    Machine,
    _built,
    campaign,
    main,
    plans_of,
    readers,
)
from sim.taps import HEADER_BYTES, meaningful

FACTS = {"cycles": 1000, "read_beats": 500, "responses": 5}


def facts():
    return {Case(network, size): FACTS for network in NETWORKS for size in (16, 32)}


def test_plans_follow_from_seed_and_number():
    plans = [plan for frame in range(300) for plan in plans_of(7, frame, facts())]
    assert plans == [plan for frame in range(300) for plan in plans_of(7, frame, facts())]
    assert plans != [plan for frame in range(300) for plan in plans_of(8, frame, facts())]
    assert {plan["kind"] for plan in plans} == {*WHOLE, *BROKEN}
    assert {plan["case"].rpartition("-")[0] for plan in plans} == set(NETWORKS)
    assert sum(plan["kind"] in WHOLE for plan in plans) == 300


def test_cases_are_the_same_before_they_are_known():
    for frame in range(50):
        known   = [(plan["case"], plan["kind"]) for plan in plans_of(7, frame, facts())]
        unknown = [(plan["case"], plan["kind"]) for plan in plans_of(7, frame, {})]
        assert known == unknown


def row_machine(words, *, actions=(), odds=0):
    machine = object.__new__(Machine)
    machine.config = TINY
    machine.maps = {"x-16": {5: np.arange(12, dtype=np.uint8).reshape(1, 3, 4)}}
    plan    = {"case": "x-16", "kind": "late", "frame": 3, "actions": list(actions),
               "hostility": {"t_odds": odds}}
    machine._judge_rows([plan], [{"recorded": [[0], [len(words)]]}], np.array(words, np.uint32))


def row(number, pixels, layer=5):
    words = [pixel | layer << 8 | number << 16 for pixel in pixels]
    return [*words[:-1], words[-1] | 1 << 28]


def test_rows_of_the_monitor():
    good = row(0, range(4)) + row(1, range(4, 8)) + row(2, range(8, 12))
    row_machine(good)
    bad = row(0, range(4)) + row(1, (4, 5, 99, 7)) + row(2, range(8, 12))
    with pytest.raises(BusFault, match="x-16, late: row 1 of layer 5 left the monitor wrong"):
        row_machine(bad)
    row_machine(bad, odds=9)            # the program may reuse their place
    with pytest.raises(BusFault, match="the monitor sent a row of several rows"):
        row_machine(row(0, range(4))[:3] + row(1, range(4, 8)))     # the first has no end


def test_tensors_at_the_taps():
    raw     = np.zeros((2, HEADER_BYTES + 8), np.uint8)
    machine = object.__new__(Machine)
    machine.config  = TINY
    mask            = np.ones(raw.shape, bool)
    mask[:, -1]     = False
    machine.records = {"x-16": [(raw, mask)] * len(TAPS)}
    plan    = {"case": "x-16", "kind": "late", "frame": 3}
    whole   = {"complete": True, "recorded": [[0] * (1 + len(TAPS)), [0] + [2] * len(TAPS)]}
    machine._judge_tensors([plan], [whole], [raw] * len(TAPS))
    for byte, wrong in ((HEADER_BYTES, True), (0, True), (-1, False)):
        other = raw.copy()
        other[1, byte] = 1
        seen  = [raw, other, *[raw] * (len(TAPS) - 2)]
        if wrong:
            with pytest.raises(BusFault, match=f"tensors at the tap {TAPS[1]} are wrong"):
                machine._judge_tensors([plan], [whole], seen)
        else:
            machine._judge_tensors([plan], [whole], seen)
        machine._judge_tensors([plan], [{**whole, "complete": False}], seen)


def test_what_a_run_that_was_cut_short_still_shows_is_not_the_next_frames():
    raw     = np.zeros((2, HEADER_BYTES + 8), np.uint8)
    seen    = [np.concatenate([raw + 1, raw])] * len(TAPS)
    machine = object.__new__(Machine)
    machine.config  = TINY
    machine.records = {"x-16": [(raw, np.ones(raw.shape, bool))] * len(TAPS)}
    plan    = {"case": "x-16", "kind": "late", "frame": 3}
    before, after = [0] * (1 + len(TAPS)), [0] + [4] * len(TAPS)
    cut     = {"complete": False, "recorded": [before, before]}
    whole   = {"complete": True, "recorded": [before, after]}
    machine._judge_tensors([plan, plan], [cut, whole], seen)
    with pytest.raises(BusFault):
        machine._judge_tensors([plan], [whole], seen)


def test_bytes_that_say_nothing():
    layer = SimpleNamespace(id=1, channels=5, layout=())
    raw   = np.zeros((2, HEADER_BYTES + 8), np.uint8)
    raw[:, 0] = 1                       # of layer 1, from channel 0
    head = raw[:, :HEADER_BYTES].view("<u8")
    head |= np.uint64(4) << np.uint64(44)
    head[1] += np.uint64(4) << np.uint64(44)
    mask = meaningful(raw, [layer], 8)
    assert mask[:, HEADER_BYTES:].sum(axis=1).tolist() == [4, 5]
    assert mask[:, :HEADER_BYTES].all()


def test_who_reads_what():
    program = compile_network(load_graph("elec4848", 16, 4), TINY)
    found   = readers(program)
    for engine in Engine:
        at = program.program_base + engine * INSTRUCTION_BYTES
        assert (at, at + INSTRUCTION_BYTES, engine.value) in found
    frame = [Engine(e) for start, end, e in found if start <= program.frames_at < end]
    assert Engine.LOAD_ENCODER in frame


def test_bad_options_are_one_line(capsys):
    assert main(["--frames", "0"]) == 2
    assert capsys.readouterr().err == "error: FRAMES must be positive, not 0\n"


@pytest.mark.cosim
def test_frames_survive_a_hostile_bus(tmp_path):
    tally, fault = campaign(3, 1, 0, [TINY], Console(quiet=True))
    assert fault is None, fault
    assert tally["frames"] >= 3

    # And would be noticed: the same build, a machine that is expected to do something else.
    case    = Case("elec4848", 16)
    machine = Machine(TINY, _built(TINY), tmp_path / "machine", TINY.offchip_bytes)
    machine.learn(case)
    plans   = [plan for frame in range(40) for plan in plans_of(1, frame, machine.facts)]
    plans   = [{**plan, "case": case.name} for plan in plans if plan["kind"] == "late"][:1]
    wrong   = np.fromfile(machine.facts[case]["expected"], np.uint8)
    wrong[-1] ^= 1
    wrong.tofile(machine.facts[case]["expected"])
    with pytest.raises(BusFault, match="1 bytes of off-chip memory are wrong"):
        list(machine.run(plans))
