"""The order of work: which stage, tile and row each engine does next.

Shallow levels run *weights stay, rows stream*: both convolutions of a level are resident, and rows
are pulled through them on demand. Deep levels run *map stays, weights stream*: output channels in
tiles, each tile over the whole map, or where memory is short over blocks of its rows.

Frame n+1 is encoded, and its first gate computed, before the last decoder stage of frame n in every
stream that they share.
"""

from hw.compiler.decoder import decode
from hw.compiler.gate import Gate, first_gate
from hw.compiler.levels import block_rows, pull_rows, stream_weights
from hw.compiler.machine import FrameRows
from hw.isa import FillMode


def emit_frames(machine):
    """Emit every frame."""
    encoded = encode(machine, 0)
    alpha   = first_gate(machine, encoded)
    for frame in range(machine.frames):
        previous, stages = encoded[-1], len(machine.network.stages)
        for index in range(stages):
            skip = encoded[stages - 1 - index]
            if index == stages - 1 and frame + 1 < machine.frames and machine.overlap:
                following = encode(machine, frame + 1)
                first     = first_gate(machine, following)
            if index:
                alpha = Gate(machine, index, skip, previous)
            result = decode(machine, index, frame, previous, skip, alpha)
            alpha.free()
            previous.free()
            skip.free()
            previous = result
        if frame + 1 < machine.frames and not machine.overlap:
            following = encode(machine, frame + 1)
            first     = first_gate(machine, following)
        if frame + 1 < machine.frames:
            encoded, alpha = following, first


def encode(machine, frame):
    """Emit the encoder's passes over one frame; returns the maps c1, c2, .. encoding."""
    unit, levels = machine.units["encoder"], machine.network.levels
    maps   = []
    source = FrameRows(machine, frame)
    chain  = []     # levels whose rows are still to be pulled by the level below them
    for index, level in enumerate(levels):
        stays  = unit.stays(level.a, level.b)
        block  = 1 if stays else block_rows(machine, level, feedback=False)
        result = machine.map(level.b.tensor, unit=unit, frame=frame, layer=level.b.id, block=block)
        fill   = unit_fill(unit, level, source)
        # A spilled map is best consumed while its rows pass by: fuse with the next level.
        below  = levels[index + 1:index + 2]
        group  = [layer for one in [*chain, level, *below] for layer in (one.a, one.b)]
        fused  = (bool(below) and result.spilled and unit.stays(*group)
                  and sum(map(unit.window_words, group)) <= unit.config.row_words)
        if stays and not chain:
            unit.gather(*(group if fused else (level.a, level.b)))
        share  = 2 * (len(chain) + 2 if fused else len(chain) + 1)
        if stays:
            pull_rows(machine, unit, level, fill, result, budget=unit.config.row_words // share)
        else:
            stream_weights(machine, unit, level, fill, result, block, feedback=None)
        chain = [*chain, level] if fused else []
        if not fused:
            result.ensure(level.b.tensor.height - 1)
            unit.release()
            for consumed in maps:
                consumed.evict()
        maps.append(result)
        source = result
    return maps


def unit_fill(unit, level, source):
    if level.pool is None:
        return unit.filling(source)
    return unit.filling(source, mode=FillMode.POOL, tap=level.pool.id)
