"""Tensors from what the machine wrote: reads the files of ``sim/tap_recorder.v``.

One record is a 64-bit little-endian header, :func:`hw.interfaces.tap_layout` without its data, and
``vector`` bytes of which the first ``count`` are consecutive channels of one pixel.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from hw.compiler.ops import COPIED
from hw.compiler.pack import padded_channels
from hw.interfaces import tap_layout

__all__ = ["HEADER_BYTES", "MONITOR_BYTES", "Recorded", "first_mismatch",
           "golden_name", "meaningful", "read_monitor", "read_records", "read_tensors"]

HEADER_BYTES  = 8
MONITOR_BYTES = 4
GAP           = -1      # position of no channel


@dataclass(frozen=True)
class Recorded:
    """Tensor ``name`` of one frame, uint8 C x H x W.

    ``problem`` says in one line what was written never, twice or outside; None if all is well.
    """
    name:    str
    frame:   int
    values:  np.ndarray
    problem: str | None


def read_tensors(folder, layers, *, frames, vector, frame_rows=None):
    """Every layer's tensor in every frame, from all ``*.tap`` files of ``folder``.

    ``layers`` have ``id``, ``tensor``, ``channels``, ``height``, ``width`` and ``layout``. An
    engine handles its frames in order, so its records of a layer fall into ``frames`` equal parts,
    or, where units lend, into the rows of ``frame_rows``, those of
    :class:`hw.compiler.program.Program`.
    """
    files = {path.stem: _read(path, vector) for path in sorted(Path(folder).glob("*.tap"))}
    rows  = {layer: {engine.name.lower(): found for engine, found in engines.items()}
             for layer, engines in (frame_rows or {}).items()}
    return [recorded for layer in layers for recorded in _assemble(
        layer, files, frames, vector, rows.get(layer.id, {}))]


def read_monitor(path, layers, *, frames):
    """Attention maps as the monitor sent them: per frame, tensor name -> uint8 1 x H x W.

    A record is a 32-bit little-endian word: 8 bits of data, 8 of layer, 12 of row, and whether the
    row ends. Pixels of a row, and rows of a map, come in order; a map that is not complete is left
    out.
    """
    return attention_maps(np.fromfile(path, "<u4"), layers, frames=frames)


def attention_maps(words, layers, *, frames):
    """The same of the words themselves."""
    maps = [{} for _ in range(frames)]
    for layer in layers:
        mine = words[words >> 8 & 0xFF == layer.id] & 0xFF
        if mine.size and mine.size == frames * layer.height * layer.width:
            parts = mine.astype(np.uint8).reshape(frames, 1, layer.height, layer.width)
            for frame, part in zip(maps, parts, strict=True):
                frame[layer.tensor] = part
    return maps


def golden_name(name, known):
    """The tensor of the integer graph that one of a program equals: of those ``known``, it is
    itself, or the one that the compiler copied, once or twice, to where it can be read."""
    while name not in known and name.endswith(COPIED):
        name = next(name.removesuffix(copied) for copied in COPIED if name.endswith(copied))
    return name


def meaningful(raw, layers, vector):
    """Which bytes of the records ``raw`` (n x record) say something: all but those of ``data``
    behind ``count``, or at positions that are no channel of the layer."""
    records = _fields(raw, vector)
    mask    = np.ones(raw.shape, bool)
    for layer in layers:
        positions, _ = padded_channels(getattr(layer, "layout", ()) or (layer.channels,), vector)
        mine = np.flatnonzero(records["layer"] == layer.id)
        for byte in range(vector):
            place = records["channel"][mine] + byte
            mask[mine, HEADER_BYTES + byte] = ((byte < records["count"][mine])
                                               & np.isin(place, positions))
    return mask


def read_records(path, vector):
    """The bytes of all records of one file, n x record."""
    raw  = np.fromfile(path, np.uint8)
    size = HEADER_BYTES + vector
    return raw[:len(raw) // size * size].reshape(-1, size)


def first_mismatch(name, got_CHW, expected_CHW):
    """Where two tensors first differ, row by row; None if they do not."""
    wrong_CHW = got_CHW != expected_CHW
    if not wrong_CHW.any():
        return None
    row, column, channel = np.argwhere(wrong_CHW.transpose(1, 2, 0))[0].tolist()
    return {"layer": name, "channel": channel, "row": row, "column": column,
            "expected": int(expected_CHW[channel, row, column]),
            "got": int(got_CHW[channel, row, column])}


def _read(path, vector):
    """Fields of all records of one file, as arrays."""
    return _fields(read_records(path, vector), vector)


def _fields(raw, vector):
    head = raw[:, :HEADER_BYTES].copy().view("<u8")[:, 0]
    records, offset = {"data": raw[:, HEADER_BYTES:]}, 0
    for name, field in tap_layout(vector=vector):
        if name != "data":
            width         = field.width
            records[name] = (head >> np.uint64(offset) & np.uint64((1 << width) - 1)).astype(int)
            offset       += width
    return records


def _assemble(layer, files, frames, vector, frame_rows):
    positions, _ = padded_channels(getattr(layer, "layout", ()) or (layer.channels,), vector)
    parts = []
    for engine, records in files.items():
        mine = records["layer"] == layer.id
        if mine.any():
            part = {name: values[mine] for name, values in records.items()}
            part["frame"] = _frames(part["row"], frames, frame_rows.get(engine))
            parts.append(part)
    records = ({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
               if parts else None)
    for frame in range(frames):
        mine = records and records["frame"] == frame
        yield _one_frame(layer, frame, positions, records and {
            name: values[mine] for name, values in records.items() if name != "frame"})


def _frames(rows, frames, frame_rows):
    """The frame of each of an engine's records of a layer, which have these ``rows``: it makes
    those of ``frame_rows`` in each frame, or the same in all."""
    equal = np.arange(len(rows)) * frames // len(rows)
    if frame_rows is None:
        return equal
    made = []                       # row, and the frames in which it is made one after the other
    for frame, found in enumerate(frame_rows):
        for row in found:
            if made and made[-1][0] == row:
                made[-1][1].add(frame)
            else:
                made.append((row, {frame}))
    edges = [0, *(np.flatnonzero(np.diff(rows)) + 1), len(rows)]
    if [rows[start] for start in edges[:-1]] != [row for row, _ in made]:
        return equal                # something is missing: it will be found to be
    return np.concatenate([np.array(sorted(found))[np.arange(stop - start) * len(found)
                                                   // (stop - start)]
                           for (start, stop), (_, found) in zip(pairwise(edges), made,
                                                                strict=True)])


def _one_frame(layer, frame, positions, records):
    """A tensor from its records. Those give a channel by its position in memory, where runs of
    channels begin at whole vectors; what lies in the gaps between runs is nobody's."""
    channel_at = np.full(len(positions) and positions[-1] + 1, GAP)
    channel_at[positions] = np.arange(len(positions))
    shape   = (layer.channels, layer.height, layer.width)
    values  = np.zeros(np.prod(shape), np.uint8)
    written = np.zeros(np.prod(shape), np.int64)
    outside = 0
    for byte in range(records["count"].max(initial=0) if records else 0):
        place   = records["channel"] + byte
        known   = place < len(channel_at)
        channel = np.where(known, channel_at[np.where(known, place, 0)], GAP)
        used    = (byte < records["count"]) & (channel != GAP)
        within  = used & (records["row"] < layer.height) & (records["column"] < layer.width)
        outside += int((used & ~within).sum())
        index   = ((channel * layer.height + records["row"]) * layer.width
                   + records["column"])[within]
        values[index] = records["data"][within, byte]
        written      += np.bincount(index, minlength=written.size)
    return Recorded(layer.tensor, frame, values.reshape(shape),
                    _problem(layer, frame, written.reshape(shape), outside))


def _problem(layer, frame, written_CHW, outside):
    for wrong_CHW, what in ((written_CHW == 0, "never written"),
                            (written_CHW > 1, "written more than once")):
        if wrong_CHW.any():
            row, column, channel = np.argwhere(wrong_CHW.transpose(1, 2, 0))[0].tolist()
            return (f"{int(wrong_CHW.sum())} elements of {layer.tensor} {what} in frame {frame}; "
                    f"the first is channel {channel}, row {row}, column {column}")
    if outside:
        return f"{outside} elements written outside of {layer.tensor} in frame {frame}"
    return None
