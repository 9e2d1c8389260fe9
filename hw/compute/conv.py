"""Convolution engine: one output row of one layer per instruction, one MAC step per cycle."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from hw.compute.drain import LATENCY as DRAIN_LATENCY
from hw.compute.drain import Drain
from hw.compute.layer import LAYER, TARGETS, descriptor, impossible
from hw.compute.mac_array import MacArray
from hw.compute.mac_array import latency as array_latency
from hw.compute.row_memory import RowRead
from hw.compute.sequence import MORE_ROWS, StepSequencer
from hw.compute.transform import OUTPUTS, STEPS, PixelTransform, WeightTransform
from hw.compute.weight_memory import WeightMemory
from hw.compute.write import Writer
from hw.interfaces import EngineSignature, load_layout
from hw.isa import LAYER_SLOTS, Cause, Error, Opcode
from hw.memory.protected import memory

MARKERS = data.StructLayout({"valid": 1, "first": 1, "last": 1, "step": range(STEPS)})
"""What goes through the pipeline beside the operands of a step."""


def drain_delay(config, unit):
    """Cycles from the last step of a sum to its end: sequencer, memories and, if pipelined, a
    register behind these, transform, array."""
    return 2 + config.pipelined + unit.transform + array_latency(config.vector)


class ConvEngine(wiring.Component):
    """Runs ``LAYER`` and ``CONV``, bit-exact with :func:`golden.arithmetic.convolve` followed by
    :func:`golden.arithmetic.requantise` and, with ``table``, :func:`golden.arithmetic.lookup`.

    ``LAYER`` and ``ROWS`` take one cycle. ``CONV`` takes one cycle per MAC step, of which there are
    ``ceil(width_out / pixels) * groups * kernel_h * kernel_w * vectors``, plus ``overhead``.
    Depthwise there are ``ceil(width_out / pixels) * groups * kernel_h * ceil(kernel_w / taps)``
    steps, with ``taps = unit.depthwise_taps(stride)``, plus ``depthwise_overhead``; weight lane
    ``o`` of a step holds the channels of its kernel column ``o``, and zeros where the kernel, or a
    step of this stride, has no such column. Kernel rows from the fourth on are those of the last
    ``ROWS``; before the first one they lie outside the map. Transformed there are
    ``ceil(width_out / (2 * pixels)) * groups * kernel_h * (4 * vectors - doubled)`` steps, plus
    ``transform_overhead``.

    The array waits for the drain if a sum has fewer steps than there are ``pixels`` (depthwise:
    ``pixels * vector / drain``; transformed: ``2 * pixels``), and for a memory that refuses writes
    long enough. Every cycle is ``ISSUE`` (one step), or else ``CONFLICT`` (a memory refused a
    write), ``BACKPRESSURE`` (steps remain, but the array waits for the drain) or ``FILL_DRAIN``.

    ``BAD_ADDRESS`` stops the engine until reset: a ``LAYER`` that :func:`hw.compute.layer
    .impossible` rejects; a ``CONV`` without groups, of a slot not written since reset, of several
    groups of a packed layer, with parameters outside their memory, or depthwise ones that begin
    within a vector, all before its first step; and a step or a write outside its memory, before it
    happens.

    Parameters
    ----------
    config : hw.config.Config
    name : str
        The unit: ``"encoder"``, ``"attention"`` or ``"decoder"``.

    Attributes
    ----------
    overhead, depthwise_overhead, transform_overhead : int
        Cycles of a ``CONV`` beyond its steps, if no memory refuses a write. It is one less if the
        last group of pixels is not full, as its last one then needs no write.

    Members
    -------
    engine : Out(EngineSignature())
    load : In(stream.Signature(load_layout(...)))
        Weights, parameters and table.
    read_row : Out(RowRead(...))
    write_row, write_onchip, write_feedback, write_alpha, tap
        As ``row``, ``onchip``, ``feedback``, ``alpha`` and ``tap`` of
        :class:`hw.compute.write.Writer`.
    """

    def __init__(self, *, config, name):
        self.writer = Writer(config=config, name=name)
        self.config = config
        self.name   = name
        self.unit   = unit = config.units[name]
        self.array   = MacArray(pixels=unit.pixels, vector=config.vector, outputs=unit.outputs,
                                taps=unit.taps, transform=unit.transform)
        self.weights = WeightMemory(vector=config.vector, outputs=unit.outputs, drain=unit.drain,
                                    weight_words=unit.weight_words, params=unit.params,
                                    protects=config.protects)
        self.drain = Drain(unit=unit, vector=config.vector, delay=drain_delay(config, unit),
                           protection=config.protects("queues"), bounds=config.channel_bounds)
        self.slots = memory(config.protects("slots"), shape=LAYER, depth=LAYER_SLOTS)
        self.protected = [*self.weights.protected, *self.drain.protected, ("slots", self.slots)]
        # Fetch the slot and start, fetch operands, add up, drain the last sum, write it, retire.
        around = 2 + 2 + config.pipelined + DRAIN_LATENCY - 1 + 2
        self.overhead = around + self.array.latency + unit.pixels
        self.depthwise_overhead = (around + self.array.depthwise_latency
                                   + self.drain.depthwise_pieces)
        self.transform_overhead = around + 1 + self.array.latency + OUTPUTS * unit.pixels

        members = {
            "engine":       Out(EngineSignature()),
            "load":         In(stream.Signature(load_layout(vector=config.vector))),
            "read_row":     Out(RowRead(banks=unit.banks, depth=unit.row_words,
                                        vector=config.vector)),
        }
        for port in ("row", "onchip", "feedback", "alpha"):
            if port in self.writer.signature.members:
                members[f"write_{port}"] = self.writer.signature.members[port]
        members["tap"] = self.writer.signature.members["tap"]
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()

        unit, vector = self.unit, self.config.vector
        engine       = self.engine
        header       = engine.i.p.sync
        conv         = engine.i.p.conv

        m.submodules.weights = weights = self.weights
        m.submodules.sequencer = sequencer = StepSequencer(unit=unit)
        m.submodules.array  = array  = self.array
        m.submodules.drain  = drain  = self.drain
        m.submodules.writer = writer = self.writer
        m.submodules.slots  = slots  = self.slots

        connect(m, flipped(self.load), weights.load)
        connect(m, drain.params, weights.params)
        connect(m, drain.table, weights.table)
        connect(m, writer.row, flipped(self.write_row))
        connect(m, writer.onchip, flipped(self.write_onchip))
        if self.name == "decoder":
            connect(m, writer.feedback, flipped(self.write_feedback))
        if self.name == "attention":
            connect(m, writer.alpha, flipped(self.write_alpha))
        connect(m, writer.tap, flipped(self.tap))

        # Layer slots. The instruction holds, so the slot stays on the read port.
        slot_write, slot_read = slots.write_port(), slots.read_port()
        known = Signal(LAYER_SLOTS)          # slots written since reset
        with m.If(slot_write.en):
            m.d.sync += known.bit_select(slot_write.addr, 1).eq(1)
        layer = Signal(LAYER)
        more_rows = Signal(MORE_ROWS)
        m.d.comb += [
            slot_write.addr.eq(engine.i.p.layer.slot),
            slot_write.data.eq(descriptor(engine.i.p.layer)),
            slot_read.addr.eq(conv.slot),
            layer.eq(slot_read.data),
        ]

        start, failed = Signal(), Signal()
        m.d.comb += [
            sequencer.start.eq(start), sequencer.room.eq(drain.room & ~failed),
            sequencer.layer.eq(layer), sequencer.conv.eq(conv), sequencer.more_rows.eq(more_rows),
            array.depthwise.eq(layer.depthwise),
            drain.start.eq(start), drain.reserve.eq(sequencer.completes),
            drain.layer.eq(layer), drain.conv.eq(conv),
            drain.done.eq(array.done),
            writer.start.eq(start), writer.halt.eq(failed),
            writer.layer.eq(layer), writer.conv.eq(conv),
        ]
        results = ["acc", "depthwise_acc", *(["odd_acc"] if unit.transform else [])]
        for targets, sources in ((getattr(drain, name), getattr(array, name)) for name in results):
            m.d.comb += [target.eq(source) for row, row_sources in zip(targets, sources)
                         for target, source in zip(row, row_sources)]
        connect(m, drain.o, writer.i)

        # Operand fetch: both memories answer one cycle after the sequencer's registers. Pixels have
        # a long way from row memory; pipelined, all else waits a cycle for them.
        m.d.comb += [
            self.read_row.enable.eq(1),
            weights.weights.enable.eq(1),
        ]
        m.d.comb += [target.eq(source) for target, source
                     in zip(self.read_row.addresses, sequencer.row_address)]
        pixels_read = list(self.read_row.data)
        step = {name: getattr(sequencer, name) for name in (
            "valid", "first", "last", "step", "rotation", "exists", "inside", "left",
            "weight_address")}
        if self.config.pipelined:
            pixels_read = [self._later(m, pixel, f"read_{number}")
                           for number, pixel in enumerate(pixels_read)]
            step = {name: self._later(m, value, f"later_{name}") for name, value in step.items()}
        rotation = Signal.like(sequencer.rotation)
        clamped  = Signal()
        inside   = Signal(unit.banks)
        left     = Signal(unit.banks)
        fetched  = Signal(MARKERS)
        m.d.sync += [
            fetched.valid.eq(step["valid"]),
            fetched.first.eq(step["first"]),
            fetched.last.eq(step["last"]),
            fetched.step.eq(step["step"]),
            rotation.eq(step["rotation"]),
            clamped.eq(layer.clamp & step["exists"]),
            inside.eq(step["inside"]),
            left.eq(step["left"]),
        ]

        # Padding replaces whole vectors; then pixels go from their banks to their lanes.
        bits      = exact_log2(unit.banks)
        last_bank = Signal(bits)
        last_one  = Signal(vector * 8)       # the row's last pixel, where it is needed
        m.d.comb += last_bank.eq(layer.width_in - 1)
        with m.Switch(last_bank):
            for number in range(unit.banks):
                with m.Case(number):
                    m.d.comb += last_one.eq(pixels_read[number])
        before, after = Signal(vector * 8), Signal(vector * 8)     # what lies outside the row
        m.d.comb += [
            before.eq(Mux(clamped, pixels_read[0], layer.zero_in.replicate(vector))),
            after.eq(Mux(clamped, last_one, layer.zero_in.replicate(vector))),
        ]
        window = []                          # the step's pixels, at first bank by bank
        for number in range(unit.banks):
            bank = Signal(vector * 8, name=f"bank_{number}")
            m.d.comb += bank.eq(Mux(inside[number], pixels_read[number],
                                    Mux(left[number], before, after)))
            window.append(bank)
        # Two-way muxes: compiled simulators take them without a branch.
        for level in range(bits):
            turned = [Signal(vector * 8, name=f"turned_{level}_{number}")
                      for number in range(unit.banks)]
            for number, pixel in enumerate(turned):
                m.d.comb += pixel.eq(Mux(rotation[level], window[(number + 2**level) % unit.banks],
                                         window[number]))
            window = turned

        def at_stride(p, o):
            """The pixel ``o`` after the one of lane ``p``; beyond the window, any."""
            return Mux(layer.stride2, window[(2 * p + o) % unit.banks], window[p + o])

        x = [[[Signal(8, name=f"pixel_{p}_{o}_{c}") for c in range(vector)]
              for o in range(unit.taps)] for p in range(unit.pixels)]
        for p, columns in enumerate(x):
            for o, channels in enumerate(columns):
                pixel = Signal(vector * 8, name=f"pixel_{p}_{o}")
                m.d.comb += pixel.eq(Mux(layer.depthwise, at_stride(p, o), at_stride(p, 0)))
                m.d.comb += [value.eq(pixel.word_select(c, 8))
                             for c, value in enumerate(channels)]
        w = [[word.word_select(c, 8).as_signed() for c in range(vector)]
             for word in weights.weights.data]

        if unit.transform:
            self._transform(m, weight_address=step["weight_address"], layer=layer, window=window,
                            fetched=fetched, x=x, w=w)
        else:
            self._feed(m, fetched, x, w)
            m.d.comb += weights.weights.address.eq(step["weight_address"])

        self._control(m, start=start, failed=failed, layer=layer, conv=conv, more_rows=more_rows,
                      header=header, sequencer=sequencer, writer=writer, slot_write=slot_write,
                      known=known)
        return m

    @staticmethod
    def _later(m, value, name):
        """``value``, a cycle later."""
        register = Signal.like(value, name=name)
        m.d.sync += register.eq(value)
        return register

    def _feed(self, m, markers, x, w):
        """One step into the array."""
        array = self.array
        m.d.comb += [array.valid.eq(markers.valid), array.first.eq(markers.first),
                     array.last.eq(markers.last)]
        m.d.comb += [target.eq(value) for targets, columns in zip(array.x, x)
                     for channels, values in zip(targets, columns)
                     for target, value in zip(channels, values)]
        m.d.comb += [target.eq(value) for targets, values in zip(array.w, w)
                     for target, value in zip(targets, values)]

    def _transform(self, m, *, weight_address, layer, window, fetched, x, w):
        """The same with the transform ahead of the array: steps of transformed layers go in a cycle
        later, when the second window is there, and their weights are read a cycle later."""
        unit, weights = self.unit, self.weights.weights
        m.submodules.pixel_transform = pixels = PixelTransform(pixels=unit.pixels,
                                                               vector=self.config.vector)
        m.submodules.weight_transform = taps = WeightTransform(outputs=unit.outputs,
                                                               vector=self.config.vector)
        late         = Signal.like(fetched)
        late_address = Signal.like(weight_address)
        markers      = Signal.like(fetched)
        m.d.sync += [late.eq(fetched), late_address.eq(weight_address)]
        m.d.comb += [
            weights.address.eq(Mux(layer.transformed, late_address, weight_address)),
            markers.eq(Mux(layer.transformed, late, fetched)),
            self.array.step.eq(markers.step),
            pixels.step.eq(fetched.step),
            taps.step.eq(late.step),
        ]
        m.d.comb += [target.eq(pixel) for target, pixel in zip(pixels.window, window)]
        m.d.comb += [target.eq(value) for targets, values in zip(taps.word, w)
                     for target, value in zip(targets, values)]

        def chosen(transformed, plain):
            return [Mux(layer.transformed, a, b) for a, b in zip(transformed, plain)]

        self._feed(m, markers, [[chosen(lane, channels) for channels in columns]
                                for lane, columns in zip(pixels.x, x)],
                   [chosen(column, values) for column, values in zip(taps.w, w)])

    def _control(self, m, *, start, failed, layer, conv, more_rows, header, sequencer,
                 writer, slot_write, known):
        """Instruction life cycle, cycle ledger and errors."""
        unit, engine = self.unit, self.engine

        wrong  = Signal()          # the CONV on offer cannot run
        params = Signal(16)        # that it needs, in units of ``outputs`` channels
        vector_bits = exact_log2(self.config.vector // unit.outputs)
        m.d.comb += [
            params.eq(Mux(layer.depthwise, conv.groups << vector_bits, conv.groups)),
            wrong.eq(~known.bit_select(conv.slot, 1) | (conv.groups == 0)
                     | (layer.packed & (conv.groups != 1))
                     | (layer.depthwise & (conv.param_base[:vector_bits] != 0))
                     | (conv.param_base + params > unit.params)),
        ]

        with m.If(sequencer.issues):
            m.d.comb += engine.cause.eq(Cause.ISSUE)
        with m.Elif(writer.blocked):
            m.d.comb += engine.cause.eq(Cause.CONFLICT)
        with m.Elif(sequencer.busy & ~failed):
            m.d.comb += engine.cause.eq(Cause.BACKPRESSURE)
        with m.Else():
            m.d.comb += engine.cause.eq(Cause.FILL_DRAIN)
        with m.If(failed):
            m.d.comb += engine.error.eq(Error.BAD_ADDRESS)
        with m.If(sequencer.bad | writer.bad):
            m.d.sync += failed.eq(1)

        with m.FSM():
            with m.State("Wait for work"):
                with m.If(engine.i.valid & ~failed):
                    with m.If(header.opcode == Opcode.CONV):
                        m.next = "Start"
                    with m.Elif(header.opcode == Opcode.ROWS):
                        m.d.sync += more_rows.eq(engine.i.p.rows.rows)
                        m.d.comb += engine.i.ready.eq(1)
                    with m.Elif(impossible(engine.i.p.layer, banks=unit.banks,
                                           targets=TARGETS[self.name],
                                           transform=unit.transform)):
                        m.d.sync += failed.eq(1)
                    with m.Else():
                        m.d.comb += [slot_write.en.eq(1), engine.i.ready.eq(1)]
            with m.State("Start"):
                with m.If(wrong):
                    m.d.sync += failed.eq(1)
                    m.next = "Wait for work"
                with m.Else():
                    m.d.comb += start.eq(1)
                    m.next = "Work"
            with m.State("Work"):
                with m.If(writer.finished & ~writer.bad & ~failed):
                    m.d.comb += engine.i.ready.eq(1)
                    m.next = "Wait for work"
