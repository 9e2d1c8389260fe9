"""A stream of frames: when each one was done, and what it looks like in motion."""

from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hw.control.counters import FRAME_STAMPS, Counter
from sim.pictures import overlay

__all__ = ["frame_times", "write_animation"]

LEAST_SIZE = 384        # pixels; smaller frames are enlarged by a whole factor
CAPTION    = 22         # rows below the picture
FASTEST_MS = 40         # a picture stays at least as long: what players of GIF keep up with
STEP_MS    = 10         # the unit of time of a GIF


def frame_times(counters, images, clock_mhz, arrived=()):
    """``stream`` of the report: cycles of every frame that the machine stamped, its first 64.

    A frame starts when its first bytes arrive and ends when the last bytes of its mask have landed.
    ``interval`` is the time since the previous mask, None for the first; ``jitter`` is the largest
    minus the smallest value. Of frames that ``arrived`` in these cycles, while the machine ran,
    ``delay`` is the time from there to the mask.
    """
    stamps  = range(min(len(images), FRAME_STAMPS))
    started = [counters[Counter.FRAME_STARTED, frame] for frame in stamps]
    ended   = [counters[Counter.FRAME_ENDED, frame] for frame in stamps]
    frames  = [{"image": images[frame], "started": started[frame], "ended": ended[frame],
                "latency": ended[frame] - started[frame],
                "interval": ended[frame] - ended[frame - 1] if frame else None}
               for frame in stamps]
    for frame, cycle in zip(frames, arrived, strict=False):     # of the first 64
        frame |= {"arrived": cycle, "delay": frame["ended"] - cycle}
    return {
        "frames":    frames,
        "clock_mhz": clock_mhz,
        "latency":   _spread([frame["latency"] for frame in frames]),
        "interval":  _spread([frame["interval"] for frame in frames[1:]]),
        **({"delay": _spread([frame["delay"] for frame in frames])} if arrived else {}),
    }


def write_animation(folder, frames, masks, stream):
    """Write ``overlay.gif`` and ``overlay.mp4``: each frame with its mask outlined, and its times.

    ``frames`` are uint8 3 x H x W, ``masks`` boolean H x W; ``stream`` is that of the report. Plays
    at the rate of the machine, but no faster than 25 frames a second.
    """
    folder    = Path(folder)
    captions  = [caption(index, stream, len(frames)) for index in range(len(frames))]
    pictures  = [_picture(*one) for one in zip(frames, masks, captions, strict=True)]
    interval  = stream["interval"]
    shown     = interval["mean"] / stream["clock_mhz"] / 1e3 if interval else FASTEST_MS
    millis    = max(FASTEST_MS, round(shown / STEP_MS) * STEP_MS)
    first, *others = [picture.quantize(256, dither=Image.Dither.NONE) for picture in pictures]
    first.save(folder / "overlay.gif", save_all=True, append_images=others, duration=millis, loop=0)
    _write_mp4(folder / "overlay.mp4", pictures, millis)


def caption(index, stream, count):
    """Number and times of a frame; a frame beyond the time stamps has only its number."""
    text = f"frame {index + 1} of {count}"
    if index >= len(stream["frames"]):
        return text
    frame = stream["frames"][index]
    for key in ("latency", "delay"):
        if key in frame:
            text += f"   {key} {frame[key] / stream['clock_mhz'] / 1e3:.3f} ms"
    if frame["interval"] is not None:
        text += f"   interval {frame['interval'] / stream['clock_mhz'] / 1e3:.3f} ms"
    return text


def _spread(values):
    """Least, mean and largest of some cycles, and how far they lie apart; None of no value."""
    if not values:
        return None
    return {"least": min(values), "mean": sum(values) / len(values), "most": max(values),
            "jitter": max(values) - min(values)}


def _picture(frame_CHW, mask_HW, text):
    """One picture of the animation; its sides are even, as MP4 wants them."""
    factor = max(1, -(-LEAST_SIZE // min(mask_HW.shape)))
    frame_HWC, lesion_HW = (np.asarray(x).repeat(factor, 0).repeat(factor, 1)
                            for x in (np.asarray(frame_CHW).transpose(1, 2, 0), mask_HW))
    height, width = lesion_HW.shape
    picture = Image.new("RGB", (width + width % 2, height + CAPTION + height % 2))
    picture.paste(Image.fromarray(overlay(frame_HWC, lesion_HW)))
    draw = ImageDraw.Draw(picture)
    draw.text((6, height + 4), text, fill=(255, 255, 255), font=ImageFont.load_default(12))
    return picture


def _write_mp4(path, pictures, millis):
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=round(1000 / millis))
        stream.width, stream.height, stream.pix_fmt = *pictures[0].size, "yuv420p"
        for picture in pictures:
            video.mux(stream.encode(av.VideoFrame.from_image(picture)))
        video.mux(stream.encode())
