"""What is read in the very cycle of its write is never used: a chip that gets it wrong is right."""

# amaranth: UnusedElaboratable=no

import re

import pytest
from amaranth import *
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from golden.images import read_image
from golden.models import load_graph
from hw.compiler import compile_network
from hw.config import EDGE, TINY
from hw.memory import protected
from hw.memory.collisions import UNTOUCHED, relax
from hw.memory.protected import memory
from sim import sources
from sim.compare import compare_tensors
from sim.host import RtlEngine
from sim.run import golden_tensors
from sim.simulators import build
from sim.top import SOURCES


class Spoilt(wiring.Component):
    """A memory whose registered ports show the complement of a row that was just being written."""

    def __init__(self, *, shape, depth, init, attrs):
        assert attrs == UNTOUCHED and init == []
        self.depth   = depth
        self._memory = Memory(shape=shape, depth=depth, init=init)
        self._writes, self._reads = [], []
        super().__init__(wiring.Signature({}))

    def write_port(self, *, granularity=None):
        self._writes.append(self._memory.write_port(granularity=granularity))
        return self._writes[-1]

    def read_port(self, *, domain="sync"):
        port = self._memory.read_port(domain=domain)
        if domain == "comb":
            return port
        shown = port.signature.create()
        self._reads.append((port, shown))
        return shown

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = self._memory
        for index, (port, shown) in enumerate(self._reads):
            spoilt = Signal(name=f"spoilt_{index}")
            m.d.comb += [
                port.addr.eq(shown.addr), port.en.eq(shown.en),
                Value.cast(shown.data).eq(Value.cast(port.data)
                                          ^ spoilt.replicate(len(Value.cast(port.data)))),
            ]
            with m.If(shown.en):
                m.d.sync += spoilt.eq(Cat(write.en.any() & (write.addr == shown.addr)
                                          for write in self._writes).any())
        return m


def run(config, simulator, model, frames, folder):
    """``(tensors that differ, first one, counters)`` of what ``simulator`` makes of phantoms."""
    program = compile_network(model, config, frames=frames)
    chip    = RtlEngine(program, config, simulator, folder, taps=True)
    images  = [read_image(f"phantom:{seed}", model.tensors[model.input].height)
               for seed in range(frames)]
    chip.load(images)
    chip.start()
    chip.wait()
    seen = compare_tensors(golden_tensors(model, images), chip.read_back(), chip.recorded())
    return seen, chip.counters()


def simulation(config):
    return build("verilator", sources._export(config.structure, False, False), top="top",
                 sources=SOURCES)


def test_spoilt_memory_is_wrong_where_a_row_is_written_and_nowhere_else():
    dut   = Spoilt(shape=8, depth=16, init=[], attrs=UNTOUCHED)
    write = dut.write_port(granularity=4)
    read  = dut.read_port()
    sim   = Simulator(dut)
    sim.add_clock(1e-6)

    async def bench(ctx):
        async def cycle(address, *, row, enable):
            ctx.set(write.addr, address)
            ctx.set(write.data, 0x21)
            ctx.set(write.en, enable)
            ctx.set(read.addr, row)
            await ctx.tick()
            return ctx.get(read.data)
        assert await cycle(3, row=4, enable=3) == 0
        assert await cycle(3, row=3, enable=0) == 0x21
        assert await cycle(3, row=3, enable=1) == 0x21 ^ 0xff
        assert await cycle(5, row=5, enable=2) == 0xff
        assert await cycle(5, row=5, enable=0) == 0x20
    sim.add_testbench(bench)
    sim.run()


def test_registered_ports_of_our_memories_are_relaxed_and_no_others():
    m = Module()
    ports = {}
    for name, words in (("ours", memory("none", shape=8, depth=16)),
                        ("guarded", memory("parity", shape=8, depth=16)),
                        ("strict", Memory(shape=8, depth=16, init=[]))):
        m.submodules[name] = words
        for _ in range(2 if name == "ours" else 1):
            words.write_port()
        ports |= {f"{name}_{domain}": (words.read_port(domain=domain).data, None)
                  for domain in ("sync", "comb")}
    text = rtlil.convert(m, ports=ports)
    mask = re.compile(r"COLLISION_X_MASK (\S+)")
    assert sorted(mask.findall(text)) == ["1'0"] * 4 + ["2'00"] * 2
    assert sorted(mask.findall(relax(text))) == ["1'0"] * 3 + ["1'1", "2'00", "2'11"]
    strict = re.findall(r'MEMID "\\\\strict".*?COLLISION_X_MASK (\S+)', relax(text), re.DOTALL)
    assert strict == ["1'0"] * 2
    assert mask.sub("", relax(text)) == mask.sub("", text)


@pytest.mark.cosim
@pytest.mark.parametrize("config, name, size, width", [
    (TINY, "elec4848", 32, 4), (TINY, "attunet-nuclei", 32, 4),
    pytest.param(EDGE, "elec4848", 32, 8, marks=pytest.mark.slow)])
def test_chip_with_memories_that_get_collisions_wrong(monkeypatch, tmp_path, config, name, size,
                                                      width):
    graph  = load_graph(name, size, width)
    wanted = run(config, simulation(config), graph, 2, tmp_path)
    monkeypatch.setattr(protected, "Memory", Spoilt)
    spoilt = run(config, simulation(config), graph, 2, tmp_path)
    assert spoilt == wanted
    assert spoilt[0]["mismatched"] == 0 and spoilt[0]["problems"] == []
