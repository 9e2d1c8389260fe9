"""Numbering of the performance counters: one table for hardware, host driver and report."""

from amaranth.lib import data, enum

from hw.config import MEMORIES
from hw.isa import CONVS, FORMS, Cause, Engine, Opcode, Traffic

COUNTER_BITS   = 16         # of a selector
INDEX_BITS     = 12         # of it: which counter of the group
TIME_BITS      = 40         # of most counters: an hour at 300 MHz
LEDGER_ENGINES = (*CONVS, Engine.GATE)
LEDGER_LAYERS  = 1 << data.Layout.cast(FORMS[Opcode.CONV])["layer"].width    # all of them
FRAME_STAMPS   = 64         # the first frames leave a time stamp each


class Counter(enum.IntEnum, shape=COUNTER_BITS - INDEX_BITS):
    """Groups of counters, each with the indices that :func:`counter_index` takes for it."""
    CYCLES        = 0      # since the start
    CAUSE         = 1      # engine, cause: cycles; the causes of an engine sum to CYCLES
    RETIRED       = 2      # engine: macro instructions, SYNC included
    LAYER         = 3      # engine of LEDGER_ENGINES, layer, LayerField
    FRAME_STARTED = 4      # frame: cycle when its first bytes arrived
    FRAME_ENDED   = 5      # frame: cycle when the last bytes of its mask had landed
    FRAMES        = 6      # 0 started, 1 ended
    READ_BYTES    = 7      # traffic class: from off-chip memory
    WRITTEN_BYTES = 8      # traffic class: to off-chip memory
    BURSTS        = 9      # 0 read, 1 written
    ONCHIP_READS  = 10     # reader port: vectors
    ONCHIP_WRITES = 11     # writer port: vectors
    CORRECTED     = 12     # protected memory: cycles in which it gave a word that it had corrected
    UNCORRECTABLE = 13     # protected memory: .. that could not be


class LayerField(enum.IntEnum, shape=2):
    """What is known of one layer on one engine, of its retired instructions."""
    BUSY   = 0      # cycles from offer to retirement, summed
    ISSUED = 1      # vector instructions
    FIRST  = 2      # cycle when its first instruction was offered
    LAST   = 3      # cycle when its last instruction retired


# Index ranges, each padded to a power of two, so that hardware slices instead of dividing.
_RANGES = {
    Counter.CYCLES:        (),
    Counter.CAUSE:         ((len(Engine), 16), (len(Cause), 8)),
    Counter.RETIRED:       ((len(Engine), 16),),
    Counter.LAYER:         ((len(Engine), len(LEDGER_ENGINES)), (LEDGER_LAYERS, LEDGER_LAYERS),
                            (len(LayerField), 4)),
    Counter.FRAME_STARTED: ((FRAME_STAMPS, FRAME_STAMPS),),
    Counter.FRAME_ENDED:   ((FRAME_STAMPS, FRAME_STAMPS),),
    Counter.FRAMES:        ((2, 2),),
    Counter.READ_BYTES:    ((len(Traffic), 8),),
    Counter.WRITTEN_BYTES: ((len(Traffic), 8),),
    Counter.BURSTS:        ((2, 2),),
    Counter.ONCHIP_READS:  ((16, 16),),
    Counter.ONCHIP_WRITES: ((16, 16),),
    Counter.CORRECTED:     ((len(MEMORIES), 16),),
    Counter.UNCORRECTABLE: ((len(MEMORIES), 16),),
}


def counter_index(counter, *indices):
    """The value for ``COUNTER_SELECT`` that selects ``counter``.

    Parameters
    ----------
    counter : Counter
    *indices : int or enum member
        As the comments of :class:`Counter` say.

    Raises
    ------
    ValueError
        If the number of indices or one of them is wrong, or the layer ledger does not keep the
        engine.
    """
    counter = Counter(counter)
    ranges  = _RANGES[counter]
    if len(indices) != len(ranges):
        raise ValueError(f"Counter {counter.name} takes {len(ranges)} indices, "
                         f"not {len(indices)}")
    total = 0
    for position, (index, (limit, padded)) in enumerate(zip(indices, ranges)):
        index = int(getattr(index, "value", index))
        if not 0 <= index < limit:
            raise ValueError(f"Counter {counter.name} index {position} must be below {limit}, "
                             f"not {index}")
        if counter is Counter.LAYER and position == 0:
            if index not in LEDGER_ENGINES:
                raise ValueError(f"Engine {Engine(index).name} has no layer ledger")
            index = LEDGER_ENGINES.index(index)
        total = total * padded + index
    return counter.value << INDEX_BITS | total
