import json

import av
import jsonschema
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from golden.images import read_image
from hw.control.counters import Counter
from sim import run
from sim.report import SCHEMA
from sim.summary import print_summary
from sim.video import caption, frame_times, write_animation

YELLOW = (255, 220, 0)


def stamps(*pairs):
    """Counters with these starts and ends of frames."""
    return {(counter, frame): pair[which] for frame, pair in enumerate(pairs)
            for which, counter in enumerate((Counter.FRAME_STARTED, Counter.FRAME_ENDED))}


STREAM = frame_times(stamps((10, 110_010), (60_000, 190_010), (120_000, 250_010)),
                     ["a.png", "b.png", "a.png"], 100.0)


def test_times_of_a_stream():
    assert STREAM["frames"] == [
        {"image": "a.png", "started": 10, "ended": 110_010, "latency": 110_000, "interval": None},
        {"image": "b.png", "started": 60_000, "ended": 190_010, "latency": 130_010,
         "interval": 80_000},
        {"image": "a.png", "started": 120_000, "ended": 250_010, "latency": 130_010,
         "interval": 60_000}]
    assert STREAM["latency"] == {"least": 110_000, "mean": 370_020 / 3, "most": 130_010,
                                 "jitter": 20_010}
    assert STREAM["interval"] == {"least": 60_000, "mean": 70_000, "most": 80_000,
                                  "jitter": 20_000}


def test_one_frame_has_no_interval():
    stream = frame_times(stamps((10, 110)), ["phantom:7"], 300.0)
    assert stream["interval"] is None
    assert stream["latency"]["jitter"] == 0


def test_frames_beyond_the_time_stamps_have_no_times():
    stream = frame_times(stamps(*((100 * n, 100 * n + 50) for n in range(64))),
                         ["phantom:7"] * 70, 100.0)
    assert len(stream["frames"]) == 64
    assert caption(69, stream, 70) == "frame 70 of 70"


def test_captions():
    assert caption(0, STREAM, 3) == "frame 1 of 3   latency 1.100 ms"
    assert caption(2, STREAM, 3) == "frame 3 of 3   latency 1.300 ms   interval 0.600 ms"


@pytest.fixture
def frames():
    """Three grey frames of 30 x 32 and their masks: a square that wanders to the right."""
    pixels = [np.full((3, 30, 32), 40 + 10 * n, np.uint8) for n in range(3)]
    masks  = [np.zeros((30, 32), bool) for _ in range(3)]
    for n, mask in enumerate(masks):
        mask[10:20, 5 + 5 * n:15 + 5 * n] = True
    return pixels, masks


def test_animation_outlines_every_mask(tmp_path, frames):
    write_animation(tmp_path, *frames, STREAM)
    with Image.open(tmp_path / "overlay.gif") as animation:
        assert animation.n_frames == 3
        assert animation.size == (32 * 13, 30 * 13 + 22)
        assert animation.info["duration"] == 40
        for n in range(3):
            animation.seek(n)
            picture = np.asarray(animation.convert("RGB"))[:30 * 13]
            rows, columns = np.nonzero((picture == YELLOW).all(-1))
            assert (rows.min(), rows.max()) == (130, 259)
            assert (columns.min(), columns.max()) == (65 * (n + 1), 65 * (n + 1) + 129)
            assert (picture[0, 0] == 40 + 10 * n).all()


def test_video_shows_the_same(tmp_path, frames):
    write_animation(tmp_path, *frames, STREAM)
    with (av.open(str(tmp_path / "overlay.mp4")) as video,
          Image.open(tmp_path / "overlay.gif") as animation):
        assert video.streams.video[0].average_rate == 25
        shown = [picture.to_ndarray(format="rgb24") for picture in video.decode(video=0)]
        assert len(shown) == 3
        for n, picture in enumerate(shown):
            animation.seek(n)
            wanted = np.asarray(animation.convert("RGB")).astype(int)
            assert np.abs(picture - wanted).mean() < 4


def test_slow_machine_plays_at_its_own_rate(tmp_path, frames):
    slow = frame_times(stamps((0, 5_000_000), (0, 17_000_000), (0, 29_000_000)), ["a"] * 3, 50.0)
    write_animation(tmp_path, *frames, slow)
    with Image.open(tmp_path / "overlay.gif") as animation:
        assert animation.info["duration"] == 240
    with av.open(str(tmp_path / "overlay.mp4")) as video:
        assert video.streams.video[0].average_rate == 4


@pytest.fixture
def folder(tmp_path):
    """Two phantoms as files."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for seed in (8, 11):
        pixels = read_image(f"phantom:{seed}", 64).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(scans / f"{seed}.png")
    return scans


@pytest.mark.cosim
def test_folder_through_the_machine(tmp_path, folder):
    options = run.Options(config="tiny", size=16, width=4, frames=3, image=str(folder),
                          out=str(tmp_path / "run"))
    report  = run.run(options, Console(quiet=True))
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["bit_exact"] and report["tensors"]["compared"] == 15

    stream = report["stream"]
    images = [str(folder / f"{seed}.png") for seed in (8, 11, 8)]
    assert report["input"]["images"] == [frame["image"] for frame in stream["frames"]] == images
    ends = [frame["ended"] for frame in stream["frames"]]
    assert ends == sorted(set(ends)) and ends[-1] <= report["cycles"]["total"]
    assert stream["frames"][0]["latency"] == report["cycles"]["latency"]
    assert stream["frames"][1]["started"] < ends[0], "frames overlap"
    assert stream["interval"]["mean"] == report["cycles"]["interval"]       # median of two
    for name in ("overlay.gif", "overlay.mp4"):
        assert (tmp_path / "run" / name).stat().st_size > 1000

    console = Console(record=True, width=120, quiet=False, file=(tmp_path / "log").open("w"))
    print_summary(console, report, tmp_path)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["3", "8.png", *(str(stream["frames"][2][key])
                            for key in ("started", "ended", "latency", "interval"))] in lines
    assert ["jitter", "cycles", str(stream["latency"]["jitter"]),
            str(stream["interval"]["jitter"])] in lines
    console.file.close()
