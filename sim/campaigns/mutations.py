"""Programs spoiled at random: what a compiler's bug, a bad cable or an attacker might send.

Every kind of mutation takes a good :class:`Base` and a random generator, and returns the
:class:`Mutant`; the same generator gives the same mutant.
"""

from dataclasses import dataclass

from amaranth.lib import data

from hw.isa import (
    FORMS,
    INSTRUCTION_BITS,
    INSTRUCTION_BYTES,
    STORES,
    WAITS,
    Engine,
    Opcode,
    StreamHeader,
    Wait,
)

__all__ = ["KINDS", "Base", "Mutant", "mutate"]

SYNC   = FORMS[Opcode.SYNC]
HEADER = StreamHeader.as_shape()


@dataclass(frozen=True)
class Base:
    """A good program: its off-chip image with a frame in place, what the host tells the machine of
    it, and ``expected``, the bytes of the ``writable`` window after a run, where ``decided`` has
    ones; what fills the vectors of a spilled map beyond its channels may be anything. ``cycles`` is
    about what a run takes."""
    name:         str
    image:        bytes
    program_base: int
    writable:     tuple[int, int]
    expected:     bytes
    decided:      bytes
    cycles:       int

    def agrees(self, left):
        """Whether ``left`` may be the bytes of the window after a run."""
        return not self.wrong(left)

    def wrong(self, left):
        """Addresses at which ``left``, the bytes of the window after a run, are wrong."""
        if len(left) != len(self.expected):
            return list(range(*self.writable))
        expected, decided, found = (int.from_bytes(x, "little")
                                    for x in (self.expected, self.decided, left))
        if (found ^ expected) & decided == 0:
            return []
        return [self.writable[0] + k for k, (a, b, mask) in
                enumerate(zip(left, self.expected, self.decided, strict=True)) if (a ^ b) & mask]


@dataclass
class Mutant:
    """A base whose ``image`` or ``program_base`` is no longer good; ``what`` tells it in words."""
    base:         Base
    kind:         str
    what:         str
    image:        bytearray
    program_base: int


def mutate(base, rng):
    """A mutant of ``base``, of a kind that ``rng`` picks."""
    kind   = rng.choice(list(KINDS))
    mutant = Mutant(base, kind, "", bytearray(base.image), base.program_base)
    mutant.what = KINDS[kind](_Image(mutant), rng)
    return mutant


class _Image:
    """Instructions of an image by engine and number."""

    def __init__(self, mutant):
        self.mutant  = mutant
        self.bytes   = mutant.image
        self.headers = [HEADER.from_bits(self.word(self.header_at(engine))) for engine in Engine]

    def header_at(self, engine):
        return self.mutant.base.program_base + engine * INSTRUCTION_BYTES

    def at(self, engine, index):
        return self.headers[engine].address + index * INSTRUCTION_BYTES

    def word(self, address):
        return int.from_bytes(self.bytes[address:address + INSTRUCTION_BYTES], "little")

    def put(self, address, word):
        self.bytes[address:address + INSTRUCTION_BYTES] = word.to_bytes(INSTRUCTION_BYTES, "little")

    def pick(self, rng, engines=Engine):
        """A random instruction: engine, number, address, word."""
        engine = rng.choice([engine for engine in engines if self.headers[engine].count])
        index  = rng.randrange(self.headers[engine].count)
        return engine, index, self.at(engine, index), self.word(self.at(engine, index))

    def end(self, rng):
        """One end of a stream: engine, last number."""
        engine = rng.choice([engine for engine in Engine if self.headers[engine].count])
        return engine, self.headers[engine].count - 1


def _form(word):
    """The layout of an instruction, that of SYNC if the opcode is none."""
    opcode = word & (1 << SYNC["opcode"].width) - 1
    return next((form for known, form in FORMS.items() if known.value == opcode), SYNC)


def _leaves(layout, name="", offset=0):
    """(name, offset, width) of every field of a layout, also of those inside others."""
    for key, field in data.Layout.cast(layout):
        inner = field.shape
        path  = f"{name}.{key}" if name else str(key)
        if isinstance(inner, data.Layout) or (isinstance(inner, type)
                                              and issubclass(inner, data.Struct)):
            yield from _leaves(inner, path, offset + field.offset)
        else:
            yield path, offset + field.offset, field.width


def _replace(word, offset, width, value):
    mask = (1 << width) - 1
    return word & ~(mask << offset) | (value & mask) << offset


def _value(rng, old, width):
    """A value that a field might wrongly have: an edge, a neighbour, anything."""
    return rng.choice([0, 1, (1 << width) - 1, 1 << width - 1, old + 1, old - 1, old ^ 1,
                       old << 1, rng.getrandbits(width)]) & (1 << width) - 1


def _named(engine, index):
    return f"{engine.name} {index}"


def _bits(image, rng):
    engine, index, address, word = image.pick(rng)
    flipped = sorted(rng.sample(range(INSTRUCTION_BITS), rng.choice([1, 1, 1, 2, 4, 16])))
    image.put(address, word ^ sum(1 << bit for bit in flipped))
    return f"bits {flipped} of {_named(engine, index)}"


def _garbage(image, rng):
    engine, index, address, _ = image.pick(rng)
    image.put(address, rng.getrandbits(INSTRUCTION_BITS))
    return f"{_named(engine, index)} is noise"


def _field(image, rng):
    engine, index, address, word = image.pick(rng)
    name, offset, width = rng.choice(list(_leaves(_form(word))))
    old   = word >> offset & (1 << width) - 1
    value = _value(rng, old, width)
    image.put(address, _replace(word, offset, width, value))
    return f"{name} of {_named(engine, index)} from {old} to {value}"


