"""The AXI4-Lite manager of cocotbext-axi on :class:`hw.control.registers.ControlRegisters`."""

import itertools
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from hw.control.regmap import ID, REGISTERS, Access, Register


def stalls():
    return (random.random() < 0.4 for _ in itertools.count())


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(stall=[False, True])
async def registers_answer(dut, stall):
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value             = 1
    dut.counter_sampled.value = 1
    dut.counter_value.value   = 0x0123_4567_89AB_CDEF
    dut.status.value          = 0
    dut.interrupts.value      = 0
    dut.monitor_sent.value    = 5
    dut.monitor_dropped.value = 6
    manager = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk, dut.rst)
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    if stall:
        for channel in (manager.write_if.aw_channel, manager.write_if.w_channel,
                        manager.write_if.b_channel, manager.read_if.ar_channel,
                        manager.read_if.r_channel):
            channel.set_pause_generator(stalls())

    assert await manager.read_dword(Register.ID) == ID
    assert await manager.read_dword(Register.MONITOR_SENT) == 5
    assert await manager.read_qword(Register.COUNTER_LO) == 0x0123_4567_89AB_CDEF

    kept = {register: random.getrandbits(entry.bits) for register, entry in REGISTERS.items()
            if entry.access is Access.READ_WRITE}
    for register, value in kept.items():
        await manager.write_dword(register, value)
    await manager.write_byte(Register.PROGRAM_BASE + 1, 0x5A)
    kept[Register.PROGRAM_BASE] = kept[Register.PROGRAM_BASE] & ~0xFF00 | 0x5A00
    for register, value in kept.items():
        assert await manager.read_dword(register) == value

    for address in (0x3C, 0xFFC):
        assert (await manager.read(address, 4)).resp == AxiResp.SLVERR
        assert (await manager.write(address, bytes(4))).resp == AxiResp.SLVERR
    assert (await manager.write(Register.ID, bytes(4))).resp == AxiResp.SLVERR
    assert (await manager.read(Register.ID, 4)).resp == AxiResp.OKAY
