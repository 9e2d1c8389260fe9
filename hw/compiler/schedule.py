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
    above  = None       # the level whose rows are still to be pulled by this one
    for index, level in enumerate(levels):
        stays  = unit.stays(level.a, level.b)
        block  = 1 if stays else block_rows(machine, level, feedback=False)
        result = machine.map(level.b.tensor, unit=unit, frame=frame, layer=level.b.id, block=block)
        fill   = unit_fill(unit, level, source)
        # A spilled map is best consumed while its rows pass by: fuse with the next level.
        fused  = above is None and result.spilled and can_fuse(unit, levels[index:index + 2])
        if stays and above is None:
            pair = levels[index:index + 2] if fused else [level]
            unit.gather(*(layer for one in pair for layer in (one.a, one.b)))
        if stays:
            rings = 4 if fused or above is not None else 2
            pull_rows(machine, unit, level, fill, result, budget=unit.config.row_words // rings)
        else:
            stream_weights(machine, unit, level, fill, result, block, feedback=None)
        above = level if fused else None
        if not fused:
            result.ensure(level.b.tensor.height - 1)
            unit.release()
            for consumed in maps:
                consumed.evict()
        maps.append(result)
        source = result
    return maps


def can_fuse(unit, pair):
    """Whether two levels fit the unit together: their weights, and the rows under their windows."""
    layers = [layer for level in pair for layer in (level.a, level.b)]
    return (len(pair) == 2 and unit.stays(*layers)
            and sum(map(unit.window_words, layers)) <= unit.config.row_words)


def unit_fill(unit, level, source):
    if level.pool is None:
        return unit.filling(source)
    return unit.filling(source, mode=FillMode.POOL, tap=level.pool.id)
