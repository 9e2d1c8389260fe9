"""Random traffic of cocotbext-axi's manager against :class:`hw.memory.offchip.OffchipMemory`."""

import os
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiBus, AxiMaster, AxiResp

from sim.streams import reset

BYTES  = int(os.environ["BYTES"])
VECTOR = int(os.environ["VECTOR"])
IMAGE  = Path(os.environ["IMAGE"])
DUMP   = Path(os.environ["DUMP"])


async def start(dut):
    Clock(dut.clk, 10, unit="ns").start()
    for name in ("load", "dump", "dump_first", "dump_count", "inject_error"):
        dut[name].value = 0
    await reset(dut)      # before the manager looks at outputs, which Icarus begins with X
    manager = AxiMaster(AxiBus.from_prefix(dut, "axi_"), dut.clk, dut.rst)
    await reset(dut)
    return manager


def pauses(odds):
    while True:
        yield random.random() < odds


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def image_is_loaded_and_dumped(dut):
    manager = await start(dut)
    image   = IMAGE.read_bytes()
    dut.load.value = 1
    await ClockCycles(dut.clk, 2)
    dut.load.value = 0
    assert (await manager.read(0, 100)).data == image[:100]
    assert (await manager.read(len(image) - 64, 64)).data == image[-64:]
    assert (await manager.read(len(image), 16)).data == bytes(16)
    await manager.write(3 * VECTOR + 1, b"across the words")
    first, count = 2, 9
    dut.dump_first.value = first
    dut.dump_count.value = count
    dut.dump.value = 1
    await ClockCycles(dut.clk, 3)
    expected = bytearray(image)
    expected[3 * VECTOR + 1:3 * VECTOR + 17] = b"across the words"
    assert DUMP.read_bytes() == expected[first * VECTOR:(first + count) * VECTOR]


@cocotb.test(timeout_time=5, timeout_unit="ms")
@cocotb.parametrize(odds=[0.0, 0.4])
async def reads_match_writes(dut, odds):
    """Unaligned runs of any length, several at once; regions are written in turn."""
    manager = await start(dut)
    for channel in (manager.write_if.aw_channel, manager.write_if.w_channel,
                    manager.write_if.b_channel, manager.read_if.ar_channel,
                    manager.read_if.r_channel):
        channel.set_pause_generator(pauses(odds))
    model = bytearray(BYTES)
    await manager.write(0, bytes(model))
    for _ in range(12):
        address = random.randrange(BYTES - 1)
        length  = random.randint(1, min(600, BYTES - address))
        data    = random.randbytes(length)
        written = cocotb.start_soon(manager.write(address, data))
        before  = model[:]
        model[address:address + length] = data
        # Reads beside the write stay out of its way.
        for _ in range(3):
            start_ = random.randrange(BYTES - 1)
            stop   = min(BYTES, start_ + random.randint(1, 300))
            if stop <= address or start_ >= address + length:
                assert (await manager.read(start_, stop - start_)).data == before[start_:stop]
        assert (await written).resp == AxiResp.OKAY
        assert (await manager.read(address, length)).data == data
    assert (await manager.read(0, BYTES)).data == model


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def errors_are_answered(dut):
    manager = await start(dut)
    assert (await manager.read(BYTES, VECTOR)).resp == AxiResp.DECERR
    assert (await manager.write(BYTES, bytes(VECTOR))).resp == AxiResp.DECERR
    dut.inject_error.value = 3
    await RisingEdge(dut.clk)
    assert (await manager.read(0, VECTOR)).resp == AxiResp.SLVERR
    assert (await manager.write(0, bytes(VECTOR))).resp == AxiResp.SLVERR
    dut.inject_error.value = 0
    await RisingEdge(dut.clk)
    assert (await manager.read(0, VECTOR)).resp == AxiResp.OKAY
