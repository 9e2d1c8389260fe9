"""The decoder's part of a stage: from the gate and the previous output to the next, or the mask."""

from hw.compiler.emit import Span
from hw.compiler.levels import block_rows, pull_rows, stream_weights
from hw.compiler.maps import Ring
from hw.compiler.pack import pack_requant
from hw.compiler.unit import Layer
from hw.isa import Engine, FillMode, LoadTarget, Opcode, Target, Traffic


def decode(machine, index, frame, previous, skip, alpha):
    """Emit one decoder stage; returns its map. The last one ends in the mask, and has none."""
    unit, stage = machine.units["decoder"], machine.network.stages[index]
    result = decode_rows(machine, unit, stage, index, frame, previous, skip, alpha)
    alpha.finish()
    unit.release()
    machine.release_gate()
    return result


def decode_rows(machine, unit, stage, index, frame, previous, skip, alpha):
    last  = index == len(machine.network.stages) - 1
    fill  = concat_rows(machine, unit, stage, previous, skip, alpha)
    head  = [machine.network.head] if last else []
    stays = unit.stays(stage.a, stage.b, *head)
    if stays:
        unit.gather(stage.a, stage.b, *head)
    if last and stays:
        pull_rows_to_mask(machine, unit, stage, fill, frame)
        return None
    block  = 1 if stays else block_rows(machine, stage, feedback=True)
    # A stage's input and output live side by side: successive ones at opposite ends.
    here, there = ("top", "bottom") if (len(machine.network.stages) - index) % 2 == 0 else (
        "bottom", "top")
    result = machine.map(stage.b.tensor, unit=unit, frame=frame, layer=stage.b.id, block=block,
                         feedback=here)
    if stays:
        pull_rows(machine, unit, stage, fill, result, budget=unit.config.row_words // 3)
        result.ensure(stage.b.tensor.height - 1)
    else:
        stream_weights(machine, unit, stage, fill, result, block, feedback=there)
    if last:
        head_layer = machine.network.head
        rows = unit.ring(result.tensor.height, unit.row_words(result.tensor.width, result.vectors),
                         unit.filling(result), budget=unit.config.row_words // 2, least=1,
                         what=f"Input of {head_layer.name}")
        mask_rows(machine, unit, frame, rows)
        result.free()
        return None
    return result


def concat_rows(machine, unit, stage, previous, skip, alpha):
    """A ``produce`` for rows of [upsampled previous output, gated skip]."""
    up_vectors, skip_vectors = previous.vectors, skip.vectors
    stride = up_vectors + skip_vectors
    lanes  = machine.config.gate_lanes
    count  = skip_vectors * machine.config.vector
    params = machine.place_once(
        pack_requant(stage.gate.name, stage.gate.bias.numpy(), stage.gate.multiplier,
                     stage.gate.shift, channels=count, vector=machine.config.vector),
        f"parameters of {stage.gate.name}")
    base = machine.gates.take(count // lanes, f"Gate {stage.gate.name!r}")
    held = Span("gate.params", base, base + count // lanes)
    machine.emitter.emit(
        Engine.LOAD_ATTENTION, Opcode.LOAD,
        {"traffic": Traffic.WEIGHTS, "target": LoadTarget.GATE_PARAMS, "offchip": params,
         "beats": count, "base": base}, layer=stage.gated.id, writes=[held])
    machine.charge(stage.gated.id, count)
    up = unit.filling(previous, mode=FillMode.UP, tap=stage.up.id, stride=stride)
    tapped = set()

    def produce(y, address, span):
        up(y, address, span)
        alpha_address, alpha_span = alpha.get(y // 2)
        _, skip_address, skip_span = skip.get(y, Engine.LOAD_ATTENTION)
        machine.emitter.emit(
            Engine.GATE, Opcode.GATE,
            {"skip_base": skip_address, "alpha_base": alpha_address, "width": skip.tensor.width,
             "vectors": skip_vectors, "param_base": base, "dst_base": address,
             "dst_stride": stride, "dst_vector": up_vectors, "zero_out": stage.gate.zero_point,
             "low": stage.gate.low, "high": stage.gate.high},
            layer=0 if y in tapped else stage.gated.id, row=y,
            reads=[skip_span, alpha_span, held], writes=[span])
        tapped.add(y)

    return produce


def pull_rows_to_mask(machine, unit, stage, fill, frame):
    """The last stage, weights staying: conv a -> conv b -> head, rows never leaving the unit."""
    height, width = stage.b.tensor.height, stage.b.tensor.width
    vectors = machine.vectors(stage.b.channels)
    inside  = RowOutput(unit, height, unit.row_words(width, vectors), vectors, stage.b.name)
    pull_rows(machine, unit, stage, fill, inside, budget=unit.config.row_words // 3)
    mask_rows(machine, unit, frame, inside.ring)


class RowOutput:
    """A result in the unit's own row memory, in the shape :func:`pull_rows` writes to."""

    source = None

    def __init__(self, unit, height, row_words, vectors, name):
        self.vectors  = vectors
        self.producer = None
        self.ring     = unit.ring(height, row_words, self._produce, budget=2 * row_words, least=1,
                                  what=f"Output of {name}")

    def _produce(self, y, _address, _span):
        self.producer(y)

    def claim(self, y):
        return self.ring.claim(y)

    def stored(self, y):
        pass


def mask_rows(machine, unit, frame, rows):
    """Emit the head over ``rows``: one row of the mask after another, to off-chip memory."""
    head   = machine.network.head
    height = head.tensor.height
    conv   = Layer(unit, head, Target.ONCHIP, out_vectors=1, packed=True)
    conv.load()
    words  = machine.mask_words
    ring   = Ring("onchip", machine.mask_at, words, machine.mask_slots)
    for y in range(height):
        window = conv.window(rows, y)
        address, span = ring.claim(y)
        conv.row(y, window, address, [span])
        offchip = machine.masks_at + frame * machine.mask_bytes + y * words * machine.config.vector
        machine.emitter.emit(
            Engine.STORE_DECODER, Opcode.STORE,
            {"traffic": Traffic.MASK, "offchip": offchip, "beats": words, "base": address,
             "frame_end": y == height - 1},
            layer=head.id, row=y, reads=[span])
        machine.charge(head.id, words)
