"""Waits that the emitter derives from what instructions read and write."""

import random

import pytest

from hw.compiler.emit import Emitter, Span, encode
from hw.compiler.errors import CompileError
from hw.compiler.memory import Heap
from hw.isa import FORMS, INSTRUCTION_BYTES, Engine, FillMode, Opcode, Source, StreamHeader


def emitter():
    return Emitter({"onchip": 64, "rows": 64})


def waits(emitter, engine, index=-1):
    return emitter.streams[engine][index][4]


def copy(emitter, engine, source=None, target=None):
    emitter.emit(engine, Opcode.SYNC, {}, reads=[source] if source else [],
                 writes=[target] if target else [])


def test_reader_waits_for_writer():
    e = emitter()
    copy(e, Engine.LOAD_ENCODER, target=Span("onchip", 0, 8))
    copy(e, Engine.LOAD_ENCODER, target=Span("onchip", 8, 16))
    copy(e, Engine.ENCODER_FILL, Span("onchip", 0, 8))
    assert waits(e, Engine.ENCODER_FILL) == [(Engine.LOAD_ENCODER, 1)]
    copy(e, Engine.ENCODER_FILL, Span("onchip", 4, 12))
    assert waits(e, Engine.ENCODER_FILL) == [(Engine.LOAD_ENCODER, 2)]


def test_overwriting_waits_for_reader_and_writer():
    e = emitter()
    copy(e, Engine.LOAD_ENCODER, target=Span("onchip", 0, 8))
    copy(e, Engine.GATE, Span("onchip", 0, 8))
    copy(e, Engine.LOAD_DECODER, target=Span("onchip", 0, 8))
    # The gate itself waited for the first load, so waiting for the gate implies it.
    assert waits(e, Engine.LOAD_DECODER) == [(Engine.GATE, 1)]


def test_no_wait_for_oneself_or_for_what_was_waited_for():
    e = emitter()
    copy(e, Engine.LOAD_ENCODER, target=Span("onchip", 0, 8))
    copy(e, Engine.ENCODER_FILL, Span("onchip", 0, 8), Span("rows", 0, 8))
    copy(e, Engine.ENCODER_FILL, Span("onchip", 0, 8), Span("rows", 0, 8))
    assert waits(e, Engine.ENCODER_FILL) == []


def test_readers_do_not_wait_for_readers():
    e = emitter()
    copy(e, Engine.GATE, Span("onchip", 0, 8))
    copy(e, Engine.ENCODER_FILL, Span("onchip", 0, 8))
    assert waits(e, Engine.ENCODER_FILL) == []


def test_more_waits_than_fit_go_to_a_sync():
    e = emitter()
    writers = (Engine.LOAD_ENCODER, Engine.LOAD_ATTENTION, Engine.LOAD_DECODER, Engine.STORE)
    for index, engine in enumerate(writers):
        copy(e, engine, target=Span("onchip", 8 * index, 8 * index + 8))
    e.emit(Engine.GATE, Opcode.GATE, {}, reads=[Span("onchip", 0, 32)])
    sync, gate = e.streams[Engine.GATE]
    assert [sync[0], gate[0]] == [Opcode.SYNC, Opcode.GATE]
    assert sync[4] + gate[4] == [(engine, 1) for engine in writers]
    assert len(sync[4]) == 3


def test_encoding_is_that_of_the_layout():
    fields = {"source": Source.FEEDBACK, "mode": FillMode.UP, "src_base": 1000, "width": 17,
              "vectors": 3, "dst_base": 40, "dst_stride": 6, "dst_vector": 3}
    blob = encode(Opcode.FILL, fields, 9, 77, [(Engine.GATE, 12345)])
    view = FORMS[Opcode.FILL].from_bits(int.from_bytes(blob, "little"))
    assert len(blob) == INSTRUCTION_BYTES
    assert {name: getattr(view, name) for name in fields} == fields
    assert (view.opcode, view.layer, view.row) == (Opcode.FILL, 9, 77)
    assert [(wait.engine, wait.count) for wait in view.waits] == [
        (Engine.GATE, 12345), (0, 0), (0, 0)]


def test_program_starts_with_one_header_per_engine():
    e = emitter()
    copy(e, Engine.GATE)
    copy(e, Engine.GATE)
    blob = e.assemble(0x1000)
    for engine in Engine:
        header = StreamHeader.from_bits(int.from_bytes(
            blob[engine * INSTRUCTION_BYTES:][:INSTRUCTION_BYTES], "little"))
        assert header.engine == engine
        assert header.count == (2 if engine == Engine.GATE else 0)
    assert len(blob) == (len(Engine) + 2) * INSTRUCTION_BYTES


def test_a_field_that_overflows_is_refused():
    with pytest.raises(CompileError, match="^instruction field 'width' has 11 bits and would be "
                                           "4096; use a smaller network or fewer frames$"):
        encode(Opcode.FILL, {"width": 4096})


