import re

import pytest

from hw.disasm import HEADERS_BYTES, disassemble, format_instruction, main
from hw.isa import FORMS, PROGRAM_MAGIC, Engine, FillMode, Opcode, Source, StreamHeader, Target

CONV = FORMS[Opcode.CONV].const({
    "opcode": Opcode.CONV, "layer": 3, "row": 17,
    "waits": [{"engine": Engine.ENCODER_FILL, "count": 12}, {},
              {"engine": Engine.LOAD_ENCODER, "count": 4}],
    "slot": 2, "rows": [{}, {"valid": 1, "base": 0}, {"valid": 1, "base": 640}],
    "weight_base": 100, "param_base": 7, "groups": 4, "out_base": 1000, "first": 12,
    "alpha_base": 9, "column": 5}).as_bits()
CONV_TEXT = ("conv   layer 3 row 17      slot=2 rows=[-,0,640] weight_base=100 param_base=7 "
             "groups=4 out_base=1000 first=12 alpha_base=9 column=5   "
             "after encoder_fill#12, load_encoder#4")
LOAD = FORMS[Opcode.LOAD].const({"opcode": Opcode.LOAD, "offchip": 0x4000, "beats": 5,
                                 "expand": 1}).as_bits()
LOAD_TEXT = ("load                       traffic=program target=onchip offchip=0x4000 beats=5 "
             "base=0 expand=1 frame_start=0")


def words(*values):
    return b"".join(value.to_bytes(32, "little") for value in values)


def program(streams, *, base, magic=PROGRAM_MAGIC):
    headers, body, address = [], [], base + HEADERS_BYTES
    for engine in Engine:
        stream = streams.get(engine, [])
        headers.append(StreamHeader.const({"magic": magic, "engine": engine,
                                           "count": len(stream), "address": address}).as_bits())
        body += stream
        address += 32 * len(stream)
    return words(*headers, *body)


@pytest.mark.parametrize("bits, text", [
    (CONV, CONV_TEXT),
    (LOAD, LOAD_TEXT),
    (Opcode.SYNC.value | 14 << 24 | 1 << 28, "sync   after engine14#1"),
    (FORMS[Opcode.FILL].const({"opcode": Opcode.FILL, "layer": 1, "source": Source.FEEDBACK,
                               "mode": FillMode.POOL, "width": 8}).as_bits(),
     ("fill   layer 1             source=feedback mode=pool src_base=0 src_base2=0 width=8 "
      "vectors=0 dst_base=0 dst_stride=0 dst_vector=0")),
    (0, "?      0x" + "0" * 64),
])
def test_one_instruction(bits, text):
    assert re.sub(" +", " ", format_instruction(bits)) == re.sub(" +", " ", text)


def test_columns_line_up():
    assert format_instruction(CONV) == CONV_TEXT
    assert format_instruction(LOAD) == LOAD_TEXT


def test_layer_shows_its_target():
    bits = FORMS[Opcode.LAYER].const({"opcode": Opcode.LAYER, "target": Target.ALPHA}).as_bits()
    assert "target=alpha" in format_instruction(bits)


def test_program_wherever_it_lies():
    streams = {Engine.ENCODER_CONV: [CONV], Engine.LOAD_ENCODER: [LOAD, LOAD]}
    bare    = list(disassemble(program(streams, base=0x8000)))
    assert bare[:3] == ["load_encoder, 2 instructions", "    0  " + LOAD_TEXT,
                        "    1  " + LOAD_TEXT]
    assert bare[bare.index("encoder_conv, 1 instructions") + 1] == "    0  " + CONV_TEXT
    image = bytes(0x60) + program(streams, base=0x60)
    assert list(disassemble(image, at=0x60)) == bare


def test_command_shows_one_engine(tmp_path, capsys):
    file = tmp_path / "program.bin"
    file.write_bytes(program({Engine.ENCODER_CONV: [CONV]}, base=0))
    assert main([str(file), "--engine", "encoder_conv"]) == 0
    assert capsys.readouterr().out == f"encoder_conv, 1 instructions\n    0  {CONV_TEXT}\n"


def test_command_names_what_is_wrong(tmp_path, capsys):
    file = tmp_path / "program.bin"
    assert main([str(file)]) == 2
    assert "No such file" in capsys.readouterr().err
    file.write_bytes(bytes(31))
    assert main([str(file)]) == 2
    assert capsys.readouterr().err == (f"error: Program of 31 bytes has no room for "
                                       f"{len(Engine)} headers at 0x0\n")


def test_a_device_is_not_read_for_ever(capsys):
    assert main(["/dev/zero"]) == 2
    assert capsys.readouterr().err == "error: '/dev/zero' is a pipe or a device; name a file\n"

def test_unknown_engine_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path), "--engine", "foo"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: Unknown engine 'foo'; known are load_encoder, ")
    assert line.count("\n") == 1


def test_errors():
    with pytest.raises(ValueError, match="^No program at 0x0: header 0 is not that of "
                                         "load_encoder$"):
        list(disassemble(program({}, base=0, magic=1)))
    with pytest.raises(ValueError, match="^Stream of load_encoder leaves the program$"):
        list(disassemble(program({Engine.LOAD_ENCODER: [LOAD]}, base=0)[:-1]))
