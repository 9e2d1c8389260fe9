"""Normalisation by a frame's own statistics, frozen to those of the calibration's frames.

The engine has no place for the statistics of a map that is not yet complete. Frozen, instance and
group normalisation are batch normalisation, which the convolution before takes in. What that costs,
``make quantise`` says: how far the masks are from those of the network as it was.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from golden.referee import session
from hw.compiler.importer.file import attributes, needed

__all__ = ["NORMS", "frozen"]

NORMS   = ("InstanceNormalization", "GroupNormalization")
EPSILON = 1e-5          # of both operators


def frozen(model, frames):
    """A copy of ``model`` with batch normalisation in place of instance and group normalisation.

    Mean and variance are the averages over ``frames``, dictionaries of ONNX Runtime's feeds.
    PyTorch's group normalisation, an instance normalisation between two Reshapes, is one of groups.
    """
    found = _norms(model)
    if not found:
        return model
    means, variances = _statistics(model, found, frames)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, constants = changed.graph, _constants(model)
    after = {norm["last"]: norm for norm in found}
    nodes = []
    for node in graph.node:
        if node.output[0] in after:
            norm  = after[node.output[0]]
            count = len(means[norm["source"]]) // norm["groups"] if norm["groups"] else 1
            parts = {"mean": means[norm["source"]], "variance": variances[norm["source"]]}
            for part, name in (("scale", norm["scale"]), ("bias", norm["bias"])):
                value = constants[name].astype(np.float32).reshape(-1)
                parts[part] = value if value.size == len(parts["mean"]) else value.repeat(count)
            names = {part: f"{node.output[0]}_frozen_{part}" for part in parts}
            graph.initializer.extend(numpy_helper.from_array(value, names[part])
                                     for part, value in parts.items())
            nodes.append(helper.make_node(
                "BatchNormalization", [norm["source"], *(names[part] for part in (
                    "scale", "bias", "mean", "variance"))], [node.output[0]],
                f"{node.name}_frozen", epsilon=norm["epsilon"]))
        else:
            nodes.append(node)
    nodes = needed(nodes, [x.name for x in graph.output])
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def _norms(model):
    """What each normalisation reads, makes and has; ``groups`` is None for one of channels."""
    nodes, constants = list(model.graph.node), _constants(model)
    makes  = {name: node for node in nodes for name in node.output}
    reads  = {}
    for node in nodes:
        for name in node.input:
            reads.setdefault(name, []).append(node)
    found = []
    for node in nodes:
        if node.op_type not in NORMS:
            continue
        facts = attributes(node)
        before, after = makes.get(node.input[0]), reads.get(node.output[0], [])
        source, last, groups = node.input[0], node.output[0], facts.get("num_groups")
        if (before is not None and before.op_type == "Reshape" and len(after) == 1
                and after[0].op_type == "Reshape"):
            source, last = before.input[0], after[0].output[0]
            groups = constants[node.input[1]].size
        found.append({"source": source, "last": last, "groups": groups, "scale": node.input[1],
                      "bias": node.input[2], "epsilon": facts.get("epsilon", EPSILON)})
    return found


def _constants(model):
    found = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            value, = (x.t for x in node.attribute if x.name == "value")
            found[node.output[0]] = numpy_helper.to_array(value)
    return found


def _statistics(model, norms, frames):
    """Mean and variance of every channel of what the norms read, averaged over the frames."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    names = list(dict.fromkeys(norm["source"] for norm in norms))
    known = {x.name for x in seen.graph.output}
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    runs  = session(seen)
    means, variances = ({name: 0 for name in names} for _ in range(2))
    groups = {norm["source"]: norm["groups"] for norm in norms}
    for feeds in frames:
        for name, map_NCHW in zip(names, runs.run(names, feeds), strict=True):
            channels = map_NCHW.shape[1]
            count    = groups[name] or channels
            map_GN   = map_NCHW.reshape(count, -1).astype(np.float64)
            means[name]     = means[name] + map_GN.mean(1).repeat(channels // count)
            variances[name] = variances[name] + map_GN.var(1).repeat(channels // count)
    return tuple({name: (total / len(frames)).astype(np.float32) for name, total in part.items()}
                 for part in (means, variances))