def test_a_watched_memory_learns_which_instructions_use_its_blocks():
    emitter = Emitter({"m": 64, "other": 64})
    heap    = Heap("m", 64)
    emitter.watch(heap)
    base = heap.take(8, "map")
    copy(emitter, Engine.STORE, source=Span("other", 0, 8))
    copy(emitter, Engine.STORE, source=Span("m", base, base + 4))
    copy(emitter, Engine.ENCODER_FILL, target=Span("m", base + 4, base + 8))
    assert heap.history[0].uses == {Engine.STORE: (1, 1), Engine.ENCODER_FILL: (0, 0)}


def test_who_writes_other_bytes_of_the_same_words_is_not_waited_for():
    """Two units make the channels of a row: each waits for what was there before both."""
    e = emitter()
    row = Span("onchip", 0, 8)
    copy(e, Engine.DECODER_CONV, target=row)
    copy(e, Engine.ENCODER_FILL, row)
    beside = e.retired((Engine.ENCODER_CONV, Engine.DECODER_CONV))
    assert beside == {Engine.ENCODER_CONV: 0, Engine.DECODER_CONV: 1}
    for engine in beside:
        e.emit(engine, Opcode.SYNC, {}, writes=[row], beside=beside)
        e.emit(engine, Opcode.SYNC, {}, writes=[row], beside=beside)
    # The fill had waited for the decoder's first.
    assert [waits(e, Engine.ENCODER_CONV, index) for index in (0, 1)] == [
        [(Engine.ENCODER_FILL, 1)], []]
    assert [waits(e, Engine.DECODER_CONV, index) for index in (1, 2)] == [
        [(Engine.ENCODER_FILL, 1)], []]
    # Who reads the row waits for both.
    copy(e, Engine.GATE, row)
    assert sorted(waits(e, Engine.GATE)) == [(Engine.ENCODER_CONV, 2), (Engine.DECODER_CONV, 3)]


def test_who_makes_another_piece_of_the_same_row_is_not_waited_for():
    """Nor anything else that it was given before: two pieces of a row once waited so."""
    e   = emitter()
    row = Span("onchip", 0, 8)
    copy(e, Engine.ENCODER_CONV, target=row)
    copy(e, Engine.ENCODER_FILL, row)
    copy(e, Engine.ENCODER_CONV, target=Span("onchip", 40, 48))
    after = e.users([row])
    assert after == {Engine.ENCODER_CONV: 1, Engine.ENCODER_FILL: 1}
    for engine in (Engine.ENCODER_CONV, Engine.DECODER_CONV):
        e.emit(engine, Opcode.SYNC, {}, writes=[row], after=after)
    assert waits(e, Engine.ENCODER_CONV, 2) == [(Engine.ENCODER_FILL, 1)]
    assert waits(e, Engine.DECODER_CONV) == [(Engine.ENCODER_FILL, 1)]
    copy(e, Engine.GATE, row)
    assert sorted(waits(e, Engine.GATE)) == [(Engine.ENCODER_CONV, 3), (Engine.DECODER_CONV, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_what_touches_the_same_words_is_in_order_and_no_wait_is_for_nothing(seed):
    """Spans that overlap, are cut and grow together again, against every pair of instructions."""
    chance = random.Random(seed)
    e      = emitter()
    used   = []                     # (engine, number, words read, words written), as emitted

    def span():
        start = chance.randrange(60)
        return Span("rows", start, chance.randint(start + 1, 64))

    for _ in range(60):
        engine = chance.choice(list(Engine)[:6])
        reads  = [span() for _ in range(chance.randrange(3))]
        writes = [span() for _ in range(chance.randrange(2))]
        e.emit(engine, Opcode.SYNC, {}, reads=reads, writes=writes)
        used.append((engine, len(e.streams[engine]), *(
            {word for each in spans for word in range(each.start, each.stop)}
            for spans in (reads, writes))))

    def before(without=None):
        """(engine, number) -> per engine, how many instructions have retired when it starts."""
        found = {engine: [dict.fromkeys(Engine, 0)] for engine in Engine}
        pending = {engine: list(stream) for engine, stream in e.streams.items()}
        while any(pending.values()):
            for engine, stream in pending.items():
                while stream and all(len(found[other]) > count for other, count in stream[0][4]):
                    number = len(found[engine])
                    known  = dict(found[engine][-1])
                    for other, count in stream.pop(0)[4]:
                        if (engine, number, other) != without:
                            for third, least in (*found[other][count].items(), (other, count)):
                                known[third] = max(known[third], least)
                    found[engine].append(known)
        return found

    def in_order(found):
        return all(
            found[later][number][earlier] >= count
            for index, (later, number, reads, writes) in enumerate(used)
            for earlier, count, others_read, others_wrote in used[:index]
            if earlier != later and (others_wrote & (reads | writes) or others_read & writes))

    assert in_order(before())
    for engine, stream in e.streams.items():
        for number, (*_, waits) in enumerate(stream, 1):
            assert not any(in_order(before((engine, number, other))) for other, _ in waits)