def _store(image, rng):
    """Stores that aim at something else: the program, weights, frames, the edges of the window."""
    engine, index, address, word = image.pick(rng, STORES)
    base  = image.mutant.base
    form  = FORMS[Opcode.STORE]
    where = rng.choice([*base.writable, base.writable[0] - 8, base.writable[1] - 8,
                        base.program_base, rng.randrange(0, len(base.image), 8),
                        rng.getrandbits(22) & ~7, rng.getrandbits(32)])
    old   = word >> form["beats"].offset & (1 << form["beats"].width) - 1
    beats = rng.choice([old, old, 1, old + 1, rng.randrange(600),
                        _value(rng, old, form["beats"].width)])
    for name, value in (("opcode", Opcode.STORE.value), ("offchip", where), ("beats", beats)):
        word = _replace(word, form[name].offset, form[name].width, value)
    image.put(address, word)
    return f"{_named(engine, index)} stores {beats} beats to {where & 0xFFFFFFFF:#x}"


def _waits(image, rng):
    engine, index, address, word = image.pick(rng)
    field = SYNC["waits"]
    size  = Wait.as_shape().size
    waits = [word >> field.offset + k * size & (1 << size) - 1 for k in range(WAITS)]
    other, number, there, theirs = image.pick(rng)
    choice = rng.choice(["none", "swapped", "engine", "count"])
    if choice == "none":
        waits, what = [0] * WAITS, "waits for nothing"
    elif choice == "swapped":
        mask = (1 << field.width) - 1
        mine, its = (x >> field.offset & mask for x in (word, theirs))
        image.put(there, _replace(theirs, field.offset, field.width, mine))
        if there != address:
            image.put(address, _replace(word, field.offset, field.width, its))
        return f"waits of {_named(engine, index)} and {_named(other, number)} swapped"
    else:
        slot = rng.randrange(WAITS)
        part = Wait.as_shape()[choice]
        old  = waits[slot] >> part.offset & (1 << part.width) - 1
        new  = _value(rng, old, part.width)
        waits[slot] = _replace(waits[slot], part.offset, part.width, new)
        what = f"waits in {slot} for {choice} {new} instead of {old}"
    image.put(address, _replace(word, field.offset, field.width,
                                sum(wait << k * size for k, wait in enumerate(waits))))
    return f"{_named(engine, index)} {what}"


def _opcode(image, rng):
    engine, index, address, word = image.pick(rng)
    field = SYNC["opcode"]
    value = rng.randrange(1 << field.width)
    image.put(address, _replace(word, field.offset, field.width, value))
    return f"{_named(engine, index)} has opcode {value}"


def _order(image, rng):
    engine, index, address, word = image.pick(rng)
    choice = rng.choice(["swapped", "again", "lost", "foreign"])
    other, number, there, theirs = image.pick(rng, Engine if choice == "foreign" else [engine])
    if choice == "swapped":
        image.put(address, theirs)
        image.put(there, word)
    elif choice == "lost":
        image.put(address, Opcode.SYNC.value)
        return f"{_named(engine, index)} is a SYNC"
    else:
        image.put(address, theirs)
    return f"{_named(other, number)} {choice} at {_named(engine, index)}"


def _length(image, rng):
    engine, last = image.end(rng)
    field  = HEADER["count"]
    count  = rng.choice([0, 1, last, last + 2, rng.randrange(last + 1), last + rng.randrange(200),
                         (1 << field.width) - 1])
    where  = image.header_at(engine)
    image.put(where, _replace(image.word(where), field.offset, field.width, count))
    return f"{engine.name} has {count} instructions instead of {last + 1}"


def _header(image, rng):
    engine = rng.choice(list(Engine))
    where  = image.header_at(engine)
    word   = image.word(where)
    if rng.random() < 0.5:
        bit = rng.randrange(HEADER.size)
        image.put(where, word ^ 1 << bit)
        return f"bit {bit} of the header of {engine.name}"
    name, offset, width = rng.choice(list(_leaves(HEADER)))
    value = _value(rng, word >> offset & (1 << width) - 1, width)
    if name == "address" and rng.random() < 0.7:
        value = rng.randrange(0, len(image.bytes), INSTRUCTION_BYTES)
    image.put(where, _replace(word, offset, width, value))
    return f"{name} of the header of {engine.name} is {value}"


def _base(image, rng):
    mutant = image.mutant
    mutant.program_base = rng.choice([
        0, mutant.program_base + INSTRUCTION_BYTES, mutant.program_base + 4,
        mutant.program_base - INSTRUCTION_BYTES, rng.getrandbits(32),
        rng.randrange(0, len(image.bytes), INSTRUCTION_BYTES)]) & 0xFFFFFFFF
    return f"PROGRAM_BASE is {mutant.program_base:#x}"


def _data(image, rng):
    """Weights, parameters, tables and frames, which are no instructions: whatever they hold."""
    base  = image.mutant.base
    spans = [(0, base.writable[0]), (base.writable[1], base.program_base)]
    first, stop = rng.choice([span for span in spans if span[0] < span[1]])
    start = rng.randrange(first, stop)
    size  = min(stop - start, rng.choice([1, 8, 64, 4096]))
    image.bytes[start:start + size] = rng.randbytes(size)
    return f"{size} bytes of data from {start:#x} are noise"


def _many(image, rng):
    count = rng.randrange(2, 12)
    return "; ".join(rng.choice([_bits, _field, _waits, _order])(image, rng)
                     for _ in range(count))


KINDS = {
    "bits":         _bits,
    "noise":        _garbage,
    "field":        _field,
    "store":        _store,
    "waits":        _waits,
    "opcode":       _opcode,
    "order":        _order,
    "length":       _length,
    "header":       _header,
    "program base": _base,
    "data":         _data,
    "many at once": _many,
}
"""What is spoiled, by name."""
