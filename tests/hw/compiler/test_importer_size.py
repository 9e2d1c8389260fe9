"""Importing takes work in proportion to a network's layers: operations are counted, not seconds."""

import random
import sys

import pytest

from golden.integer import Concat, Gate, Input, MaxPool
from hw.compiler.importer import import_onnx, place
from tests.hw.compiler.onnx_models import Model

LAYERS  = 60
LARGER  = 4             # times as many
GROWTH  = 1.1           # of the operations for each layer
EACH    = 2500          # operations for a layer


def residual(small, x):
    y = small.node("Relu", small.conv(x, (4, 4, 1, 1)))
    return small.quantised(small.node("Add", small.quantised(y), x))


def gate(small, x):
    alpha = small.quantised(small.node("Sigmoid", small.quantised(small.conv(x, (1, 4, 1, 1)))),
                            1 / 256, 0)
    return small.quantised(small.node("Mul", alpha, x))


def table(small, x):
    return small.quantised(small.node("Tanh", x))


def product(small, x):
    return small.quantised(small.node("Mul", small.quantised(small.node("Sigmoid", x)), x))


def one_name(small, x):
    """Names are made of others', and all of these would be called the same."""
    return small.quantised(small.node("Identity", x), 0.02 + len(small.nodes) * 1e-5,
                           name=f"part/act_quant/{len(small.nodes)}")


def operations(part, count):
    """How many calls importing ``count`` parts in a row takes, and its layers."""
    small = Model()
    x = small.quantised(small.conv(small.image(), (4, 3, 1, 1)))
    for _ in range(count):
        x = part(small, x)
    model, calls = small.output(x).model(), 0

    def counted(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")
    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        imported = import_onnx("small.onnx", model=model)
    finally:
        sys.setprofile(before)
    return calls, len(imported.graph.layers)


@pytest.mark.parametrize("part", [residual, gate, table, product, one_name])
def test_operations_grow_with_the_layers(part):
    operations(part, 2)                         # what is done once in a process
    few,  layers = operations(part, LAYERS)
    many, more   = operations(part, LARGER * LAYERS)
    assert more > 3 * layers
    assert many / more < GROWTH * few / layers
    assert many < EACH * more


# Which tensors only attention maps need, against the definition.

def cones(layers, outputs):
    by_name = {layer.name: layer for layer in layers}

    def above(names, without=None):
        seen, open_ = set(), [name for name in names if name != without]
        while open_:
            name = open_.pop()
            if name not in seen:
                seen.add(name)
                open_ += [source for source in by_name[name].inputs if source != without]
        return seen
    return set().union(*(above([layer.alpha]) - above(outputs, layer.alpha) for layer in layers
                         if isinstance(layer, Gate)))


def network(seed):
    """Layers of which every one is needed, and outputs."""
    draw, layers = random.Random(seed), [Input("0")]
    for index in range(1, draw.randrange(4, 40)):
        a, b = (str(draw.randrange(max(0, index - draw.choice((4, 40))), index)) for _ in "ab")
        layers.append(draw.choice((
            Gate(str(index), a, b, None, None, None, 0, 0, 255, "encoder"),
            Concat(str(index), (a, b), "encoder"), MaxPool(str(index), a, "encoder"))))
    outputs = [layers[-1].name, *(draw.choice(layers).name for _ in range(draw.randrange(3)))]
    read = set(outputs)
    for layer in reversed(layers):
        if layer.name in read:
            read.update(layer.inputs)
    return [layer for layer in layers if layer.name in read], tuple(dict.fromkeys(outputs))


def test_what_only_attention_maps_need():
    found = 0
    for seed in range(500):
        layers, outputs = network(seed)
        wanted = cones(layers, outputs)
        assert place._cones(layers, outputs) == wanted, seed
        found += len(wanted) > 3
    assert found > 50
