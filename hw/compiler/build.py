"""From graph to program: find the plan that fits and costs least."""

from golden import integer
from hw.compiler.errors import CompileError
from hw.compiler.estimate import estimate
from hw.compiler.lower import Layer, lower
from hw.compiler.machine import Machine
from hw.compiler.program import Program, TapLayer
from hw.compiler.schedule import emit_frames


def compile_network(graph, config, *, frames=1):
    """Compile ``graph`` for ``config`` and a stream of ``frames`` frames.

    Tries plans that spill nothing, then ever more of the largest skip maps and of the decoder's
    outputs, and takes the first that the next one does not improve: where on-chip memory is nearly
    full, weights are fetched once per block of rows, and spilling a map may save more than it
    costs. Frames overlap unless no such plan fits.

    Raises
    ------
    CompileError
        If a layer is unsupported, or no plan fits; the message is that of the plan that spills
        most.
    """
    if frames < 1:
        raise CompileError(f"Number of frames must be positive, not {frames!r}")
    network = lower(graph)
    for overlap in (True, False) if frames > 1 else (True,):
        best, error = None, None
        for spill in plans(network):
            try:
                machine = Machine(network, config, frames, spill, overlap)
                emit_frames(machine)
            except CompileError as reason:
                error = reason
                continue
            cost = estimate(machine.emitter, config)[-1] + sum(machine.beats.values())
            if best is not None and cost >= best[0]:
                break
            best = cost, machine
        if best is not None:
            return finish(best[1])
    raise error


def plans(network):
    """Sets of tensors to spill, smallest first."""
    skips   = [level.b.tensor.name for level in network.levels[:-1]]
    outputs = [stage.b.tensor.name for stage in reversed(network.stages)][1:]
    order   = skips[:1] + [name for pair in zip(skips[1:], outputs, strict=True) for name in pair]
    return [frozenset(order[:count]) for count in range(len(order) + 1)]


def finish(machine):
    """Assemble the streams and describe the result."""
    network, config, image = machine.network, machine.config, machine.image
    base    = image.reserve(0, "program")
    program = machine.emitter.assemble(base)
    image.place(program, "program")
    macs    = integer.macs(network.graph)
    frame, mask = network.graph.tensors[network.graph.input], network.head.tensor
    return Program(
        image=bytes(image.data), program_base=base, program_bytes=len(program),
        frames=machine.frames,
        layers=tuple(describe(item, macs) for item in network.layers),
        layer_bytes={layer: beats * config.vector for layer, beats in machine.beats.items()},
        compulsory_bytes=len(program) + machine.frames * (
            parameter_bytes(network) + frame.channels * frame.height * frame.width
            + mask.height * mask.width),
        estimated_cycles=estimate(machine.emitter, config)[-1],
        occupancy={"onchip_capacity": config.onchip_bytes + config.feedback_bytes,
                   "onchip_peak": (machine.onchip.footprint + machine.feedback.footprint)
                   * config.vector,
                   "offchip_peak": image.end},
        spilled=tuple(sorted(machine.spill)),
        frames_at=machine.frames_at, frame_bytes=machine.frame_bytes,
        masks_at=machine.masks_at, mask_bytes=machine.mask_bytes,
        mask_row_bytes=machine.mask_words * config.vector,
        mask_height=mask.height, mask_width=mask.width)


def describe(item, macs):
    tensor = item.tensor
    if isinstance(item, Layer):
        return TapLayer(item.id, item.name, item.conv.unit, macs[item.name], tensor.name,
                        tensor.channels, tensor.height, tensor.width)
    unit = {"p": "encoder", "g": "attention", "d": "decoder"}[tensor.name[0]]
    return TapLayer(item.id, tensor.name, unit, 0, tensor.name, tensor.channels, tensor.height,
                    tensor.width)


def parameter_bytes(network):
    """Weights of one byte, 8 bytes of requantisation per channel, and the sigmoid tables."""
    total, tables = 0, set()
    for layer in network.layers:
        if isinstance(layer, Layer):
            total += layer.conv.weight.numel() + 8 * layer.channels
            if layer.table is not None:
                tables.add(bytes(layer.table.numpy()))
    return total + sum(8 * len(stage.gate.bias) for stage in network.stages) + 256 * len(tables)
