"""A program run without clock or pipeline: what every instruction means, in numpy.

Engines take turns in an order drawn from a seed, bounded only by the waits in the program, so a
missing wait shows as a wrong mask. Used to test the compiler in seconds, and as the plainest text
of what the hardware does.
"""

import random

import numpy as np

from hw.compute.transform import COLUMNS, OUTPUTS
from hw.isa import (
    FORMS,
    INSTRUCTION_BYTES,
    KERNEL_ROWS,
    LOADS,
    PROGRAM_MAGIC,
    Engine,
    FillMode,
    LoadTarget,
    Opcode,
    Requant,
    Source,
    StreamHeader,
    Target,
)

UNIT_OF = {engine: engine.name.split("_")[0 if engine not in LOADS else 1].lower()
           for engine in Engine}


class Deadlock(RuntimeError):
    """No engine can go on, and the program has not ended."""


class Interpreter:
    """One machine.

    Parameters
    ----------
    config : hw.config.Config
    image : bytes
        Contents of off-chip memory from address 0.
    """

    def __init__(self, config, image):
        vector = config.vector
        self.config   = config
        self.offchip  = np.zeros(config.offchip_bytes, np.uint8)
        self.offchip[:len(image)] = np.frombuffer(image, np.uint8)
        self.onchip   = np.zeros((config.onchip_words, vector), np.uint8)
        self.feedback = np.zeros((config.feedback_words, vector), np.uint8)
        self.alpha    = np.zeros((config.alpha_words, vector), np.uint8)
        self.gate_params = np.zeros((config.gate_param_words * config.gate_lanes, 5), np.int64)
        self.units    = {name: _Unit(unit, vector) for name, unit in config.units.items()}
        self.taps     = {}      # (layer, row) -> list of uint8 [width, channels written]

    def run(self, program_base, *, seed=0):
        """Execute the program; returns the number of instructions."""
        streams = self._fetch(program_base)
        retired = dict.fromkeys(Engine, 0)
        order   = random.Random(seed)
        open_   = [engine for engine in Engine if streams[engine]]
        while open_:
            ready = [engine for engine in open_ if self._met(streams[engine], retired, engine)]
            if not ready:
                raise Deadlock("waiting: " + ", ".join(engine.name for engine in open_))
            engine = order.choice(ready)
            for _ in range(order.randint(1, 50)):
                self._execute(engine, streams[engine][retired[engine]])
                retired[engine] += 1
                if (retired[engine] == len(streams[engine])
                        or not self._met(streams[engine], retired, engine)):
                    break
            open_ = [engine for engine in open_ if retired[engine] < len(streams[engine])]
        return sum(retired.values())

    def _fetch(self, base):
        streams = {}
        for engine in Engine:
            header = StreamHeader.from_bits(self._word(base + engine * INSTRUCTION_BYTES))
            if header.magic != PROGRAM_MAGIC or header.engine != engine:
                raise ValueError(f"No program at {base:#x}: stream header {engine} is corrupt")
            streams[engine] = [
                self._decode(self._word(header.address + index * INSTRUCTION_BYTES))
                for index in range(header.count)]
        return streams

    def _word(self, address):
        return int.from_bytes(self.offchip[address:address + INSTRUCTION_BYTES], "little")

    @staticmethod
    def _decode(bits):
        opcode = FORMS[Opcode.SYNC].from_bits(bits).opcode
        return FORMS[opcode].from_bits(bits)

    @staticmethod
    def _met(stream, retired, engine):
        waits = stream[retired[engine]].waits
        return all(retired[Engine(wait.engine)] >= wait.count for wait in waits)

    def _execute(self, engine, instruction):
        name = instruction.opcode.name.lower()
        getattr(self, f"_{name}")(engine, instruction)

    def _sync(self, engine, i):
        pass

    def _load(self, engine, i):
        vector = self.config.vector
        beats  = self.offchip[i.offchip:i.offchip + i.beats * vector].reshape(-1, vector)
        unit   = self.units[UNIT_OF[engine]]
        match i.target:
            case LoadTarget.ONCHIP:
                if i.expand:
                    words = np.zeros((i.beats * vector // 4, vector), np.uint8)
                    words[:, :4] = beats.reshape(-1, 4)
                    beats = words
                self.onchip[i.base:i.base + len(beats)] = beats
            case LoadTarget.WEIGHTS:
                unit.weights.reshape(-1, vector)[i.base * unit.outputs:][:i.beats] = (
                    beats.view(np.int8))
            case LoadTarget.PARAMS:
                unit.params[i.base * unit.outputs:][:i.beats] = requants(beats)
            case LoadTarget.TABLE:
                unit.table[:] = beats.reshape(-1)
            case LoadTarget.GATE_PARAMS:
                self.gate_params[i.base * self.config.gate_lanes:][:i.beats] = requants(beats)

    def _store(self, engine, i):
        size = i.beats * self.config.vector
        self.offchip[i.offchip:i.offchip + size] = self.onchip[i.base:i.base + i.beats].reshape(-1)

    def _layer(self, engine, i):
        self.units[UNIT_OF[engine]].layers[i.slot] = i

    def _rows(self, engine, i):
        self.units[UNIT_OF[engine]].more_rows = list(i.rows)

    def _conv(self, engine, i):
        unit = self.units[UNIT_OF[engine]]
        d    = unit.layers[i.slot]
        rows = [*i.rows, *unit.more_rows][:d.kernel_h]
        if d.kernel_h > KERNEL_ROWS and not unit.more_rows:
            raise ValueError(f"Layer {i.layer} has {d.kernel_h} kernel rows and no ROWS before it")
        out = (self._depthwise if d.depthwise else self._dense)(unit, d, i, rows)
        if d.table:
            out = unit.table[out]
        self._write(unit, d, i, out)
        first = i.first * (self.config.vector if d.depthwise else unit.outputs)
        self._tap(i, out, channel=first, columns=[i.column + x for x in columns(d)])

    def _dense(self, unit, d, i, rows):
        taps   = [self._taps(unit, d, row, d.kernel_w, d.vectors) for row in rows]
        inputs = np.concatenate([tap for row in taps for tap in row], axis=1).astype(np.float64)
        steps  = d.kernel_h * d.kernel_w * d.vectors
        words  = unit.weights[i.weight_base:i.weight_base + i.groups * steps]
        if d.transformed:
            self._check_pairs(i, d, taps)
            # group, ky, vector, column of COLUMNS  ->  group, ky, kx, vector
            words = words.reshape(i.groups, d.kernel_h, d.vectors, d.kernel_w, -1)
            words = words[:, :, :, np.argsort(COLUMNS)].transpose(0, 1, 3, 2, 4)
        words  = words.reshape(i.groups, steps, unit.outputs, self.config.vector)
        matrix = words.transpose(1, 3, 0, 2).reshape(steps * self.config.vector, -1)
        params = unit.params[i.param_base * unit.outputs:][:i.groups * unit.outputs]
        return requantise((inputs @ matrix.astype(np.float64)).astype(np.int64), params,
                          d.zero_out, d.low, d.high)

    def _check_pairs(self, i, d, taps):
        """The machine leaves out the difference of the inner two pixels of each lane."""
        channels = d.doubled * self.config.vector
        for _, left, right in taps:
            if (left[::OUTPUTS, :channels] != right[::OUTPUTS, :channels]).any():
                raise ValueError(f"Layer {i.layer} has unequal pixels in its first {d.doubled} "
                                 "vectors, which are said to be doubled")

    def _depthwise(self, unit, d, i, rows):
        vector = self.config.vector
        width  = unit.config.depthwise_taps(1 + d.stride2)
        chunks = -(-d.kernel_w // width)
        words  = unit.weights[i.weight_base:i.weight_base + i.groups * d.kernel_h * chunks]
        words  = words.reshape(i.groups, d.kernel_h, chunks, unit.outputs, vector)
        if words[:, :, :, width:].any():
            raise ValueError(f"Layer {i.layer} has weights beyond {width} depthwise columns")
        acc = np.zeros((d.width_out, i.groups * vector), np.int64)
        for ky, row in enumerate(rows):
            for kx, tap in enumerate(self._taps(unit, d, row, chunks * width, i.groups)):
                weight_C = words[:, ky, kx // width, kx % width].reshape(-1).astype(np.int64)
                acc += tap * weight_C
        params = unit.params[i.param_base * unit.outputs:][:i.groups * vector]
        return requantise(acc, params, d.zero_out, d.low, d.high)

    def _taps(self, unit, d, row, kernel_w, vectors):
        """What each kernel column of one kernel row sees of the first ``vectors`` of a pixel:
        [width_out, channels]."""
        stride = 1 + d.stride2
        padded = np.full((d.pad_left + d.width_in + d.width_out * stride + kernel_w,
                          vectors * self.config.vector), d.zero_in, np.uint8)
        if row.valid:
            pixels = unit.read_row(row.base, d.width_in, d.vectors, vectors)
            padded[d.pad_left:d.pad_left + d.width_in] = pixels
            if d.clamp:
                padded[:d.pad_left] = pixels[0]
                padded[d.pad_left + d.width_in:] = pixels[-1]
        return [padded[kx:kx + d.width_out * stride:stride] for kx in range(kernel_w)]

    def _write(self, unit, d, i, out_WC):
        vector = self.config.vector
        if d.packed:
            words = -(-d.width_out // vector)
            row   = np.zeros(words * vector, np.uint8)
            row[:d.width_out] = out_WC[:, 0]
            row = row.reshape(words, vector)
            if d.target == Target.ALPHA:
                self.alpha[i.alpha_base:i.alpha_base + words] = row
            self.onchip[i.out_base:i.out_base + words] = row
            return
        first = i.first * (vector if d.depthwise else unit.outputs)
        if d.target == Target.ROW:
            unit.write_row(i.out_base, d.out_stride, out_WC, first, columns(d))
            return
        memory = {Target.ONCHIP: self.onchip, Target.FEEDBACK: self.feedback}[d.target]
        for x, channels in zip(columns(d), out_WC, strict=True):
            start = (i.out_base + x * d.out_stride) * vector + first
            memory.reshape(-1)[start:start + len(channels)] = channels

    def _fill(self, engine, i):
        unit   = self.units[UNIT_OF[engine]]
        memory = self.feedback if i.source == Source.FEEDBACK else self.onchip
        row    = memory[i.src_base:i.src_base + i.width * i.vectors]
        row    = row.reshape(i.width, -1)
        if i.mode == FillMode.POOL:
            other = memory[i.src_base2:i.src_base2 + i.width * i.vectors].reshape(i.width, -1)
            row   = np.maximum(row, other).reshape(i.width // 2, 2, -1).max(axis=1)
        elif i.mode == FillMode.UP:
            row   = row.repeat(2, axis=0)
        unit.write_row(i.dst_base, i.dst_stride, row, i.dst_vector * self.config.vector)
        self._tap(i, row)

    def _gate(self, engine, i):
        vector = self.config.vector
        width  = i.width if i.same else -(-i.width // 2)
        skip   = self.onchip[i.skip_base:i.skip_base + i.width * i.vectors].reshape(i.width, -1)
        params = self.gate_params[i.param_base * self.config.gate_lanes:][:skip.shape[1]]
        if i.wide:
            alpha = self.onchip[i.alpha_base:i.alpha_base + width * i.vectors].reshape(width, -1)
        else:
            words = -(-width // vector)
            alpha = self.alpha[i.alpha_base:i.alpha_base + words].reshape(-1, 1)[:width]
        alpha  = alpha if i.same else alpha.repeat(2, axis=0)[:i.width]
        acc    = (alpha.astype(np.int64) - i.zero_alpha) * (skip.astype(np.int64) - i.zero_skip)
        out    = requantise(acc, params, i.zero_out, i.low, i.high)
        self.units["decoder"].write_row(i.dst_base, i.dst_stride, out, i.dst_vector * vector)
        self._tap(i, out)

    def _tap(self, i, out_WC, channel=0, columns=None):
        if i.layer:
            columns = columns if columns is not None else range(len(out_WC))
            self.taps.setdefault((i.layer, i.row), []).append((channel, columns, out_WC))


def columns(layer):
    """Columns that the pixels of one output row go to."""
    return range(layer.odd, 2 * layer.width_out, 2) if layer.spread else range(layer.width_out)


class _Unit:
    """Memories of one compute unit."""

    def __init__(self, config, vector):
        self.outputs = config.outputs
        self.vector  = vector
        self.config  = config
        self.rows    = np.zeros((config.banks, config.row_words, vector), np.uint8)
        self.weights = np.zeros((config.weight_words, config.outputs, vector), np.int8)
        self.params  = np.zeros((config.params * config.outputs, 5), np.int64)
        self.table   = np.zeros(256, np.uint8)
        self.layers  = {}
        self.more_rows = []

    def _index(self, base, x, stride):
        return x % len(self.rows), base + x // len(self.rows) * stride

    def read_row(self, base, width, stride, vectors):
        bank, address = self._index(base, np.arange(width), stride)
        return self.rows[bank[:, None], address[:, None] + np.arange(vectors)].reshape(width, -1)

    def write_row(self, base, stride, row_WC, first, columns=None):
        """Bytes from channel ``first`` of each pixel, or of the pixels of ``columns``."""
        x = np.arange(len(row_WC)) if columns is None else np.array(columns)
        bank, address = self._index(base, x, stride)
        channel = first + np.arange(row_WC.shape[1])
        self.rows[bank[:, None], address[:, None] + channel // self.vector,
                  channel % self.vector] = row_WC


def requants(beats_NV):
    """(bias, multiplier, shift, least byte, largest byte) of one channel per beat."""
    return np.array([(r.bias, r.multiplier, r.shift, 0 if r.ceiling else r.bound,
                      r.bound if r.ceiling else 255) for r in (
        Requant.from_bits(int.from_bytes(beat[:8], "little")) for beat in beats_NV)], np.int64)


def requantise(acc_WC, params, zero, low, high):
    bias, multiplier, shift, floor, ceiling = params.T
    scaled = ((acc_WC + bias) * multiplier + (np.int64(1) << (shift - 1))) >> shift
    return np.clip(scaled + zero, np.maximum(low, floor),
                   np.minimum(high, ceiling)).astype(np.uint8)


