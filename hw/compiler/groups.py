"""Which passes a unit runs together, with all their weights resident, rows passing from one to
the next."""

from dataclasses import dataclass

from hw.compiler.lend import able, by_rows, shares, tied
from hw.compiler.ops import UNPARKED
from hw.compiler.unit import MOST_GROUPS
from hw.isa import LAYER_SLOTS

MAX_PASSES = 8


@dataclass(frozen=True, eq=False)
class Group:
    """Passes of one unit. ``stays``: their weights fit together, so that rows can be pulled
    through them; else there is one pass, whose weights stream through the unit. ``inside`` are the
    tensors that nobody else reads, which never leave row memory. ``lenders`` are other units that
    compute a share of it: of its rows if it stays, else of its output channels. Then nothing is
    inside; what is handed on passes through shared memory."""
    unit:    str
    passes:  tuple
    stays:   bool
    inside:  tuple
    lenders: tuple = ()

    @property
    def name(self):
        return " and ".join(item.name for item in self.passes)

    @property
    def last(self):
        """The last of its own unit's passes."""
        return [item for item in self.passes if item.unit == self.unit][-1]


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
    if machine.schedule.lend:
        done = _read_in_passing(machine, done)
    if machine.schedule.sparing:
        done = _made_in_passing(machine, done)
    order = {item: index for index, item in enumerate(network.passes)}
    return sorted(done, key=lambda found: order[found.last])


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
    stays  = _fits(machine, run)
    if machine.schedule.lend:
        stays, lenders = _lenders(machine, run, stays)
        if lenders:
            return Group(name, tuple(run), stays, (), lenders)
    return Group(name, tuple(run), stays, inside)


def _handed_on(network, readers, item, run):
    """Whether the one reader of a tensor is a pass of ``run`` that takes its rows as they are:
    rows in row memory can be neither pooled nor upsampled nor gated, and columns that are
    interpolated are neither written nor read as rows are."""
    name  = item.tensor.name
    found = readers.get(name, [])
    return (name not in network.outputs and not item.alpha and len(found) == 1 and found[0] in run
            and not item.columns and not found[0].columns
            and [leaf for operand in found[0].operands
                 for leaf in network.leaves(operand)].count(name) == 1)


def _fits(machine, run, name=None):
    """Whether the passes can be resident together, in their unit or in that called ``name``."""
    unit = machine.units[name or run[0].unit]
    run  = [piece for item in run for piece in shares(item)]
    words, params = unit.words(run)
    return (words <= unit.config.weight_words and params <= unit.config.params
            and sum(len(item.parts) for item in run) <= LAYER_SLOTS
            and len({bytes(item.table.numpy()) for item in run if item.table is not None}) <= 1
            and all(unit.packed(item, part).groups <= MOST_GROUPS
                    for item in run for part in item.parts)
            and machine.least_rows(run, unit) <= unit.config.row_words)


def _joins(machine, network, readers, run, item):
    """Whether a pass continues the run of its unit: everything fits, and it takes on the rows
    that the run makes, or what takes both on follows soon. A map that others read as well is
    finished first, unless it is spilled and its rows are best used while they pass by. What
    interpolates columns hands on nothing, and rings of rows beside it would take much memory."""
    if (len(run) >= MAX_PASSES or item.columns or run[-1].columns
            or not _fits(machine, [*run, item])):
        return False
    linked = [made for made in run if made.tensor.name in sources(network, item)]
    if machine.schedule.lend and not (
            linked and all(by_rows(machine, made) for made in (*run, item))
            and not any(leaf in machine.spill for operand in run[0].operands
                        for leaf in network.leaves(operand))):
        return False
    if linked:
        return all(_handed_on(network, readers, made, [*run, item])
                   or made.tensor.name in machine.spill
                   or made.tensor.name.endswith(UNPARKED) for made in linked)
    after = network.passes[network.passes.index(item) + 1:][:2]
    return any(_handed_on(network, readers, item, [reader])
               and any(_handed_on(network, readers, made, [reader]) for made in run)
               for reader in after if reader.unit == item.unit)


def _lenders(machine, run, stays):
    """Whether passes that might ``stay`` in their own unit stay in all that share them, and the
    names of those beside it."""
    pieces = [piece for item in run for piece in shares(item)]
    if all(tied(machine, piece) for piece in pieces):
        return stays, ()
    if run[0].depthwise and not stays:
        return stays, ()            # its channels are not dealt
    stays = stays and (len(run) > 1 or run[0].depthwise)
    return stays, tuple(name for name in machine.units if name != run[0].unit and (
        _lends(machine, run, name, stays)))


