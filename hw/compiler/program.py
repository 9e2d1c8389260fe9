"""What the compiler hands to whoever runs the machine."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from hw.compiler.memory import Block
from hw.compiler.pack import padded_channels
from hw.isa import Engine, Traffic


@dataclass(frozen=True)
class TapLayer:
    """What instructions of layer ``id`` produce, and on which unit."""
    id:       int
    name:     str
    unit:     str
    macs:     int
    tensor:   str
    channels: int
    height:   int
    width:    int
    layout:   tuple[int, ...] = ()      # runs of channels that begin at whole vectors
    lenders:  tuple[str, ...] = ()      # other units that made shares of it
    by_array: bool = True               # made by a MAC array, and not while data move


@dataclass(frozen=True)
class Program:
    """A compiled network: the off-chip image and how to use it.

    ``image`` starts at address 0; ``program_base`` goes to the register of that name, ``writable``
    to WRITE_BASE and WRITE_LIMIT: outputs and spilled maps lie there, and nothing else. Frames are
    to be written over the image at :meth:`frame_address` before the run; outputs are found at
    :meth:`output_address` after it.
    """
    image:            bytes
    program_base:     int
    program_bytes:    int
    frames:           int
    layers:           tuple[TapLayer, ...]
    layer_bytes:      dict[int, int]        # layer id -> off-chip bytes, all frames
    layer_traffic:    dict[int, dict[Traffic, int]]     # the same by class
    compulsory_bytes: int
    estimated_cycles: int
    timetable:        dict[Engine, list[int]]   # estimated cycle of 0, 1, 2 .. retirements
    layer_spans:      dict[int, tuple[int, int]]    # layer id -> the same of its first, last row
    blocks:           tuple[Block, ...]     # of on-chip and feedback memory
    occupancy:        dict[str, int]
    spilled:          tuple[str, ...]
    frames_at:        int
    frame_bytes:      int
    frame_row_bytes:  int
    outputs:          tuple     # of hw.compiler.machine.OutputArea; the first is the mask
    vector:           int
    writable:         tuple[int, int]       # first byte, and the first behind them
    frame_rows:       dict = field(default_factory=dict)
    """Layer id -> engine that lends or borrows -> the rows that it makes in each frame, in order;
    of what is not here, every engine makes the same rows in each frame."""

    def cycle_limit(self, config):
        """Cycles after which a run is stuck beyond doubt: four times those that the compiler
        expects and those that the machine's off-chip memory takes at best for all bytes, and a
        million."""
        moved = sum(sum(classes.values()) for classes in self.layer_traffic.values())
        return 4 * (self.estimated_cycles
                    + math.ceil(moved / config.peak_bytes_per_cycle)) + 1_000_000

    def frame_address(self, frame):
        return self.frames_at + frame * self.frame_bytes

    @property
    def mask_bytes(self):
        return self.outputs[0].bytes

    def mask_address(self, frame):
        return self.output_address(self.outputs[0], frame)

    def output_address(self, output, frame):
        return output.base + frame * output.bytes

    def pack_frame(self, image_CHW):
        """A uint8 frame as the loader expects it: 4 bytes a pixel, absent channels zero, rows
        filled up to whole vectors."""
        channels, height, width = image_CHW.shape
        packed_HWC = np.zeros((height, self.frame_row_bytes // 4, 4), np.uint8)
        if packed_HWC.nbytes != self.frame_bytes or width > packed_HWC.shape[1]:
            raise ValueError(f"Frame of {height}x{width} given where {self.frame_bytes} bytes "
                             "belong")
        packed_HWC[:, :width, :channels] = image_CHW.numpy().transpose(1, 2, 0)
        return packed_HWC.tobytes()

    def unpack_mask(self, blob):
        """The first output, uint8 H x W if it has one channel, from its bytes."""
        values_CHW = self.unpack(self.outputs[0], blob)
        return values_CHW[0] if len(values_CHW) == 1 else values_CHW

    def unpack(self, output, blob):
        """An output, uint8 C x H x W, from the bytes at :meth:`output_address`."""
        rows_HB = np.frombuffer(blob, np.uint8).reshape(output.height, output.row_bytes)
        if output.packed:
            return torch.from_numpy(rows_HB[None, :, :output.width].copy())
        positions, channels = padded_channels(output.layout, self.vector)
        values_HWC = rows_HB.reshape(output.height, output.width, channels)[:, :, positions]
        return torch.from_numpy(values_HWC.transpose(2, 0, 1).copy())
