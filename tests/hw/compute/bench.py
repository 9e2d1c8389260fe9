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


def small_config(name, *, pixels=2, vector=8, outputs=2, drain=None, row_words=512,
                 weight_words=256, params=64, transform=False, gather=False, bounds=False,
                 pipelined=False):
    """A config whose unit ``name`` has the given sizes, with small memories around it."""
    unit  = UnitConfig(pixels=pixels, outputs=outputs, drain=drain or outputs, row_words=row_words,
                       weight_words=weight_words, params=params, transform=transform, gather=gather)
    other = replace(unit, pixels=1)
    units = {**dict.fromkeys(("encoder", "attention", "decoder"), other), name: unit}
    return replace(TINY, vector=vector, onchip_bytes=1024 * vector, feedback_bytes=1024 * vector,
                   alpha_words=40, gate_lanes=2, channel_bounds=bounds, pipelined=pipelined,
                   **units)


class Bench(Elaboratable):
    """The engine and its row memory, with every memory's contents as a numpy array of bytes."""

    def __init__(self, name, *, stall=0.0, seed=0, **sizes):
        self.config = config = small_config(name, **sizes)
        self.unit   = unit = config.units[name]
        self.random = random.Random(seed)
        self.bytes  = np.random.default_rng(seed)
        self.stall  = stall
        self.engine = ConvEngine(config=config, name=name)
        self.rows   = RowMemory(banks=unit.banks, depth=unit.row_words, vector=config.vector,
                                lanes=config.vector // unit.outputs, writers=1)
        ports = {"onchip": (config.onchip_words, config.onchip_lanes),
                 "feedback": (config.feedback_words, config.feedback_lanes),
                 "alpha": (config.alpha_words, 1)}
        self.ports = {port: (getattr(self.engine, f"write_{port}").w, lanes)
                      for port, (_, lanes) in ports.items()
                      if hasattr(self.engine, f"write_{port}")}
        self.memory = {port: self.draw(ports[port][0], config.vector) for port in self.ports}
        self.memory["row"] = self.draw(unit.banks, unit.row_words, config.vector)
        self.weights = self.draw(unit.weight_words, unit.outputs, config.vector).view(np.int8)
        self.table   = self.draw(256)
        self.params  = [[self.draw_params() for _ in range(unit.outputs)]
                        for _ in range(unit.params)]
        self.bounds  = [self.draw_bound() for _ in range(unit.outputs * unit.params)]
        self.more_rows = [{"valid": 0, "base": 0}] * 4
        self.taps    = []
        self.landed  = Counter()       # writes of each word, by port and address
        self.clear   = Signal()        # resets the engine, as a run does that begins

    def draw(self, *shape):
        return self.bytes.integers(0, 256, shape, dtype=np.uint8)

    def draw_params(self):
        """Bias, multiplier and shift that spread random sums over the bytes."""
        return (self.random.randint(-2**17, 2**17), self.random.choice((-1, 1))
                * self.random.randint(2**14, 2**15 - 1), self.random.randint(22, 26))

    def draw_bound(self):
        """Bound of a channel, and whether it is one from above; (0, 0) bounds nothing."""
        if not self.config.channel_bounds or self.random.random() < 0.2:
            return 0, 0
        return self.random.randrange(256), self.random.randrange(2)

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = ResetInserter(self.clear)(self.engine)
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
            for channel, (bias, multiplier, shift) in enumerate(sum(self.params, [])):
                word, lane = divmod(channel, self.unit.drain)
                bound, ceiling = self.bounds[channel]
                ctx.set(weights.param_lanes[lane].data[word],
                        {"bias": bias, "multiplier": multiplier, "shift": shift, "bound": bound,
                         "ceiling": ceiling})
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
                    self.landed[port, offer.address] += 1
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
        bank, word = x % self.unit.banks, base + x // self.unit.banks * vectors
        return self.memory["row"][bank, word:word + vectors].reshape(-1).astype(int)

    def tap(self, layer, conv, x, ky, kx):
        """What kernel tap ``ky``, ``kx`` of output pixel ``x`` sees, all channels."""
        row = [*conv["rows"], *self.more_rows][ky]
        ix  = x * (1 + layer["stride2"]) + kx - layer["pad_left"]
        if row["valid"] and layer["clamp"]:
            ix = min(max(ix, 0), layer["width_in"] - 1)
        if row["valid"] and 0 <= ix < layer["width_in"]:
            return self.pixel(row["base"], layer["vectors"], ix)
        return np.full(layer["vectors"] * self.config.vector, layer["zero_in"])

    def chunks(self, layer):
        """Steps per kernel row of a depthwise layer, and kernel columns in each."""
        width = self.unit.depthwise_taps(1 + layer["stride2"])
        return -(-layer["kernel_w"] // width), width

    def per_sum(self, layer):
        """Steps of one sum."""
        if layer["depthwise"]:
            return layer["kernel_h"] * self.chunks(layer)[0]
        if layer["transformed"]:
            return layer["kernel_h"] * (4 * layer["vectors"] - layer["doubled"])
        return layer["kernel_h"] * layer["kernel_w"] * layer["vectors"]

    def words(self, layer):
        """Weight words of one sum."""
        if layer["transformed"]:
            return layer["kernel_h"] * 3 * layer["vectors"]
        return self.per_sum(layer)

    def at_once(self, layer):
        """Pixels of one sum."""
        return self.unit.pixels * (2 if layer["transformed"] else 1)

    def sums(self, layer, conv):
        return -(-layer["width_out"] // self.at_once(layer)) * conv["groups"]

    def steps(self, layer, conv):
        return self.sums(layer, conv) * self.per_sum(layer)

    def cycles(self, layer, conv):
        """Of a CONV whose writes are never refused."""
        depthwise = layer["depthwise"]
        drains    = self.engine.drain.depthwise_pieces if depthwise else self.at_once(layer)
        overhead  = (self.engine.depthwise_overhead if depthwise else
                     self.engine.transform_overhead if layer["transformed"] else
                     self.engine.overhead)
        ragged    = layer["width_out"] % self.at_once(layer) != 0
        apart     = max(self.per_sum(layer), drains)
        return self.per_sum(layer) + (self.sums(layer, conv) - 1) * apart + overhead - ragged

    def expect(self, layer, conv):
        """What memories must hold after ``conv``, and the taps it shows."""
        memory = {name: words.copy() for name, words in self.memory.items()}
        taps   = []
        for x in range(layer["width_out"]):
            column = 2 * x + layer["odd"] if layer["spread"] else x
            pieces = (self.depthwise_pieces if layer["depthwise"] else self.dense_pieces)(
                layer, conv, x)
            for channel, y in pieces:
                taps.append((conv["layer"], conv["row"], conv["column"] + column, channel, len(y),
                             y))
                self.place(memory, layer, conv, column, channel, y)
        return memory, taps

    def dense_pieces(self, layer, conv, x):
        """First channel and bytes of each group of ``outputs`` channels of pixel ``x``."""
        outputs = self.unit.outputs
        column  = np.concatenate([self.tap(layer, conv, x, ky, kx)
                                  for ky in range(layer["kernel_h"])
                                  for kx in range(layer["kernel_w"])])
        words   = self.words(layer)
        weights = self.weights[conv["weight_base"]:].astype(int)
        for k in range(conv["groups"]):
            tile = weights[k * words:(k + 1) * words]
            if layer["transformed"]:        # g0, g2, g1 of each vector
                tile = tile.reshape(layer["kernel_h"], layer["vectors"], 3, outputs, -1)
                tile = tile[:, :, [0, 2, 1]].transpose(0, 2, 1, 3, 4)
            tile = tile.reshape(words, outputs, -1).transpose(1, 0, 2)
            y = self.requantise(layer, tile.reshape(outputs, -1) @ column,
                                (conv["param_base"] + k) * outputs)
            if layer["table"]:
                y = [int(self.table[byte]) for byte in y]
            yield (conv["first"] + k) * outputs, y

    def depthwise_pieces(self, layer, conv, x):
        """First channel and bytes of each group of ``drain`` channels of pixel ``x``."""
        vector, drain = self.config.vector, self.unit.drain
        chunks, width = self.chunks(layer)
        for g in range(conv["groups"]):
            base = conv["weight_base"] + g * self.per_sum(layer)
            sums = np.zeros(vector, int)
            for ky in range(layer["kernel_h"]):
                for kx in range(layer["kernel_w"]):
                    chunk, lane = divmod(kx, width)
                    weight = self.weights[base + ky * chunks + chunk, lane].astype(int)
                    sums  += weight * self.tap(layer, conv, x, ky, kx)[g * vector:][:vector]
            y = self.requantise(layer, sums, conv["param_base"] * self.unit.outputs + g * vector)
            for part in range(0, vector, drain):
                yield (conv["first"] + g) * vector + part, y[part:part + drain]

    def requantise(self, layer, sums, channel):
        """Bytes of ``sums``, with the parameters from ``channel`` on."""
        params = sum(self.params, [])[channel:channel + len(sums)]
        limits = [(layer["low"], bound) if ceiling else (max(layer["low"], bound), layer["high"])
                  for bound, ceiling in self.bounds[channel:channel + len(sums)]]
        return [min(max((((int(total) + bias) * scale + 2**(shift - 1)) >> shift)
                        + layer["zero_out"], low), high)
                for total, (bias, scale, shift), (low, high) in zip(sums, params, limits,
                                                                    strict=True)]

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
            at = conv["out_base"] + x // self.unit.banks * layer["out_stride"] + index
            word = memory["row"][x % self.unit.banks, at]
        else:
            name = "onchip" if target == Target.ONCHIP else "feedback"
            word = memory[name][conv["out_base"] + x * layer["out_stride"] + index]
        word[byte:byte + len(y)] = y

    def may_clamp(self, layer):
        """Whether ``layer`` stays within what clamping can reach."""
        unit, stride = self.unit, 1 + layer["stride2"]
        width  = self.chunks(layer)[1] if layer["depthwise"] else 1
        column = (layer["kernel_w"] - 1) // width * width
        first  = (layer["width_out"] - 1) // unit.pixels * unit.pixels * stride
        return (layer["pad_left"] < unit.banks and
                first - layer["pad_left"] + column < layer["width_in"] + unit.banks)

    def draw_layer(self, *, target, packed=0, depthwise=0, transformed=0):
        """A random layer descriptor, and a random row of it that fits everywhere."""
        unit, vector, draw = self.unit, self.config.vector, self.random.randint
        low, high = ((0, 255) if self.config.channel_bounds
                     else sorted((draw(0, 60), draw(180, 255))))
        layer = {
            "slot": draw(0, 15), "vectors": draw(1, 3), "stride2": draw(0, 1),
            "pad_left": draw(0, 6), "width_in": draw(1, 19), "width_out": draw(1, 13),
            "zero_in": draw(0, 255), "zero_out": draw(0, 255), "low": low, "high": high,
            "target": target, "packed": packed, "table": 0 if depthwise else draw(0, 1),
            "depthwise": depthwise, "spread": 0 if packed else draw(0, 1), "odd": draw(0, 1),
            "transformed": transformed, "doubled": 0,
        }
        if transformed:
            layer |= {"stride2": 0, "spread": 0, "doubled": draw(0, 1) * draw(1, layer["vectors"])}
        if layer["doubled"]:
            layer |= {"pad_left": draw(0, 2) * 2 + 1, "width_in": draw(1, 9) * 2}
        groups = 1 if packed else draw(1, layer["vectors"] if depthwise else 3)
        while True:
            layer["kernel_h"], layer["kernel_w"] = draw(1, 7), 3 if transformed else draw(1, 7)
            if groups * self.per_sum(layer) <= 120:
                break
        layer["clamp"] = draw(0, 1) if self.may_clamp(layer) and not transformed else 0
        first    = draw(0, 5)
        vectors  = first + groups if depthwise else -(-(first + groups) * unit.outputs // vector)
        layer["out_stride"] = draw(vectors, vectors + 2)
        # Row memory: the kernel's rows in the lower half, the result in the upper one.
        half = unit.row_words // 2
        span = -(-layer["width_in"] // unit.banks) * layer["vectors"]
        rows = [{"valid": int(draw(0, 4) > 0), "base": draw(0, half - span)} for _ in range(7)]
        each = vector // unit.outputs if depthwise else 1       # parameters per group
        conv = {
            "slot": layer["slot"], "layer": draw(0, 1) * draw(1, 255), "row": draw(0, 4095),
            "rows": rows[:3],
            "weight_base": draw(0, unit.weight_words - groups * self.per_sum(layer)),
            "param_base": draw(0, unit.params // each - groups) * each, "groups": groups,
            "first": first, "alpha_base": draw(0, self.config.alpha_words - 2),
            "column": draw(0, 1) * draw(1, 2000),
        }
        depth = {Target.ROW: unit.row_words, Target.FEEDBACK: self.config.feedback_words
                 }.get(target, self.config.onchip_words)
        conv["out_base"] = draw(half if target == Target.ROW else 0,
                                depth - 26 * layer["out_stride"] // (
                                    unit.banks if target == Target.ROW else 1))
        return layer, conv, rows[3:]

    def double(self, ctx, layer, conv):
        """Make pixels 0 and 1, 2 and 3 and so on equal, in the vectors that ``layer`` calls so."""
        for row in [*conv["rows"], *self.more_rows]:
            for word in range(-(-layer["width_in"] // self.unit.banks)):
                for vec in range(layer["doubled"]):
                    at = row["base"] + word * layer["vectors"] + vec
                    for bank in range(0, self.unit.banks, 2):
                        found = self.memory["row"][bank, at]
                        self.memory["row"][bank + 1, at] = found
                        ctx.set(self.rows.banks[bank + 1].data[at],
                                int.from_bytes(found.tobytes(), "little"))

    def zero_unused(self, ctx, layer, conv):
        """Clear the weights of columns that a depthwise ``layer`` does not have."""
        chunks, width = self.chunks(layer)
        base = conv["weight_base"]
        for number in range(base, base + conv["groups"] * self.per_sum(layer)):
            chunk = (number - base) % chunks
            for lane in range(self.unit.outputs):
                if lane >= width or chunk * width + lane >= layer["kernel_w"]:
                    # Lanes that no column of the array takes keep what they hold.
                    if lane < self.unit.taps:
                        self.weights[number, lane] = 0
                        ctx.set(self.engine.weights.weight_lanes[lane].data[number], 0)

    async def load(self, ctx, target, base, beats):
        for index, beat in enumerate(beats):
            ctx.set(self.engine.load.p, {"target": target, "base": base, "index": index,
                                         "data": beat})
            ctx.set(self.engine.load.valid, 1)
            assert ctx.get(self.engine.load.ready)
            await ctx.tick()
        ctx.set(self.engine.load.valid, 0)
