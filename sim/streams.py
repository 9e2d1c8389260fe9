"""Endpoints that speak the ready/valid protocol of ``amaranth.lib.stream`` to a Verilog DUT."""

import random

from cocotb.triggers import RisingEdge

__all__ = ["StreamSink", "StreamSource", "reset"]


class StreamSource:
    """Producer at the input stream ``name`` of ``dut``; idles before a send with odds ``stall``."""

    def __init__(self, dut, name, *, stall=0.0):
        _check(stall)
        self._clk     = dut.clk
        self._payload = dut[f"{name}__payload"]
        self._valid   = dut[f"{name}__valid"]
        self._ready   = dut[f"{name}__ready"]
        self._stall   = stall
        self._valid.value = 0

    async def send(self, payload):
        """Offer one payload until it is taken."""
        while random.random() < self._stall:
            await RisingEdge(self._clk)
        self._payload.value = payload
        self._valid.value = 1
        await RisingEdge(self._clk)
        while not self._ready.value:
            await RisingEdge(self._clk)
        self._valid.value = 0


class StreamSink:
    """Consumer at the output stream ``name`` of ``dut``; refuses a beat with odds ``stall``."""

    def __init__(self, dut, name, *, stall=0.0):
        _check(stall)
        self._clk     = dut.clk
        self._payload = dut[f"{name}__payload"]
        self._valid   = dut[f"{name}__valid"]
        self._ready   = dut[f"{name}__ready"]
        self._stall   = stall
        self._ready.value = 0

    async def recv(self):
        """Take one payload, checking that the DUT does not retract or alter it meanwhile."""
        offered = None
        while True:
            self._ready.value = random.random() >= self._stall
            await RisingEdge(self._clk)
            if offered is not None:
                assert self._valid.value, "`valid` fell before the transfer"
                assert self._payload.value == offered, "`payload` changed before the transfer"
            if self._valid.value:
                offered = self._payload.value
                if self._ready.value:
                    self._ready.value = 0
                    return offered


async def reset(dut):
    """Two cycles of reset."""
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0


def _check(stall):
    if not 0 <= stall < 1:
        raise ValueError(f"Stall odds must be at least 0 and below 1, not {stall!r}")
