# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth import *

from hw.boards.uart import UartReceiver, UartTransmitter
from tests.support import simulate, stream_put


class Both(Elaboratable):
    """A transmitter, and a receiver whose clock is another; the line between them can be held."""

    def __init__(self, clock_hz, baud, far_hz):
        self.transmitter = UartTransmitter(clock_hz=clock_hz, baud=baud)
        self.receiver    = UartReceiver(clock_hz=far_hz, baud=baud)
        self.noise       = Signal()

    def elaborate(self, platform):
        m = Module()
        m.submodules.transmitter, m.submodules.receiver = self.transmitter, self.receiver
        m.d.comb += self.receiver.rx.eq(self.transmitter.tx & ~self.noise)
        return m


@pytest.mark.parametrize(("clock_hz", "baud"), [(50_000_000, 3_000_000), (25_000_000, 3_000_000),
                                                (37_500_000, 3_000_000), (60_000_000, 10_000_000)])
@pytest.mark.parametrize("far", [0.98, 1, 1.02])
def test_bytes_arrive_though_clocks_differ_by_two_percent(clock_hz, baud, far):
    """16.7, 8.3, 12.5 and 6 cycles a bit; the receiver believes that its clock is another."""
    dut  = Both(clock_hz, baud, round(clock_hz * far))
    sent = [0x00, 0xFF, 0x55, 0xAA, *random.Random(1).randbytes(8)]
    came = []

    async def drive(ctx):
        for byte in sent:
            await stream_put(ctx, dut.transmitter.i, byte)
        await ctx.tick().repeat(15 * clock_hz // baud)
        assert came == sent

    async def collect(ctx):
        while len(came) < len(sent):
            _, _, valid, byte = await ctx.tick().sample(dut.receiver.o.valid, dut.receiver.o.p)
            if valid:
                came.append(byte)

    simulate(dut, drive, collect)


def test_a_glitch_is_no_byte_and_a_low_stop_bit_neither():
    dut, came = Both(50_000_000, 5_000_000, 50_000_000), []

    async def drive(ctx):
        async def hold(cycles):
            ctx.set(dut.noise, 1)
            await ctx.tick().repeat(cycles)
            ctx.set(dut.noise, 0)
            await ctx.tick().repeat(150)

        await hold(3)           # less than half a start bit
        await hold(100)         # ten bits, so that the stop bit is low
        await hold(50)          # a start bit and four more: a byte with four low ones
        assert came == [0xF0]

    async def collect(ctx):
        while not came:
            _, _, valid, byte = await ctx.tick().sample(dut.receiver.o.valid, dut.receiver.o.p)
            if valid:
                came.append(byte)

    simulate(dut, drive, collect)


def test_a_clock_too_slow_is_refused():
    with pytest.raises(ValueError, match="^3000000 baud need a clock of at least 12000000 Hz, not "
                                         "8000000$"):
        UartReceiver(clock_hz=8_000_000, baud=3_000_000)
