"""How a property is written: a block, what may be assumed of its surroundings, what must hold."""

import importlib
import inspect
import textwrap
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path

from amaranth import *
from amaranth.hdl import Fragment
from amaranth.lib import data, wiring

from hw.prove.integers import Integers


class Bench:
    """The design around a block that a solver looks at.

    Inputs are free: a solver chooses them anew in every cycle. Everything starts from reset.

    Attributes
    ----------
    m : Module
        For whatever else the property needs; its domain ``sync`` has no reset.
    started : Signal
        Low in the first cycle only.
    """

    def __init__(self):
        self.m       = Module()
        self.inputs  = {}           # name -> free signal
        self.shown   = {}           # name -> value, in counterexamples
        self.checks  = []           # (value, text)
        self.assumes = []
        self.covers  = []
        self.clock   = ClockDomain("sync", reset_less=True)
        self.m.domains += self.clock
        self.started = Signal(name="started")
        self.m.d.sync += self.started.eq(1)
        self._numbers = {}

    def _name(self, stem):
        number = self._numbers[stem] = self._numbers.get(stem, -1) + 1
        return f"{stem}_{number}" if number else stem

    def block(self, component, name="dut"):
        """Add ``component``; all its inputs are free unless the property drives them.

        Drive an input with ``bench.m.d.comb`` after taking it back with :meth:`driven`.
        """
        self.m.submodules[name] = component
        return self._ports(component, name)

    def _ports(self, component, name):
        for path, member, value in component.signature.flatten(component):
            label = ".".join([name, *map(str, path)])
            self.shown[label] = value
            if member.flow == wiring.In:
                self.inputs[label] = Value.cast(value)
        return component

    def driven(self, *values):
        """These inputs of a block are not free: the property drives them."""
        taken = {id(Value.cast(value)) for value in values}
        names = [name for name, signal in self.inputs.items() if id(signal) in taken]
        if len(names) != len(values):
            raise ValueError(f"Only inputs of blocks can be driven, not all of {values!r}")
        for name in names:
            del self.inputs[name]

    def inner(self, component, name="dut"):
        """Add ``component`` like :meth:`block`; returns a function from a dotted name of a signal
        inside it to that signal."""
        self._ports(component, name)
        fragment = Fragment.get(component, None)    # elaborated once: these signals are the block's
        self.m.submodules[name] = fragment

        def find(path):
            *modules, wanted = path.split(".")
            inside = fragment
            for module in modules:
                inside = next(sub for sub, label, *_ in inside.subfragments if label == module)
            found = {id(signal): signal for statements in inside.statements.values()
                     for statement in statements for signal in statement._lhs_signals()
                     if signal.name == wanted}
            if len(found) != 1:
                raise ValueError(f"{name} must have one signal {path!r}, not {len(found)}")
            return next(iter(found.values()))
        return find

    def free(self, shape, name):
        """A value that the solver chooses in every cycle."""
        signal = Signal(shape, name=name)
        self.inputs[name] = Value.cast(signal)
        self.shown[name]  = signal
        return signal

    def constant(self, shape, name):
        """A value that the solver chooses once."""
        now, kept = self.free(shape, name), Signal(shape, name=f"{name}_kept")
        value = Signal(shape, name=f"{name}_constant")
        self.m.d.comb += value.eq(Mux(self.started, kept, now))
        self.m.d.sync += kept.eq(value)
        del self.shown[name]
        self.shown[f"{name} (constant)"] = value
        return value

    def before(self, value):
        """The value of a cycle ago; 0 in the first cycle."""
        if isinstance(value, data.View):
            return value.shape()(self.before(value.as_value()))
        past = Signal(Value.cast(value).shape(), name=self._name("before"))
        self.m.d.sync += past.eq(value)
        return past

    def named(self, value, name):
        """``value`` as a signal that counterexamples show."""
        signal = Signal(Value.cast(value).shape(), name=name)
        self.m.d.comb += signal.eq(value)
        self.shown[name] = signal
        return signal

    def register(self, shape, name, *, init=0):
        """A register of the property itself, which counterexamples show."""
        signal = Signal(shape, name=name, init=init)
        self.shown[name] = signal
        return signal

    def kept(self, valid, ready, *payload):
        """The rule of every handshake: what was on offer and not taken is still on offer, and the
        same."""
        waits  = self.before(valid & ~ready)
        same   = [Value.cast(part) == self.before(Value.cast(part)) for part in payload]
        return ~waits | (valid & reduce(and_, same, C(1)))

    def check(self, condition, text):
        """This must hold in every cycle."""
        self.checks.append((self._bit(condition, "check"), text))

    def assume(self, condition):
        """Only runs in which this holds in every cycle are looked at."""
        self.assumes.append(self._bit(condition, "assumption"))

    def cover(self, condition):
        """Some run within the assumptions must get here, or the property says nothing."""
        seen, now = Signal(name=self._name("seen")), self._bit(condition, "cover")
        self.m.d.sync += seen.eq(seen | now)
        self.covers.append(seen | now)

    def _bit(self, condition, stem):
        bit = Signal(name=self._name(stem))
        self.m.d.comb += bit.eq(Value.cast(condition).bool())
        return bit


