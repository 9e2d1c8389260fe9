"""Inside the simulator: many runs of one machine on a hostile bus, from a job file.

Each run is a plan of :mod:`sim.campaigns.bus_campaign`; its outcome goes to the pipe as a line of
JSON. The first fault ends it: what follows would say nothing about the machine.
"""

import json
import os
import random
import shutil
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Combine, Event, First, Lock, RisingEdge, Timer

from hw.control.regmap import EVERY_INTERRUPT, REGISTERS, Control, Interrupt, Register, Status
from hw.isa import STORES, Engine, Error
from hw.memory.axi import Response
from hw.top import TAPS
from sim.axi_lite import AxiLiteManager
from sim.hostile_bus import HOSTILITY

PERIOD_NS = 10
PATIENCE  = 100         # times the cycles of the same run on a friendly bus, before it hangs
LOOK      = 20_000      # cycles between looks at the status, should an interrupt have been cleared
SETTLE    = 3000        # cycles after a run in which what the bus holds must have come to an end


class Fault(Exception):
    """The machine did what it must not."""


class HostileHost(AxiLiteManager):
    """Registers, with channels that come in any order and take their time."""

    def __init__(self, dut, name):
        super().__init__(dut, name)
        self.rng   = random.Random(0)
        self._lock = Lock()

    async def access(self, register, value=None):
        """Response of a write, or response and value of a read without ``value``."""
        async with self._lock:
            if value is None:
                self._ports["araddr"].value = register
                asked  = [("ar", self._delay())]
                answer = "r"
            else:
                self._ports["awaddr"].value = register
                self._ports["wdata"].value  = value & 0xFFFFFFFF
                self._ports["wstrb"].value  = 0xF
                asked  = [("aw", self._delay()), ("w", self._delay())]
                answer = "b"
            sends = [cocotb.start_soon(self._send(*one)) for one in asked]
            found = await self._receive(answer)
            await Combine(*sends)
            return found

    def _delay(self):
        return self.rng.choice((0, 0, 1, 2, 9))

    async def _send(self, channel, delay):
        for _ in range(delay):
            await RisingEdge(self._clk)
        self._ports[f"{channel}valid"].value = 1
        while True:
            await RisingEdge(self._clk)
            if self._ports[f"{channel}ready"].value:
                self._ports[f"{channel}valid"].value = 0
                return

    async def _receive(self, channel):
        ready, valid = self._ports[f"{channel}ready"], self._ports[f"{channel}valid"]
        takes = self.rng.random() < 0.5
        ready.value = takes
        while True:
            await RisingEdge(self._clk)
            if takes and valid.value:
                ready.value = 0
                response = int(self._ports[f"{channel}resp"].value)
                return (response, self._ports["rdata"].value.to_unsigned()
                        ) if channel == "r" else response
            takes = self.rng.random() < 0.5
            ready.value = takes

    async def set(self, register, value):
        if await self.access(register, value) != Response.OKAY.value:
            raise Fault(f"writing {register.name} was refused")

    async def get(self, register):
        response, value = await self.access(register)
        if response != Response.OKAY.value:
            raise Fault(f"reading {register.name} was refused")
        return value


