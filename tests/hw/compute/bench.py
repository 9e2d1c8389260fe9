"""A convolution engine on a bench: row memory, memories that refuse, and a numpy model."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
from amaranth import *
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from hw.compute.conv import ConvEngine
from hw.compute.row_memory import RowMemory
from hw.config import TINY, UnitConfig
from hw.isa import Error, Target


def small_config(name, *, pixels=2, vector=8, outputs=2, row_words=512, weight_words=256,
                 param_words=16):
    """A config whose unit ``name`` has the given sizes, with small memories around it."""
    unit  = UnitConfig(pixels=pixels, outputs=outputs, row_words=row_words,
                       weight_words=weight_words, param_words=param_words)
    other = replace(unit, pixels=1)
    units = {**dict.fromkeys(("encoder", "attention", "decoder"), other), name: unit}
    return replace(TINY, vector=vector, onchip_bytes=1024 * vector, feedback_bytes=1024 * vector,
                   alpha_words=40, gate_lanes=2, **units)


class Bench(Elaboratable):
    """The engine and its row memory, with every memory's contents as a numpy array of bytes."""

    def __init__(self, name, *, stall=0.0, seed=0, **sizes):
        self.config = config = small_config(name, **sizes)
        self.unit   = unit = config.units[name]
        self.random = random.Random(seed)
        self.bytes  = np.random.default_rng(seed)
        self.stall  = stall
        self.engine = ConvEngine(config=config, name=name)
        self.rows   = RowMemory(pixels=unit.pixels, depth=unit.row_words, vector=config.vector,
                                lanes=config.vector // unit.outputs, writers=1)
        ports = {"onchip": (config.onchip_words, config.onchip_lanes),
                 "feedback": (config.feedback_words, config.feedback_lanes),
                 "alpha": (config.alpha_words, 1)}
        self.ports = {port: (getattr(self.engine, f"write_{port}").w, lanes)
                      for port, (_, lanes) in ports.items()
                      if hasattr(self.engine, f"write_{port}")}
        self.memory = {port: self.draw(ports[port][0], config.vector) for port in self.ports}
        self.memory["row"] = self.draw(unit.pixels, unit.row_words, config.vector)
        self.weights = self.draw(unit.weight_words, unit.outputs, config.vector).view(np.int8)
        self.table   = self.draw(256)
        self.params  = [[self.draw_params() for _ in range(unit.outputs)]
                        for _ in range(unit.param_words)]
        self.layers  = {}
        self.taps    = []

    def draw(self, *shape):
        return self.bytes.integers(0, 256, shape, dtype=np.uint8)

    def draw_params(self):
        """Bias, multiplier and shift that spread random sums over the bytes."""
        return (self.random.randint(-2**17, 2**17), self.random.choice((-1, 1))
                * self.random.randint(2**14, 2**15 - 1), self.random.randint(22, 26))

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = self.engine
        m.submodules.rows   = self.rows
        connect(m, self.engine.write_row, self.rows.writes[0])
        connect(m, self.engine.read_row, self.rows.read)
        return m

    def simulate(self, *testbenches):
        """Run ``testbenches`` one after the other, after filling the memories by backdoor."""
        async def all_of_them(ctx):
            for bank, words in zip(self.rows.banks, self.memory["row"], strict=True):
                for number, word in enumerate(words):
                    ctx.set(bank.data[number], int.from_bytes(word.tobytes(), "little"))
            weights = self.engine.weights
            for lane in range(self.unit.outputs):
                for number, word in enumerate(self.weights[:, lane]):
                    ctx.set(weights.weight_lanes[lane].data[number],
                            int.from_bytes(word.tobytes(), "little"))
                for number, word in enumerate(self.params):
                    bias, multiplier, shift = word[lane]
                    ctx.set(weights.param_lanes[lane].data[number],
                            {"bias": bias, "multiplier": multiplier, "shift": shift})
            for number, word in enumerate(self.table.reshape(-1, self.config.vector)):
                ctx.set(weights.table_words.data[number], int.from_bytes(word.tobytes(), "little"))
            for testbench in testbenches:
                await testbench(ctx)
                self.check_rows(ctx)

        sim = Simulator(self)
        sim.add_clock(1e-8)
        sim.add_testbench(all_of_them)
        sim.run()

    def check_rows(self, ctx):
        for bank, words in zip(self.rows.banks, self.memory["row"], strict=True):
            for number, word in enumerate(words):
                got = ctx.get(bank.data[number])
                assert got.to_bytes(len(word), "little") == word.tobytes(), f"row word {number}"

    async def run(self, ctx, opcode, fields, *, limit=5000):
        """Offer one instruction until it retires or fails. Returns the causes of its cycles and
        the error at its end."""
        engine = self.engine.engine
        word = {opcode.name.lower(): {"opcode": opcode, **fields}}
        ctx.set(engine.i.p, word)
        ctx.set(engine.i.valid, 1)
        causes, held = Counter(), {}
        for _ in range(limit):
            for stream, _ in self.ports.values():
                ctx.set(stream.ready, self.random.random() >= self.stall)
            for port, (stream, lanes) in self.ports.items():
                offer = ctx.get(stream.p) if ctx.get(stream.valid) else None
                assert port not in held or offer == held.pop(port), f"{port} changed its mind"
                if offer is not None and ctx.get(stream.ready):
                    self.write(self.memory[port][offer.address], offer, lanes)
                elif offer is not None:
                    held[port] = offer
            if ctx.get(self.engine.tap.valid):
                tap = ctx.get(self.engine.tap.p)
                data = tap.data.to_bytes(self.config.vector, "little")
                self.taps.append((tap.layer, tap.row, tap.column, tap.channel, tap.count,
                                  list(data[:tap.count])))
            causes[ctx.get(engine.cause)] += 1
            retired, error = ctx.get(engine.i.ready), ctx.get(engine.error)
            assert not (retired and error != Error.NONE)
            await ctx.tick()
            if retired or error != Error.NONE:
                ctx.set(engine.i.valid, 0)
                return causes, error
        raise TimeoutError(f"{opcode} did not retire within {limit} cycles")

    @staticmethod
    def write(word, offer, lanes):
        part = len(word) // lanes
        data = np.frombuffer(offer.data.to_bytes(len(word), "little"), np.uint8)
        for lane in range(lanes):
            if offer.mask >> lane & 1:
                word[lane * part:][:part] = data[lane * part:][:part]

    def pixel(self, base, vectors, x):
        """Channels of pixel ``x`` of the row at ``base``."""
        at = base + x // self.unit.pixels * vectors
        return self.memory["row"][x % self.unit.pixels, at:at + vectors].reshape(-1).astype(int)

    def expect(self, layer, conv):
        """What memories must hold after ``conv``, and the taps it shows."""
        unit, vector = self.unit, self.config.vector
        memory = {name: words.copy() for name, words in self.memory.items()}
        weights = self.weights[conv["weight_base"]:].astype(int)
        taps = []
        for x in range(layer["width_out"]):
            columns = []
            for ky in range(layer["kernel_h"]):
                for kx in range(layer["kernel_w"]):
                    row = conv["rows"][ky]
                    ix = x * (1 + layer["stride2"]) + kx - layer["pad_left"]
                    inside = row["valid"] and 0 <= ix < layer["width_in"]
                    columns.append(self.pixel(row["base"], layer["vectors"], ix) if inside else
                                   np.full(layer["vectors"] * vector, layer["zero_in"]))
            column = np.concatenate(columns)
            steps = len(column) // vector
            for k in range(conv["groups"]):
                tile = weights[k * steps:(k + 1) * steps].transpose(1, 0, 2)
                sums = tile.reshape(unit.outputs, -1) @ column
                y = [min(max((((int(total) + bias) * scale + 2**(shift - 1)) >> shift)
                             + layer["zero_out"], layer["low"]), layer["high"])
                     for total, (bias, scale, shift)
                     in zip(sums, self.params[conv["param_base"] + k], strict=True)]
                if layer["table"]:
                    y[0] = int(self.table[y[0]])
                channel = (conv["first"] + k) * unit.outputs
                taps.append((conv["layer"], conv["row"], x, channel, unit.outputs, y))
                self.place(memory, layer, conv, x, channel, y)
        return memory, taps

    def place(self, memory, layer, conv, x, channel, y):
        vector, target = self.config.vector, layer["target"]
        if layer["packed"]:
            places = {"feedback": conv["out_base"]} if target == Target.FEEDBACK else {
                "onchip": conv["out_base"]}
            if target == Target.ALPHA:
                places["alpha"] = conv["alpha_base"]
            for name, base in places.items():
                word = memory[name][base + x // vector]
                if x % vector == 0:
                    word[:] = 0
                word[x % vector] = y[0]
            return
        index, byte = divmod(channel, vector)
        if target == Target.ROW:
            at = conv["out_base"] + x // self.unit.pixels * layer["out_stride"] + index
            word = memory["row"][x % self.unit.pixels, at]
        else:
            name = "onchip" if target == Target.ONCHIP else "feedback"
            word = memory[name][conv["out_base"] + x * layer["out_stride"] + index]
        word[byte:byte + len(y)] = y

    def steps(self, layer, conv):
        blocks = -(-layer["width_out"] // self.unit.pixels)
        return (blocks * conv["groups"] * layer["kernel_h"] * layer["kernel_w"]
                * layer["vectors"])

    def draw_layer(self, *, target, packed=0):
        """A random layer descriptor, and a random row of it that fits everywhere."""
        unit, vector, draw = self.unit, self.config.vector, self.random.randint
        low, high = sorted((draw(0, 60), draw(180, 255)))
        layer = {
            "slot": draw(0, 15), "vectors": draw(1, 3), "kernel_h": draw(1, 3),
            "kernel_w": draw(1, 3), "stride2": draw(0, 1) if unit.pixels == 1 else 0,
            "pad_left": draw(0, 2), "width_in": draw(1, 13), "width_out": draw(1, 13),
            "zero_in": draw(0, 255), "zero_out": draw(0, 255), "low": low, "high": high,
            "target": target, "packed": packed, "table": draw(0, 1),
        }
        groups   = 1 if packed else draw(1, 3)
        first    = draw(0, 5)
        vectors  = -(-(first + groups) * unit.outputs // vector)
        layer["out_stride"] = draw(vectors, vectors + 2)
        # Row memory: the kernel's rows in the lower half, the result in the upper one.
        half = unit.row_words // 2
        span = -(-layer["width_in"] // unit.pixels) * layer["vectors"]
        conv = {
            "slot": layer["slot"], "layer": draw(0, 1) * draw(1, 255), "row": draw(0, 4095),
            "rows": [{"valid": int(draw(0, 4) > 0), "base": draw(0, half - span)}
                     for _ in range(3)],
            "weight_base": draw(0, unit.weight_words - groups * layer["kernel_h"]
                                * layer["kernel_w"] * layer["vectors"]),
            "param_base": draw(0, unit.param_words - groups), "groups": groups, "first": first,
            "alpha_base": draw(0, self.config.alpha_words - 2),
        }
        depth = {Target.ROW: unit.row_words, Target.FEEDBACK: self.config.feedback_words
                 }.get(target, self.config.onchip_words)
        conv["out_base"] = draw(half if target == Target.ROW else 0,
                                depth - 14 * layer["out_stride"])
        return layer, conv

    async def load(self, ctx, target, base, beats):
        for index, beat in enumerate(beats):
            ctx.set(self.engine.load.p, {"target": target, "base": base, "index": index,
                                         "data": beat})
            ctx.set(self.engine.load.valid, 1)
            assert ctx.get(self.engine.load.ready)
            await ctx.tick()
        ctx.set(self.engine.load.valid, 0)
