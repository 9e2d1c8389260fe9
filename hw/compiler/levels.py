"""Two convolutions in a row, in the two orders: weights stay and rows stream, or the reverse."""

from hw.compiler.maps import Map
from hw.compiler.unit import TARGETS, Layer
from hw.isa import Target

MIN_BLOCK = 4


def pull_rows(machine, unit, level, fill, result, *, budget):
    """Weights stay: conv a -> conv b row by row; ``result`` gets a producer."""
    vectors_in  = unit.packed(level.a)[0].vectors
    vectors_mid = machine.vectors(level.a.channels)
    a = Layer(unit, level.a, Target.ROW, out_vectors=vectors_mid)
    b = Layer(unit, level.b, TARGETS[result.source], out_vectors=result.vectors)
    a.load()
    b.load()
    height, width = level.a.tensor.height, level.a.tensor.width
    rows = unit.ring(height, unit.row_words(width, vectors_in), fill, budget=budget,
                     what=f"Input of {level.a.name}")

    def make_mid(y, address, span):
        a.row(y, a.window(rows, y), address, [span])

    mid = unit.ring(height, unit.row_words(width, vectors_mid), make_mid, budget=budget,
                    what=f"Input of {level.b.name}")
    result.producer = produce_to(b, mid, result)


def produce_to(layer, rows, result):
    """A producer that runs ``layer`` over ``rows`` into the map ``result``."""
    def produce(y):
        window = layer.window(rows, y)
        address, span = result.claim(y)
        layer.row(y, window, address, [span])
        result.stored(y)
    return produce


def block_rows(machine, level, *, feedback):
    """Rows that a level with streamed weights computes at a time: as many as leave room for
    its intermediate map and its result."""
    height  = level.b.tensor.height
    mid     = machine.row_words(level.a.tensor)
    out     = machine.row_words(level.b.tensor)
    spilled = level.b.tensor.name in machine.spill
    if feedback and height * (mid + (0 if spilled else out)) <= machine.feedback.largest():
        return height
    block = height
    while block > MIN_BLOCK:
        kept = max(block, Map.WRITE_SLOTS) if spilled else height
        if mid_rows(block, height) * mid + kept * out <= machine.onchip.largest():
            break
        block //= 2
    return block


def mid_rows(block, height):
    """Rows kept between two 3x3 convolutions that run ``block`` rows at a time."""
    return height if block == height else min(block + 2, height)


def stream_weights(machine, unit, level, fill, result, block, *, feedback):
    """Map stays: conv a over a block of rows, tile after tile, then conv b likewise."""
    height = level.a.tensor.height
    mid = machine.ring_map(level.a.tensor, mid_rows(block, height), unit=unit, layer=level.a.id,
                           feedback=feedback)
    first  = Tiled(unit, level.a, fill, mid)
    second = Tiled(unit, level.b, unit.filling(mid), result)
    for start in range(0, height, block):
        stop = min(start + block, height)
        first.rows(min(stop + 1, height))
        second.rows(stop)
    mid.free()


class Tiled:
    """One convolution whose weights stream through the unit for every block of rows."""

    def __init__(self, unit, layer, fill, result):
        row = unit.row_words(layer.source.width, unit.packed(layer)[0].vectors)
        self.ring   = unit.ring(layer.source.height, row, fill, budget=unit.config.row_words // 2,
                                what=f"Input of {layer.name}")
        self.conv   = Layer(unit, layer, TARGETS[result.source], out_vectors=result.vectors)
        self.result = result

    def rows(self, stop):
        """Make the rows up to ``stop`` that are not made yet."""
        def place(y):
            address, span = self.result.claim(y)
            return address, [span]

        self.conv.tiles(self.ring, range(self.result.made, stop), place, self.result.stored)
        self.result.made = stop