class Bench:
    def __init__(self, dut, job):
        self.dut, self.job = dut, job
        self.host  = HostileHost(dut, "control")
        self.cases = {case["name"]: case for case in job["cases"]}
        self.now   = None                       # the case whose image is in the file

    def hostile(self, plan, **changes):
        self.dut.hostility.value = HOSTILITY.const({**plan["hostility"], **changes}).as_bits()

    async def load(self, case, source):
        if self.now != (case["name"], source):
            shutil.copyfile(source, self.job["image"])
            self.now = case["name"], source
        self.dut.load.value = 1
        await ClockCycles(self.dut.clk, 2)
        self.dut.load.value = 0
        await ClockCycles(self.dut.clk, 2)

    async def dump(self, first, count):
        vector = self.job["vector"]
        self.dut.dump_first.value = first // vector
        self.dut.dump_count.value = count // vector
        self.dut.dump.value = 1
        await ClockCycles(self.dut.clk, 3)
        self.dut.dump.value = 0
        await ClockCycles(self.dut.clk, 2)
        return np.fromfile(self.job["dump"], np.uint8)

    def _recorded(self):
        """Bytes that left the monitor, and records of every tap, up to now."""
        return [self.dut.monitor_bytes.value.to_unsigned(),
                *(self.dut[f"tap_records__{number}"].value.to_unsigned()
                  for number in range(len(TAPS)))]

    async def run(self, plan):
        """One run; what it came to, as a dictionary."""
        dut, host = self.dut, self.host
        case      = self.cases[plan["case"]]
        host.rng  = random.Random(plan["seed"])
        self.hostile(plan)
        before = self._recorded()
        await self.load(case, case["image"])
        if plan["reset"]:
            await host.set(Register.CONTROL, Control.const({"reset": 1}).as_bits())
        await host.set(Register.IRQ_STATUS, EVERY_INTERRUPT)
        settings = {
            "IRQ_ENABLE": Interrupt.const({"done": 1}).as_bits(),
            "PROGRAM_BASE": case["program_base"], "CYCLE_LIMIT_LO": 0, "CYCLE_LIMIT_HI": 0,
            "STALL_LIMIT": plan["stall_limit"], "MONITOR_LAYER": 0, "MONITOR_X0": 0,
            "MONITOR_Y0": 0, "MONITOR_WIDTH": 0x7FF, "MONITOR_HEIGHT": 0xFFF,
            "MONITOR_DECIMATE": 0, "MONITOR_ENABLE": 1, **case["registers"]}
        settings = list(settings.items())
        host.rng.shuffle(settings)
        for name, value in settings:
            await host.set(Register[name], value)
        await host.set(Register.CONTROL, Control.const({"start": 1}).as_bits())

        over    = Event()
        actions = cocotb.start_soon(self._act(plan, case, over))
        cycles  = await self._finish(PATIENCE * case["cycles"] + 500_000)
        over.set()
        done    = await actions
        status  = Status.from_bits(await host.get(Register.STATUS))
        if not status.done or status.busy:
            raise Fault(f"interrupt, but the status is {status}")
        outcome = {"cycles": cycles, "stopped": bool(status.stopped),
                   "error": status.error.name, "engine": Engine(status.engine).name,
                   "hit": bool(dut.hit.value)}
        self._judge_status(plan, case, outcome, done)
        complete = status.error is Error.NONE and not status.stopped
        if plan["frozen_start"] and status.unanswered:
            await host.set(Register.IRQ_STATUS, EVERY_INTERRUPT)
            await host.set(Register.CONTROL, Control.const({"start": 1}).as_bits())
            await self._finish(10 * plan["stall_limit"] + 100_000)
            status = Status.from_bits(await host.get(Register.STATUS))
            if status.error is not Error.NO_ANSWER:
                raise Fault(f"a start on a dead bus ended with {status.error.name}")
        self.hostile(plan, freeze=0)
        await self._settle()
        await self._judge_memory(case, complete)
        return {**outcome, "complete": complete, "recorded": [before, self._recorded()]}

    async def _finish(self, limit):
        """Wait for the end of a run; the cycles that it took."""
        dut, cycles = self.dut, 0
        rising = RisingEdge(dut.irq)
        while not dut.irq.value:
            timer = Timer(LOOK * PERIOD_NS, unit="ns")
            start = cocotb.utils.get_sim_time("ns")
            woken = await First(rising, timer)
            cycles += int(cocotb.utils.get_sim_time("ns") - start) // PERIOD_NS
            if woken is timer:
                status = Status.from_bits(await self.host.get(Register.STATUS))
                if status.done and not status.busy:
                    break
                if cycles > limit:
                    raise Fault(f"no interrupt within {cycles} cycles; status {status}")
            self._judge_protocol()
        return cycles

    async def _act(self, plan, case, over):
        """What the host does meanwhile; the names of what it did."""
        done, now = [], 0
        for when, name, *values in plan["actions"]:
            if when > now:
                timer = Timer((when - now) * PERIOD_NS, unit="ns")
                await First(timer, over.wait())
                now = when
            if over.is_set():
                return done
            await getattr(self, f"_{name}")(plan, case, *values)
            done.append(name)
        return done

    async def _start(self, plan, case):
        await self.host.set(Register.CONTROL, Control.const({"start": 1}).as_bits())

    async def _stop(self, plan, case):
        await self.host.set(Register.CONTROL, Control.const({"stop": 1}).as_bits())

    async def _start_and_stop(self, plan, case):
        await self.host.set(Register.CONTROL, Control.const({"start": 1, "stop": 1}).as_bits())

    async def _limit(self, plan, case):
        await self.host.set(Register.CYCLE_LIMIT_LO, 1)

    async def _freeze(self, plan, case):
        self.hostile(plan, freeze=1)

    async def _base(self, plan, case, value):
        await self.host.set(Register.PROGRAM_BASE, value)

    async def _window(self, plan, case):
        for name, value in case["registers"].items():
            await self.host.set(Register[name], value)

    async def _aim(self, plan, case, name, value):
        await self.host.set(Register[name], value)

    async def _look(self, plan, case, address):
        known    = address in REGISTERS
        response, _ = await self.host.access(address)
        if (response == Response.OKAY.value) != known:
            raise Fault(f"reading 0x{address:03x} was answered with {response}")

    async def _scribble(self, plan, case, address, value):
        if await self.host.access(address, value) != Response.SLVERR.value:
            raise Fault(f"writing 0x{address:03x} was not refused")

    async def _interrupts(self, plan, case, value):
        await self.host.set(Register.IRQ_ENABLE, value)

    async def _clear(self, plan, case):
        await self.host.set(Register.IRQ_STATUS, EVERY_INTERRUPT)

    async def _count(self, plan, case, select):
        await self.host.set(Register.COUNTER_SELECT, select)
        await self.host.get(Register.COUNTER_LO)
        await self.host.get(Register.COUNTER_HI)

    def _judge_status(self, plan, case, outcome, done):
        error, hit = outcome["error"], outcome["hit"]
        where = self.dut.hit_address.value.to_unsigned()
        reads = plan["hostility"]["error_on"] == 1
        if hit:
            expected = "AXI_READ" if reads else "AXI_WRITE"
            if error != expected:
                raise Fault(f"the bus answered with an error (address 0x{where:x}), and the run "
                            f"ended with {error}")
            allowed = ([Engine(e).name for start, end, e in case["readers"] if start <= where < end]
                       if reads else [STORES[int(self.dut.hit_id.value)].name])
            if plan["hostility"]["errors"] == 1 and outcome["engine"] not in allowed:
                raise Fault(f"{error} at 0x{where:x} was put down to {outcome['engine']}, and not "
                            f"to {' or '.join(allowed)}")
            return
        allowed = {("NONE", False)}
        if "stop" in done or "start_and_stop" in done:
            allowed.add(("NONE", True))
        if "limit" in done:
            allowed.add(("CYCLE_LIMIT", False))
        if "freeze" in done:
            allowed.add(("STALLED", False))
        if (error, outcome["stopped"]) not in allowed:
            raise Fault(f"the run ended with {error} of {outcome['engine']}"
                        + (", stopped" if outcome["stopped"] else ""))

    def _judge_protocol(self):
        if self.dut.violations.value.to_unsigned():
            raise Fault("a rule of the bus was broken")

    async def _settle(self):
        """Let what the bus still holds come to its end, and what the machine still offers it: a
        reset would forget that (``Control.reset``), and the next run would get its answers."""
        dut = self.dut
        for _ in range(100):
            status = Status.from_bits(await self.host.get(Register.STATUS))
            if not status.unanswered and not dut.owed.value.to_unsigned():
                break
            await ClockCycles(dut.clk, SETTLE // 10)
        self._judge_protocol()
        if status.unanswered or dut.owed.value.to_unsigned():
            raise Fault(f"{dut.owed.value.to_unsigned()} bursts are not over after the run")

    async def _judge_memory(self, case, complete):
        got      = await self.dump(0, case["bytes"])
        expected = np.fromfile(case["expected"], np.uint8)
        if complete:
            wrong = got != expected
        else:
            wrong = (got != expected) & (got != np.fromfile(case["image"], np.uint8))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise Fault(f"{int(wrong.sum())} bytes of off-chip memory are wrong, the first at "
                        f"0x{at:x}: {got[at]} instead of {expected[at]}")

    async def reference(self, case):
        """The run on a friendly bus, on which the others depend."""
        plan = {"case": case["name"], "seed": 0, "hostility": {}, "actions": [], "reset": False,
                "stall_limit": 0, "frozen_start": False}
        self.hostile(plan)
        await self.load(case, case["image"])
        await self.host.set(Register.IRQ_ENABLE, Interrupt.const({"done": 1}).as_bits())
        await self.host.set(Register.PROGRAM_BASE, case["program_base"])
        await self.host.set(Register.MONITOR_WIDTH, 0x7FF)
        await self.host.set(Register.MONITOR_HEIGHT, 0xFFF)
        await self.host.set(Register.MONITOR_ENABLE, 1)
        for name, value in case["registers"].items():
            await self.host.set(Register[name], value)
        await self.host.set(Register.CONTROL, Control.const({"start": 1}).as_bits())
        cycles = await self._finish(100 * case["cycles"])
        status = Status.from_bits(await self.host.get(Register.STATUS))
        if status.error is not Error.NONE:
            raise Fault(f"on a friendly bus the run ended with {status.error.name}")
        self._judge_protocol()
        await ClockCycles(self.dut.clk, SETTLE)
        await self.dump(0, self.job["memory"])
        shutil.copyfile(self.job["dump"], case["expected"])
        return {"cycles": cycles, "read_beats": self.dut.read_beats.value.to_unsigned(),
                "responses": self.dut.responses.value.to_unsigned()}


@cocotb.test()
async def run_plans(dut):
    job  = json.loads(Path(os.environ["ATTUNE_JOB"]).read_text())
    pipe = int(os.environ["ATTUNE_PROGRESS"])
    if job["clock"]:
        Clock(dut.clk, PERIOD_NS, unit="ns").start()
    bench = Bench(dut, job)
    for port in (dut.load, dut.dump, dut.dump_first, dut.dump_count, dut.inject_error,
                 dut.hostility):
        port.value = 0
    dut.monitor__tready.value = 1
    await ClockCycles(dut.clk, 4)

    def tell(**outcome):
        os.write(pipe, json.dumps(outcome).encode() + b"\n")

    try:
        if job["reference"]:
            tell(**await bench.reference(job["cases"][0]))
            return
        # Memory beyond all programs holds a pattern, which must still be there at the end.
        await bench.load({"name": None}, job["pattern"])
        for number, plan in enumerate(job["plans"]):
            tell(number=number, **await bench.run(plan))
        bench.hostile({"hostility": {}})
        rest  = max(case["bytes"] for case in job["cases"])
        wrong = (await bench.dump(0, job["memory"]))[rest:] != np.fromfile(
            job["pattern"], np.uint8)[rest:]
        if wrong.any():
            raise Fault(f"off-chip memory beyond all programs was written, first at "
                        f"0x{rest + int(np.argmax(wrong)):x}")
        await ClockCycles(dut.clk, 1)
    except Fault as fault:
        tell(fault=str(fault))