@dataclass(frozen=True)
class Mutant:
    """The block with ``old`` in the source of ``function`` replaced by ``new``."""
    function: Callable
    old:      str
    new:      str

    @contextmanager
    def applied(self):
        """Within it, the block is broken."""
        text  = textwrap.dedent(inspect.getsource(self.function))
        count = text.count(self.old)
        where = self.function.__qualname__
        if count != 1:
            raise ValueError(f"{self.old!r} must occur once in {where}, not {count} times")
        owner_name, _, name = where.rpartition(".")
        owner   = inspect.getmodule(self.function)
        changed = {}
        exec(compile(text.replace(self.old, self.new), f"<mutant of {where}>", "exec"),
             vars(owner), changed)
        for part in filter(None, owner_name.split(".")):
            owner = getattr(owner, part)
        kept = vars(owner)[name]        # a staticmethod, not the function in it
        setattr(owner, name, changed[name])
        try:
            yield
        finally:
            setattr(owner, name, kept)


@dataclass(frozen=True)
class Property:
    """One property, and how it is to be shown.

    ``build`` writes it into a :class:`Bench`. ``steps`` is ``None`` for an unbounded proof, else
    how many cycles from reset are searched. ``method`` is ``"pdr"``, or ``"induction"`` for
    k-induction (``depth`` is k) where the checks are inductive and too large to be found so, or
    ``"smt"`` for the same over words, which knows products, or ``"integers"`` for an identity that
    ``build`` writes into :class:`hw.prove.integers.Integers`. ``seconds`` is the time limit, and
    ``slow`` says that CI leaves it to ``make prove``.
    """
    build:   Callable
    mutant:  Mutant
    steps:   int | None
    method:  str
    depth:   int
    seconds: int
    slow:    bool

    @property
    def block(self):
        return self.build.__module__.removeprefix(f"{__package__}.")

    @property
    def name(self):
        return f"{self.block}.{self.build.__name__}"

    @property
    def statement(self):
        return " ".join(inspect.getdoc(self.build).split())

    def integers(self, *, broken=False):
        """What the property says of integers; ``broken`` with its mutant."""
        sums = Integers()
        with self.mutant.applied() if broken else nullcontext():
            self.build(sums)
        return sums

    def bench(self, *, broken=False):
        """The design to be looked at; ``broken`` with the mutant in the block's place."""
        bench = Bench()
        if broken:
            with self.mutant.applied():
                self.build(bench)
                bench.fragment = Fragment.get(bench.m, None)
        else:
            self.build(bench)
            bench.fragment = Fragment.get(bench.m, None)
        if not bench.checks or not bench.covers:
            raise ValueError(f"Property {self.name} must check and cover something")
        return bench


PROPERTIES = {}


def prove(mutant, *, steps=None, method="pdr", depth=1, seconds=240, slow=False):
    """Register the decorated function as a property. Its docstring is what it states; ``mutant`` is
    ``(function, old, new)``, a fault in the block that the property must refute."""
    if method not in ("pdr", "induction", "smt", "integers"):
        raise ValueError(f"Method must be pdr, induction, smt or integers, not {method!r}")

    def register(build):
        entry = Property(build=build, mutant=Mutant(*mutant), steps=steps, method=method,
                         depth=depth, seconds=seconds, slow=slow)
        if not build.__doc__:
            raise ValueError(f"Property {entry.name} must say what it states")
        PROPERTIES[entry.name] = entry
        return build
    return register


def catalogue():
    """All properties by name, in the order of the files."""
    here = Path(__file__).parent
    for path in sorted(here.glob("*/*.py")):
        importlib.import_module(f"{__package__}.{path.parent.name}.{path.stem}")
    return dict(PROPERTIES)
