"""What the compiler hands to whoever runs the machine."""

from dataclasses import dataclass

import numpy as np
import torch


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


@dataclass(frozen=True)
class Program:
    """A compiled network: the off-chip image and how to use it.

    ``image`` starts at address 0; ``program_base`` goes to the register of that name. Frames are
    to be written over the image at :meth:`frame_address` before the run, masks are found at
    :meth:`mask_address` after it: rows of ``mask_row_bytes``, of which the first ``width`` count.
    """
    image:            bytes
    program_base:     int
    program_bytes:    int
    frames:           int
    layers:           tuple[TapLayer, ...]
    layer_bytes:      dict[int, int]        # layer id -> off-chip bytes, all frames
    compulsory_bytes: int
    estimated_cycles: int
    occupancy:        dict[str, int]
    spilled:          tuple[str, ...]
    frames_at:        int
    frame_bytes:      int
    masks_at:         int
    mask_bytes:       int
    mask_row_bytes:   int
    mask_height:      int
    mask_width:       int

    def frame_address(self, frame):
        return self.frames_at + frame * self.frame_bytes

    def mask_address(self, frame):
        return self.masks_at + frame * self.mask_bytes

    def pack_frame(self, image_CHW):
        """A uint8 frame as the loader expects it: 4 bytes a pixel, absent channels zero."""
        channels, height, width = image_CHW.shape
        packed_HWC = np.zeros((height, width, 4), np.uint8)
        packed_HWC[:, :, :channels] = image_CHW.numpy().transpose(1, 2, 0)
        blob = packed_HWC.tobytes()
        if len(blob) != self.frame_bytes:
            raise ValueError(f"Frame of {len(blob)} bytes given where {self.frame_bytes} belong")
        return blob

    def unpack_mask(self, blob):
        """The mask, uint8 H x W, from the bytes at :meth:`mask_address`."""
        rows_HB = np.frombuffer(blob, np.uint8).reshape(self.mask_height, self.mask_row_bytes)
        return torch.from_numpy(rows_HB[:, :self.mask_width].copy())
