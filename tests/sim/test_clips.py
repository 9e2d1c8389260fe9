import os
from functools import cache

import av
import numpy as np
import pytest
import torch
from PIL import Image

from golden.errors import InputError
from golden.images import read_image
from sim.clips import natural_order, read_clip

SIZE = 32


@cache
def phantom(seed):
    return read_image(f"phantom:{seed}", SIZE)


def picture(seed):
    """A phantom as an image."""
    return Image.fromarray(phantom(seed).permute(1, 2, 0).numpy())


@pytest.fixture
def folder(tmp_path):
    """Phantoms 1, 2 and 10 as files of that number, with what a folder also holds."""
    for seed in (10, 2, 1):
        picture(seed).save(tmp_path / f"scan {seed}.png")
    for name in ("scan 1_mask.png", "scan 1_mask_1.png", ".hidden.png"):
        picture(7).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def names(image, frames):
    return [name for name, _ in read_clip(image, frames, SIZE)]


def assert_frames(clip, *seeds):
    assert len(clip) == len(seeds)
    for (_, frame), seed in zip(clip, seeds, strict=True):
        assert torch.equal(frame, phantom(seed))


def test_one_phantom_stands_for_the_seeds_that_follow():
    assert names("phantom:7", 3) == ["phantom:7", "phantom:8", "phantom:9"]
    assert_frames(read_clip("phantom:7", 2, SIZE), 7, 8)


def test_folder_in_natural_order_without_masks(folder):
    clip = read_clip(str(folder), 3, SIZE)
    assert [name for name, _ in clip] == [str(folder / f"scan {k}.png") for k in (1, 2, 10)]
    assert_frames(clip, 1, 2, 10)


def test_too_few_are_repeated_and_of_too_many_the_first_are_taken(folder):
    assert_frames(read_clip(str(folder), 5, SIZE), 1, 2, 10, 1, 2)
    assert_frames(read_clip(str(folder), 2, SIZE), 1, 2)
    assert names("phantom:3, phantom:5", 3) == ["phantom:3", "phantom:5", "phantom:3"]


def test_names_with_commas_follow_each_other(folder):
    image = f"phantom:4, {folder}, {folder / 'scan 2.png'}"
    assert_frames(read_clip(image, 6, SIZE), 4, 1, 2, 10, 2, 4)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animation(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    picture(1).save(path, save_all=True, append_images=[picture(2), picture(3)], **options)
    clip = read_clip(str(path), 4, SIZE)
    assert [name for name, _ in clip] == [f"{path}#{index}" for index in (0, 1, 2, 0)]
    assert_frames(clip, 1, 2, 3, 1)


def test_still_png_is_an_ordinary_image(tmp_path):
    path = tmp_path / "still.png"
    picture(1).save(path)
    assert names(str(path), 1) == [str(path)]


def test_video(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=10)
        stream.width = stream.height = SIZE
        stream.pix_fmt, stream.options = "yuv444p", {"qp": "0"}
        for seed in (1, 2, 3):
            video.mux(stream.encode(av.VideoFrame.from_image(picture(seed))))
        video.mux(stream.encode())
    clip = read_clip(str(path), 4, SIZE)
    assert [name for name, _ in clip] == [f"{path}#{index}" for index in (0, 1, 2, 0)]
    for (_, frame), seed in zip(clip, (1, 2, 3, 1), strict=True):
        wanted = phantom(seed).numpy().astype(int)
        assert np.abs(frame.numpy().astype(int) - wanted).max() <= 4      # limited-range colours


def test_video_whose_notes_are_no_text(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as video:
        video.metadata["title"] = "TITLE" * 4
        stream = video.add_stream("libx264", rate=10)
        stream.width = stream.height = SIZE
        video.mux(stream.encode(av.VideoFrame.from_image(picture(1))))
        video.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"TITL\xff"))
    with pytest.raises(InputError, match=r"^Video '.*' cannot be decoded \('utf-8' codec .*\); "
                                         r"convert it to MP4, or to a folder of PNG images$"):
        read_clip(str(path), 1, SIZE)

def test_natural_order():
    assert natural_order(["b 10", "B 9", "a", "10", "9"]) == ["9", "10", "a", "B 9", "b 10"]


@pytest.mark.parametrize("image, line", [
    (" , ", "No image named; name a file, a folder, or phantom:7 for a synthetic one"),
    ("none.mp4", "No file 'none.mp4'; name an image, or phantom:SEED for a synthetic one"),
    ("empty", "Folder 'empty' has no PNG, JPEG or BMP image; name another folder, or a file"),
    ("text.gif", "File 'text.gif' is not a usable GIF, PNG or WebP image; convert it to PNG"),
    ("text.mp4", ("Video 'text.mp4' cannot be decoded (Invalid data found when processing input);"
                  " convert it to MP4, or to a folder of PNG images")),
    ("sound.avi", "Video 'sound.avi' has no picture stream; name another file"),
])
def test_unusable(tmp_path, monkeypatch, image, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("text.gif", "text.mp4"):
        (tmp_path / name).write_text("not a picture at all\n")
    with av.open("sound.avi", "w") as video:
        stream = video.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        video.mux(stream.encode(sound))
        video.mux(stream.encode())
    with pytest.raises(InputError) as caught:
        read_clip(image, 1, SIZE)
    assert str(caught.value) == line


def test_animation_cut_short(tmp_path):
    path = tmp_path / "clip.gif"
    picture(1).save(path, save_all=True, append_images=[picture(2)])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"^Image '.*clip\.gif' cannot be decoded \(.*\); the file "
                                         "may be damaged or cut short, export it again$"):
        read_clip(str(path), 1, SIZE)


def test_a_list_of_addresses_is_no_video(tmp_path):
    """FFmpeg tells a format by the content, and would open what a list names."""
    path = tmp_path / "clip.mp4"
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/clip.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match=r"^Video '.*clip\.mp4' cannot be decoded \(.*\); "
                                         "convert it to MP4, or to a folder of PNG images$"):
        read_clip(str(path), 1, SIZE)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.png"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=r"is a pipe or a device; name a file$"):
        read_clip(str(tmp_path / name), 1, SIZE)


@pytest.mark.parametrize("frames", [0, -1, 2**40])
def test_number_of_frames(frames):
    with pytest.raises(InputError, match=f"^Number of frames must be 1 to 100000, not {frames}$"):
        read_clip("phantom:7", frames, SIZE)


@pytest.mark.parametrize("seed", ["²", "9" * 5000])
def test_seed_that_python_takes_for_digits(seed):
    with pytest.raises(InputError, match="^Phantom seed must be a whole number of at least 0"):
        read_clip(f"phantom:{seed}", 2, SIZE)
