"""From the integer graph to the stages that the units run: what is fused with what, and where."""

from dataclasses import dataclass

from golden import integer
from hw.compiler.errors import CompileError


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution as the hardware runs it, with the id that its instructions carry.

    ``operands`` are the channel counts of the tensors side by side in its input; ``table`` is
    looked up after requantisation; ``tensor`` is what taps of this id must equal.
    """
    id:        int
    conv:      integer.Conv
    operands:  tuple
    tensor:    integer.Tensor
    source:    integer.Tensor
    table:     object = None
    summed:    int    = 1       # operands of a preceding Add, each read by its own tap row

    @property
    def name(self):
        return self.conv.name

    @property
    def channels(self):
        return self.conv.weight.shape[0]

    @property
    def kernel(self):
        return self.conv.weight.shape[2] * self.summed, self.conv.weight.shape[3]


@dataclass(frozen=True, eq=False)
class Move:
    """A tensor made while data move (pooling, upsampling, gating): it has an id for its taps."""
    id:     int
    tensor: integer.Tensor


@dataclass(frozen=True, eq=False)
class EncoderLevel:
    pool: Move | None       # None on the first level, which reads the frame
    a:    Layer
    b:    Layer


@dataclass(frozen=True, eq=False)
class DecoderStage:
    normal: Layer
    down:   Layer
    learn:  Layer           # with the sigmoid's table: alpha
    gate:   integer.Gate
    gated:  Move
    up:     Move
    a:      Layer
    b:      Layer


@dataclass(frozen=True, eq=False)
class Network:
    """An attention U-Net. ``levels`` run from the frame down, the last one being the encoding;
    ``stages`` from the encoding up, stage i gating the output of level ``-2 - i``."""
    graph:  integer.IntegerGraph
    levels: tuple
    stages: tuple
    head:   Layer

    @property
    def layers(self):
        """Everything that has an id, in the order of the ids."""
        found = []
        for level in self.levels:
            found += [level.pool, level.a, level.b]
        for stage in self.stages:
            found += [stage.normal, stage.down, stage.learn, stage.gated, stage.up, stage.a,
                      stage.b]
        found = [item for item in [*found, self.head] if item is not None]
        return sorted(found, key=lambda item: item.id)


def lower(graph):
    """The stages of ``graph``.

    Raises
    ------
    CompileError
        If a layer has no place in an attention U-Net; names the layer and what was expected.
    """
    return _Walk(graph).network()


class _Walk:
    """Consumes the graph's layers in order, each against what must come next."""

    def __init__(self, graph):
        self.graph  = graph
        self.layers = list(graph.layers)
        self.next_id = 1

    def take(self, kind, why):
        if not self.layers or not isinstance(self.layers[0], kind):
            found = (f"{type(self.layers[0]).__name__} {self.layers[0].name!r}" if self.layers
                     else "the end")
            raise CompileError(f"Network {self.graph.network!r} has {found} where {why} needs a "
                               f"{kind.__name__}; the compiler runs attention U-Nets built like "
                               "elec4848")
        return self.layers.pop(0)

    def peek(self, kind):
        return bool(self.layers) and isinstance(self.layers[0], kind)

    def id(self):
        self.next_id += 1
        return self.next_id - 1

    def conv(self, why, *, operands=None, kernels=((3, 3),), strides=(1,), table=False, summed=1):
        conv = self.take(integer.Conv, why)
        source = self.graph.tensors[conv.input]
        kernel = tuple(conv.weight.shape[2:])
        if kernel not in kernels:
            raise CompileError(f"Layer {conv.name!r} has a {kernel[0]}x{kernel[1]} kernel; {why} "
                               f"runs {' or '.join(f'{h}x{w}' for h, w in kernels)}")
        if conv.stride not in strides:
            raise CompileError(f"Layer {conv.name!r} has stride {conv.stride}; {why} runs "
                               f"{' or '.join(map(str, strides))}")
        lookup = self.take(integer.Lookup, why) if table else None
        tensor = self.graph.tensors[lookup.name if lookup else conv.name]
        return Layer(self.id(), conv, operands or (source.channels,), tensor, source,
                     lookup.table if lookup else None, summed)

    def move(self, kind, why):
        layer = self.take(kind, why)
        return layer, Move(self.id(), self.graph.tensors[layer.name])

    def network(self):
        self.take(integer.Input, "the frame")
        levels = []
        while not levels or self.peek(integer.MaxPool):
            pool = self.move(integer.MaxPool, "a level")[1] if levels else None
            levels.append(EncoderLevel(pool, self.conv("an encoder level"),
                                       self.conv("an encoder level")))
        stages = []
        while len(stages) < len(levels) - 1:
            stages.append(self.stage(levels[-2 - len(stages)].b.tensor))
        head = self.conv("the head", kernels=((1, 1),), table=True)
        if self.layers:
            self.take(type(None), "nothing more")
        return Network(self.graph, tuple(levels), tuple(stages), head)

    def stage(self, skip):
        normal = self.conv("a gate")
        down   = self.conv("a gate", strides=(2,))
        if down.conv.input != skip.name:
            raise CompileError(f"Layer {down.name!r} reads {down.conv.input!r}; this gate's skip "
                               f"is {skip.name!r}")
        self.take(integer.Add, "a gate")
        learn  = self.conv("a gate", kernels=((1, 1),), table=True, summed=2)
        gate, gated = self.move(integer.Gate, "a gate")
        _, up  = self.move(integer.Upsample, "a decoder stage")
        concat = self.take(integer.Concat, "a decoder stage")
        if concat.inputs != (up.tensor.name, gated.tensor.name):
            raise CompileError(f"Layer {concat.name!r} joins {', '.join(concat.inputs)}; the "
                               f"decoder joins {up.tensor.name}, {gated.tensor.name}")
        a = self.conv("a decoder stage",
                      operands=(up.tensor.channels, gated.tensor.channels))
        b = self.conv("a decoder stage")
        return DecoderStage(normal, down, learn, gate, gated, up, a, b)
