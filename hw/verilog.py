"""Verilog of a component, fit for machines with megabytes of memory, and for Icarus.

Amaranth writes one line per memory row, also for rows of zeros: a 1 MiB memory costs half a minute
and 4 MB of text. Here a memory that starts with zeros becomes a loop, struct fields get no names of
their own, and every process runs at time 0; otherwise the text is that of
:func:`amaranth.back.verilog.convert`.
"""

import re

from amaranth import ClockDomain
from amaranth.back import rtlil, verilog
from amaranth.hdl import _ast, _ir
from amaranth.lib import wiring

__all__ = ["export"]

TRIGGER  = re.compile(r"^  reg (\\\$auto\$verilog_backend\S+ ) = 0;$", re.MULTILINE)
SINGLE   = re.compile(r"^  always @\*\n    (\S.*;)$", re.MULTILINE)
OURS     = "\n`ifdef __ICARUS__\n  {end}{first}\n`else\n  {other}\n`endif"
OTHERS   = ("\n`ifdef VERILATOR\n  {other}\n`else\n  {end}\n"
            "  // synthesis translate_off\n  {first}\n  // synthesis translate_on\n`endif")
MEMORY   = re.compile(r"^  reg (?:\[\d+:0\] )?(\\\S+ |\w+) \[(\d+):0\];$", re.MULTILINE)


class _Emitter(rtlil.ModuleEmitter):
    """Leaves memories that start with zeros without initial content, and struct fields, which
    would be nine tenths of the text, without a name of their own."""

    def emit_signal_fields(self):
        pass

    def emit_memory(self, cell_idx, cell):
        if any(cell.init):
            super().emit_memory(cell_idx, cell)


def export(component, *, name="dut", reset=True, simulated=True):
    """The Verilog of ``component`` as module ``name``; its ports are those of the signature.

    Without ``simulated`` it is for other people's tools: what is for simulators alone is between
    pragmas that synthesis obeys.

    Without ``reset`` there is no port ``rst``, and registers just start with their initial values.
    Verilator evaluates whatever depends on an input twice per cycle, and every next state depends
    on a reset: without one the reference machine runs 1.7 times as fast.
    """
    ports = {"__".join(map(str, path)): (_ast.Value.cast(value),
                                         _ir.PortDirection.Input if member.flow == wiring.In
                                         else _ir.PortDirection.Output)
             for path, member, value in component.signature.flatten(component)}
    netlist = _ir.build_netlist(_ir.Fragment.get(component, None), ports=ports, name=name,
                                missing_domain=lambda domain: ClockDomain(domain,
                                                                          reset_less=not reset))
    empty   = rtlil.EmptyModuleChecker(netlist)
    design  = rtlil.Design(emit_src=False)
    names   = _ast.SignalDict()
    for index, module in enumerate(netlist.modules):
        if not empty.is_empty(index):
            builder = design.module(".".join(module.name), src_loc=module.src_loc)
            if index == 0:
                builder.attribute("top", 1)
            _Emitter(builder, netlist, module, names, empty_checker=empty).emit()
    text = verilog._convert_rtlil_text(str(design), strip_internal_attrs=True)
    return _zero_memories(_run_at_time_0(text, OURS if simulated else OTHERS))


def _run_at_time_0(text, choice):
    """Let every process run at the start, under Icarus as elsewhere.

    A process first runs when an input changes, so one whose inputs start with their final values
    would leave its outputs unset. Yosys gives a process of several statements one more input for
    this, but with its final value from the start; here that value comes as the first event. One of
    a single statement gets none, and no event ever if it sets constant bits; it is run once.
    (``always_comb`` would do, if Icarus 11 did not run in circles between such processes.)
    """
    def choose(**words):
        return choice.format(**words).replace("\n  \n", "\n")

    text = TRIGGER.sub(r"  reg \1" + choose(end="; ", first=r"initial #0 \1= 0;", other="= 0;"),
                       text)
    return SINGLE.sub(r"\g<0>" + choose(end="", first=r"initial #0 \1", other=r"initial \1"), text)


def _zero_memories(text):
    """Fill with zeros, in a loop, every memory that the text leaves unset."""
    def declare(match):
        memory, last = match[1], match[2]
        rest = text[match.end():text.index("endmodule", match.end())]
        if f"    {memory}[0] = " in rest:
            return match[0]
        row = f"\\{memory.strip().removeprefix(chr(92))}.row "
        return (f"{match[0]}\n  integer {row};\n"
                f"  initial for ({row}= 0; {row}<= {last}; {row}= {row}+ 1) {memory}[{row}] = 0;")

    return MEMORY.sub(declare, text)
