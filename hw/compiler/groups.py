"""Which passes a unit runs together, with all their weights resident, rows passing from one to
the next."""

from dataclasses import dataclass

from hw.compiler.unit import MOST_GROUPS
from hw.isa import LAYER_SLOTS

MAX_PASSES = 8


@dataclass(frozen=True, eq=False)
class Group:
    """Passes of one unit. ``stays``: their weights fit together, so that rows can be pulled
    through them; else there is one pass, whose weights stream through the unit. ``inside`` are the
    tensors that nobody else reads, which never leave row memory."""
    unit:   str
    passes: tuple
    stays:  bool
    inside: tuple

    @property
    def name(self):
        return " and ".join(item.name for item in self.passes)


def group(machine):
    """The groups of a network, in topological order."""
    network = machine.network
    readers = readers_of(network)
    pending = {name: [] for name in machine.units}      # per unit: the passes of its open run
    done    = []

    def close(name):
        if pending[name]:
            done.append(_group(machine, network, readers, name, pending[name]))
            pending[name] = []

    for item in network.passes:
        for name, run in pending.items():
            # What another unit reads has to be complete in the order of emission.
            if name != item.unit and any(source in _made(run) for source in sources(network, item)):
                close(name)
        run = pending[item.unit]
        if run and not _joins(machine, network, readers, run, item):
            close(item.unit)
            run = pending[item.unit]
        run.append(item)
    for name in pending:
        close(name)
    order = {item: index for index, item in enumerate(network.passes)}
    return sorted(done, key=lambda found: order[found.passes[-1]])


def sources(network, item):
    """Tensors in shared memory, or made by other passes, that a pass needs."""
    return [stored for operand in item.operands for leaf in network.leaves(operand)
            for stored in network.stored(leaf)]


def readers_of(network):
    """Tensor -> the passes that read it, directly or while it is moved."""
    readers = {}
    for item in network.passes:
        for name in sources(network, item):
            readers.setdefault(name, []).append(item)
    return readers


def _made(run):
    return {item.tensor.name for item in run}


def _group(machine, network, readers, name, run):
    inside = tuple(item.tensor.name for item in run if _handed_on(network, readers, item, run))
    return Group(name, tuple(run), _fits(machine, run), inside)


def _handed_on(network, readers, item, run):
    """Whether the one reader of a tensor is a pass of ``run`` that takes its rows as they are:
    rows in row memory can be neither pooled nor upsampled nor gated."""
    name  = item.tensor.name
    found = readers.get(name, [])
    return (name not in network.outputs and not item.alpha and len(found) == 1 and found[0] in run
            and [leaf for operand in found[0].operands
                 for leaf in network.leaves(operand)].count(name) == 1)


def _fits(machine, run):
    """Whether the passes can be resident together."""
    unit = machine.units[run[0].unit]
    words, params = unit.words(run)
    return (words <= unit.config.weight_words and params <= unit.config.params
            and sum(len(item.parts) for item in run) <= LAYER_SLOTS
            and all(unit.packed(item, part).groups <= MOST_GROUPS
                    for item in run for part in item.parts)
            and machine.least_rows(run) <= unit.config.row_words)


def _joins(machine, network, readers, run, item):
    """Whether a pass continues the run of its unit: everything fits, and it takes on the rows
    that the run makes, or what takes both on follows soon. A map that others read as well is
    finished first, unless it is spilled and its rows are best used while they pass by."""
    if len(run) >= MAX_PASSES or not _fits(machine, [*run, item]):
        return False
    linked = [made for made in run if made.tensor.name in sources(network, item)]
    if linked:
        return all(_handed_on(network, readers, made, [*run, item])
                   or made.tensor.name in machine.spill for made in linked)
    after = network.passes[network.passes.index(item) + 1:][:2]
    return any(_handed_on(network, readers, item, [reader])
               and any(_handed_on(network, readers, made, [reader]) for made in run)
               for reader in after if reader.unit == item.unit)
