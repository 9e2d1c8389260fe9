"""What the machine does with programs that the compiler would never emit, and with a memory that
fails: the RTL of the whole chip."""

import json

import pytest

from golden import integer
from golden.images import read_image
from golden.models import load_graph
from hw.compiler import compile_network
from hw.compiler.emit import encode_layout
from hw.config import TINY
from hw.isa import FORMS, INSTRUCTION_BYTES, Engine, Opcode, StreamHeader, Wait
from hw.memory.dram import timing_plusarg
from hw.verilog import export
from sim import simulators
from sim.top import SOURCES, SimTop


class Image:
    """A program's off-chip image, for tampering."""

    def __init__(self, program, frame):
        self.program = program
        self.bytes   = bytearray(program.image)
        blob = program.pack_frame(frame)
        self.bytes[program.frame_address(0):program.frame_address(0) + len(blob)] = blob

    def header(self, engine):
        return StreamHeader.from_bits(self._word(
            self.program.program_base + engine * INSTRUCTION_BYTES))

    def _word(self, address):
        return int.from_bytes(self.bytes[address:address + INSTRUCTION_BYTES], "little")

    def change(self, engine, form, /, **fields):
        """Overwrite fields of the engine's first instruction of that form."""
        header = self.header(engine)
        for index in range(header.count):
            address = header.address + index * INSTRUCTION_BYTES
            word    = self._word(address)
            if FORMS[Opcode.SYNC].from_bits(word).opcode != form:
                continue
            layout = FORMS[form]
            for name, value in fields.items():
                field = layout[name]
                mask  = (1 << field.width) - 1
                word  = word & ~(mask << field.offset) | (value & mask) << field.offset
            self.bytes[address:address + INSTRUCTION_BYTES] = word.to_bytes(32, "little")
            return self
        raise AssertionError(f"{engine.name} has no {form.name}")

    def corrupt_header(self, engine):
        self.bytes[self.program.program_base + engine * INSTRUCTION_BYTES] ^= 0xFF
        return self


def never(engine):
    """A wait for more instructions than ``engine`` has."""
    return encode_layout(Wait, {"engine": engine, "count": (1 << 18) - 1})


FAULTS = [
    ("no magic word", lambda i: i.corrupt_header(Engine.GATE), "BAD_PROGRAM", "GATE"),
    ("opcode of another engine",
     lambda i: i.change(Engine.ENCODER_FILL, Opcode.FILL, opcode=Opcode.GATE.value),
     "BAD_OPCODE", "ENCODER_FILL"),
    ("unknown opcode",
     lambda i: i.change(Engine.DECODER_CONV, Opcode.LAYER, opcode=15),
     "BAD_OPCODE", "DECODER_CONV"),
    ("load beyond on-chip memory",
     lambda i: i.change(Engine.LOAD_ENCODER, Opcode.LOAD, base=(1 << 20) - 1),
     "BAD_ADDRESS", "LOAD_ENCODER"),
    ("load beyond off-chip memory",
     lambda i: i.change(Engine.LOAD_DECODER, Opcode.LOAD, offchip=0xFFFF_FFF8),
     "BAD_ADDRESS", "LOAD_DECODER"),
    ("fill beyond row memory",
     lambda i: i.change(Engine.ENCODER_FILL, Opcode.FILL, dst_base=(1 << 15) - 1),
     "BAD_ADDRESS", "ENCODER_FILL"),
    ("convolution beyond weight memory",
     lambda i: i.change(Engine.ENCODER_CONV, Opcode.CONV, weight_base=(1 << 16) - 1),
     "BAD_ADDRESS", "ENCODER_CONV"),
    ("kernel without rows",
     lambda i: i.change(Engine.ATTENTION_CONV, Opcode.LAYER, kernel_h=0),
     "BAD_ADDRESS", "ATTENTION_CONV"),
    ("token that never comes",
     lambda i: i.change(Engine.ENCODER_FILL, Opcode.FILL, waits=never(Engine.GATE)),
     "STALLED", "LOAD_ENCODER"),
]


@pytest.mark.cosim
@pytest.mark.parametrize("simulator", ["verilator"])
def test_every_fault_stops_the_machine_and_leaves_no_trace(tmp_path, simulator):
    graph   = load_graph("elec4848", size=16, width=4)
    program = compile_network(graph, TINY)
    frame   = read_image("phantom:5", 16)
    mask_HW = integer.run(graph, frame)["mask"][0].numpy()
    mask    = b"".join(row.tobytes().ljust(program.outputs[0].row_bytes, b"\0") for row in mask_HW)
    (tmp_path / "mask").write_bytes(mask)

    runs = []

    def add(name, image, error, engine, *, inject_error=0, cycle_limit=0):
        path = tmp_path / f"image-{len(runs)}"
        path.write_bytes(image.bytes + bytes(-len(image.bytes) % 64))
        runs.append({"name": name, "image": str(path), "error": error, "engine": engine,
                     "inject_error": inject_error, "cycle_limit": cycle_limit,
                     "program_base": program.program_base, "mask": str(tmp_path / "mask"),
                     "dump_first": program.mask_address(0) // TINY.vector,
                     "dump_count": program.mask_bytes // TINY.vector})

    for name, tamper, error, engine in FAULTS:
        add(name, tamper(Image(program, frame)), error, engine)
        add(f"good, after {name}", Image(program, frame), "NONE", None)
    add("read error", Image(program, frame), "AXI_READ", "LOAD_ATTENTION", inject_error=0b01)
    add("write error", Image(program, frame), "AXI_WRITE", "STORE_DECODER", inject_error=0b10)
    add("cycle limit", Image(program, frame), "CYCLE_LIMIT", "LOAD_ENCODER", cycle_limit=5000)
    add("good at the end", Image(program, frame), "NONE", None)

    (tmp_path / "jobs").write_text(json.dumps(
        {"runs": runs, "clock": simulator != "verilator", "image": str(tmp_path / "image"),
         "dump": str(tmp_path / "dump")}))
    built = simulators.build(simulator, export(SimTop(TINY), name="top", reset=False), top="top",
                             sources=SOURCES)
    plusargs = [timing_plusarg(TINY), f"+offchip_image={tmp_path / 'image'}",
                f"+offchip_dump={tmp_path / 'dump'}"]
    if simulator == "verilator":
        plusargs.append("+clock=10000")
    simulators.run(built, "tests.sim.bench_errors", folder=tmp_path, plusargs=plusargs,
                   env={"ATTUNE_JOBS": tmp_path / "jobs"})
