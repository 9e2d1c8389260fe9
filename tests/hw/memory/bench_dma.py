"""Random loads, stores and fetches against cocotbext-axi's memory, which pauses at random."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, gather
from cocotbext.axi import AxiBus, AxiRam

from hw.isa import FORMS, INSTRUCTION_BYTES, Opcode, Traffic
from hw.memory.load import FETCH_LAYOUT
from sim.streams import StreamSink, StreamSource, reset

VECTOR = int(os.environ["VECTOR"])
SIZE   = 1 << 16      # of the off-chip memory
HALF   = SIZE // 2    # loads read the lower half, stores write the upper one


def pauses(odds):
    while True:
        yield random.random() < odds


@cocotb.test(timeout_time=100, timeout_unit="us")
@cocotb.parametrize(odds=[0.0, 0.3, 0.7])
async def data_goes_in_and_out(dut, odds):
    Clock(dut.clk, 10, unit="ns").start()
    await reset(dut)      # before the memory looks at outputs, which Icarus begins with X
    ram = AxiRam(AxiBus.from_prefix(dut, "axi_"), dut.clk, dut.rst, size=SIZE)
    for channel in (ram.write_if.aw_channel, ram.write_if.w_channel, ram.write_if.b_channel,
                    ram.read_if.ar_channel, ram.read_if.r_channel):
        channel.set_pause_generator(pauses(odds))
    loads    = [StreamSource(dut, f"loads__{k}") for k in range(3)]
    stores   = [StreamSource(dut, f"stores__{k}") for k in range(2)]
    requests = StreamSource(dut, "requests", stall=odds)
    answers  = StreamSink(dut, "answers", stall=odds)
    await reset(dut)

    image = random.randbytes(SIZE)
    ram.write(0, image)
    expected = bytearray(image)

    async def copy(number):
        """A region of its own on and off chip: load, then store elsewhere, over and over."""
        for turn in range(6):
            beats   = random.randint(1, 150)
            source  = random.randrange(HALF // VECTOR - beats)
            base    = 1000 * number + random.randrange(100)
            target  = HALF // VECTOR + 1024 * number + 160 * turn
            moved   = {"beats": beats, "base": base, "traffic": Traffic.SPILL}
            await loads[number].send(FORMS[Opcode.LOAD].const(
                {"opcode": Opcode.LOAD, "offchip": source * VECTOR, **moved}).as_bits())
            await stores[number].send(FORMS[Opcode.STORE].const(
                {"opcode": Opcode.STORE, "offchip": target * VECTOR, **moved}).as_bits())
            data = image[source * VECTOR:(source + beats) * VECTOR]
            assert ram.read(target * VECTOR, len(data)) == data, "retired before its data landed"
            expected[target * VECTOR:target * VECTOR + len(data)] = data

    async def fetch():
        addresses = [INSTRUCTION_BYTES * random.randrange(HALF // INSTRUCTION_BYTES)
                     for _ in range(30)]

        async def ask():
            for address in addresses:
                await requests.send(address)

        cocotb.start_soon(ask())
        for address in addresses:
            answer = FETCH_LAYOUT.from_bits((await answers.recv()).to_unsigned())
            assert not answer.error
            assert answer.data == int.from_bytes(image[address:address + INSTRUCTION_BYTES],
                                                 "little")

    await gather(copy(0), copy(1), fetch())
    await RisingEdge(dut.clk)
    assert dut.errors.value == 0
    assert dut.idle.value == 1
    assert ram.read(0, SIZE) == expected