def _lends(machine, run, name, stays):
    """Whether a unit has room for all that it can run of passes, which are all dense ones that are
    shared at all: of some of them, others would wait for the rest."""
    if not all(able(machine, item, name) for item in run
               if not item.depthwise and not tied(machine, item)):
        return False
    mine = [piece for item in run for piece in shares(item) if able(machine, piece, name)]
    return mine != [] and (
        _fits(machine, mine, name) if stays
        else machine.least_rows(mine, machine.units[name]) <= machine.units[name].config.row_words)


def _read_in_passing(machine, groups):
    """The groups, where a pass of its own that reads a spilled map, and nothing that is made later,
    has joined the group that makes it: it then reads the rows while they are on chip."""
    network, found = machine.network, list(groups)
    for reader in groups:
        item = reader.passes[0]
        for maker in found:
            made   = {made.tensor.name for made in maker.passes}
            joined = (*maker.passes, item)
            if (maker is not reader and len(reader.passes) == 1 and reader.lenders
                    and by_rows(machine, item) and maker.lenders and maker.stays
                    and set(sources(network, item)) <= made & machine.spill
                    and all(_fits(machine, joined, name) for name in machine.units)):
                found.remove(reader)
                found[found.index(maker)] = Group(maker.unit, joined, True, (), maker.lenders)
                break
    return _beside(machine, found)


def _beside(machine, groups):
    """The groups, where depthwise passes of the attention unit, and what is made of them, have
    joined the decoder's group that makes what they read: nobody else runs them, so everybody would
    wait for them."""
    network, found = machine.network, list(groups)
    order = {item: index for index, item in enumerate(network.passes)}
    for reader in groups:
        if not (reader.stays and any(item.depthwise for item in reader.passes)):
            continue
        needed = {source for item in reader.passes for source in sources(network, item)}
        makers = [other for other in found if other is not reader
                  and needed & {item.tensor.name for item in other.passes}]
        maker  = max(makers, key=lambda other: order[other.last], default=reader)
        joined = (*maker.passes, *reader.passes)
        if (reader.unit == "attention" and maker.unit == "decoder" and maker.stays and maker.lenders
                and len(joined) <= LAYER_SLOTS and all(
                    _fits(machine, [piece for item in joined for piece in shares(item)
                                    if able(machine, piece, name)], name)
                    for name in machine.units)):
            found.remove(reader)
            found[found.index(maker)] = Group(maker.unit, joined, True, (), maker.lenders)
    return found


def _made_in_passing(machine, groups):
    """The groups, where a pass that makes a spilled map has joined the group of its unit that reads
    it, if nobody else reads it but for attention maps that the gate of that group asks for:
    everyone then reads the rows while they are on chip."""
    network, found = machine.network, list(groups)
    readers = readers_of(network)
    order   = {item: index for index, item in enumerate(network.passes)}

    def asked(user, item, joined):
        """Whether a group makes its rows for that which ``item`` is to join, and nobody finishes it
        before: another group of its unit, or the first of the decoder."""
        others = [other for other in found if other is not joined and other.passes != (item,)]
        return (pulled(machine, user)
                and all(set(readers[made.tensor.name]) <= {*user.passes, *joined.passes}
                        for made in user.passes)
                and any(other.unit == "decoder" and order[other.last] < order[user.last]
                        for other in others)
                and not any(other.unit == user.unit
                            and order[user.last] < order[other.last] < order[joined.last]
                            for other in others))

    def regrouped(old, passes):
        new = [_group(machine, network, readers, old.unit, passes)] if passes else []
        found[found.index(old):found.index(old) + 1] = new

    for item in [item for item in network.passes if item.tensor.name in machine.spill]:
        maker  = next(other for other in found if item in other.passes)
        users  = [other for other in found
                  if set(other.passes) & set(readers.get(item.tensor.name, ()))]
        joined = next((other for other in users if other.unit == maker.unit), maker)
        if (joined is not maker and maker.stays and joined.stays and item is maker.passes[-1]
                and all(other is joined or asked(other, item, joined) for other in users)
                and _fits(machine, [item, *joined.passes])):
            regrouped(joined, [item, *joined.passes])
            regrouped(maker, list(maker.passes[:-1]))
    return found


def pulled(machine, group):
    """Whether rows of a group are made as a gate asks for them; where units lend it is run to its
    end, since meanwhile it would hold the maps that it reads."""
    return group.stays and not group.lenders and not machine.schedule.lend and all(
        machine.readers.get(item.tensor.name) == {"gate"} for item in group.passes
        if item.tensor.name not in group.inside)
