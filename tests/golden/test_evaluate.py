import csv
import functools
import json
import os
import re
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from golden.contact import PER_SHEET, contact_sheets
from golden.data import find, load
from golden.evaluate import evaluate, main, totals, worst_first
from golden.export import calibration_images
from golden.integer import float_mask, run
from golden.metrics import METRICS, binary, measure
from golden.models import load_float, load_graph, seeded
from golden.quantize import quantize
from golden.training import save_checkpoint

SMALL = ["--width", "2", "--size", "32"]


@pytest.fixture
def folder(tmp_path):
    """Twelve images of two classes, without an index."""
    noise = np.random.default_rng(1)
    home = tmp_path / "data"
    for kind in ("benign", "normal"):
        place = home / "Dataset_BUSI_with_GT" / kind
        place.mkdir(parents=True)
        for i in range(6):
            image = noise.integers(0, 256, (32, 32), np.uint8)
            mask = np.zeros_like(image)
            if kind == "benign":
                mask[4:12, 4:20] = 255
            Image.fromarray(image).save(place / f"{kind} ({i}).png")
            Image.fromarray(mask).save(place / f"{kind} ({i})_mask.png")
    return home


def test_rows_and_means_are_those_of_the_masks():
    network, graph = load_float(width=2, size=32), load_graph(width=2, size=32)
    frames = load(find("phantom:3"), 32)
    rows = evaluate(network, graph, frames)
    for i, row in enumerate(rows):
        truth = frames.truth[i] > 0
        assert row["float"] == measure(binary(network.segment(frames.frame(i))), truth)
        assert row["int8"] == measure(binary(float_mask(graph, run(graph, frames.frame(i)))), truth)
        assert row["lesion"] == bool(truth.any())
    result = totals(rows)
    for form in ("float", "int8"):
        assert result[form]["all"]["dice"] == pytest.approx(
            sum(row[form]["dice"] for row in rows) / 3)
        lesions = [row[form]["iou"] for row in rows if row["lesion"]]
        assert result[form]["lesion"]["images"] == len(lesions)
        assert result[form]["lesion"]["iou"] == pytest.approx(sum(lesions) / len(lesions))


def constant(value):
    """A network of width 2 whose logit is ``value`` everywhere, and its graph."""
    network = seeded("elec4848", 2)
    with torch.no_grad():
        network.final.weight.zero_()
        network.final.bias.fill_(value)
    return network, quantize(network, [load(find("phantom:1"), 32).frame(0)])


def test_false_alarms_are_counted_where_there_is_no_lesion():
    frames = load(find("phantom:6"), 32)
    frames.truth[:4] = 0
    frames.truth[4:] = 0
    frames.truth[4:, :8, :16] = 255         # an eighth of two images
    result = totals(evaluate(*constant(2.0), frames))
    for form in ("float", "int8"):
        assert result[form]["false_alarms"] == {"images": 4, "alarms": 4}
        assert result[form]["lesion"]["pooled"] == {"iou": 1 / 8, "dice": 2 / 9}
    result = totals(evaluate(*constant(-2.0), frames))
    assert result["int8"]["false_alarms"] == {"images": 4, "alarms": 0}
    assert result["int8"]["lesion"]["pooled"] == {"iou": 0, "dice": 0}
    result = totals(evaluate(*constant(-2.0), frames.pick(frames.samples[4:])))
    assert result["float"]["false_alarms"] == {"images": 0, "alarms": 0}


@pytest.fixture
def quickly(monkeypatch):
    """Quantise on two frames."""
    monkeypatch.setattr("golden.evaluate.calibration_images",
                        functools.partial(calibration_images, count=2))


def test_a_peak_drops_alarms_and_says_so(tmp_path, capsys, quickly):
    """A confidence of 0.88 everywhere: PEAK=0.9 drops every mask, PEAK=0.8 none."""
    path, out = tmp_path / "best.pt", tmp_path / "out"
    save_checkpoint(path, constant(2.0)[0])
    arguments = ["--checkpoint", str(path), *SMALL, "--data", "phantom:6", "--out", str(out)]
    assert main([*arguments, "--peak", "0.9"]) == 0
    result = json.loads((out / "metrics.json").read_text())
    lesions = result["float"]["lesion"]["images"]
    healthy = 6 - lesions
    assert healthy and lesions
    for form in ("float", "int8"):
        before, after = result["peak"]["without"][form], result["peak"]["with"][form]
        assert (before["false_alarms"], before["missed"]) == (healthy, 0)
        assert after == {"lesion_iou": 0, "lesion_dice": 0, "false_alarms": 0, "missed": lesions}
        assert before["lesion_iou"] > 0
        assert result[form]["false_alarms"]["alarms"] == 0
        assert result[form]["lesion"]["iou"] == 0
    said = capsys.readouterr().out
    assert f"0 -> 0.0000, false alarms {healthy} -> 0, missed 0 -> {lesions}\n" in (
        said.replace(f"{before['lesion_iou']:.4f}", "0"))
    assert max(map(len, said.splitlines())) <= 80 + len(str(path))
    assert main([*arguments, "--peak", "0.8"]) == 0
    result = json.loads((out / "metrics.json").read_text())
    assert result["peak"]["with"] == result["peak"]["without"]
    assert main([*arguments, "--peak", "0.4"]) == 2
    assert "peak" not in json.loads(json.dumps(totals(evaluate(*constant(2.0),
                                                              load(find("phantom:2"), 32)))))


def test_what_confidence_is_worth(tmp_path):
    """0.88 everywhere, of an image that is lesion in an eighth: 0.88 minus 0.125 is the error."""
    frames = load(find("phantom:2"), 32)
    frames.truth.zero_()
    frames.truth[:, :8, :16] = 255
    result = totals(evaluate(*constant(2.0), frames))
    for form, confidence in (("float", 0.8808), ("int8", 225 / 256)):
        found = result[form]["calibration"]
        assert found["error"] == found["error_all"] == pytest.approx(confidence - 1 / 8, abs=0.01)
        filled = [entry for entry in found["ranges"] if entry["pixels"]]
        assert filled == [found["ranges"][13]]
        assert filled[0]["pixels"] == 2 * 32 * 32
        assert filled[0]["lesion"] == pytest.approx(1 / 8)
        assert result[form]["lesion_score"]["auc"] is None
    frames.truth[1] = 0
    result = totals(evaluate(*constant(-4.0), frames))
    assert result["int8"]["calibration"]["error"] is None       # no pixel has 0.1
    assert result["int8"]["lesion_score"]["auc"] == 0.5


def test_a_fitted_temperature_moves_no_mask(folder, tmp_path, capsys, quickly):
    path, out = tmp_path / "best.pt", tmp_path / "out"
    save_checkpoint(path, seeded("elec4848", 2))
    split = tmp_path / "split.csv"
    parts = ("train", "validation", "test")
    split.write_text("name,class,group,part\n" + "".join(
        f"{s.name},{s.kind},,{parts[i % 3]}\n" for i, s in enumerate(find(folder).samples)))
    arguments = ["--checkpoint", str(path), *SMALL, "--data", str(folder), "--out", str(out),
                 "--split", str(split), "--part", "test"]
    results = []
    for more in ([], ["--temperature", "fit"], ["--temperature", "2"]):
        assert main([*arguments, *more]) == 0
        results.append(json.loads((out / "metrics.json").read_text()))
    plain, fitted, fixed = results
    assert (plain["temperature"], fixed["temperature"]) == (None, 2)
    assert re.search(rf"^temperature {fitted['temperature']:.4f} fits 4 validation images$",
                     capsys.readouterr().out, re.M)
    assert plain["float"]["all"] == fitted["float"]["all"] == fixed["float"]["all"]
    assert plain["float"]["calibration"] != fitted["float"]["calibration"]
    assert (out / "reliability.png").exists()
    for text in ("cold", "0", "-1", "inf"):
        assert main([*arguments, f"--temperature={text}"]) == 2
        assert capsys.readouterr().err == (f"error: TEMPERATURE must be fit or a number above 0, "
                                           f"not {text!r}\n")
    assert main(["--temperature", "2"]) == 2
    assert capsys.readouterr().err == ("error: TEMPERATURE is of a checkpoint; name one with "
                                       "CHECKPOINT, such as elec4848-32\n")


def test_the_worst_come_first():
    rows = [{"name": name, "int8": {"iou": int8}, "float": {"iou": plain}}
            for name, int8, plain in (("a", 0.9, 0.1), ("b", 0.2, 0.3), ("c", 0.2, 0.1))]
    assert worst_first(rows, ["A", "B", "C"]) == ["C", "B", "A"]


def test_contact_sheets_show_every_image(tmp_path):
    """A sheet is as high as it has images; the mask of the last one is on the last sheet."""
    frames = load(find(f"phantom:{PER_SHEET + 1}"), 32)
    shown, done = [], []
    rows = evaluate(*constant(2.0), frames, shown=shown)
    assert shown[0].caption == (f"phantom:0: float IoU {rows[0]['float']['iou']:.3f}, Dice "
                                f"{rows[0]['float']['dice']:.3f}; INT8 IoU "
                                f"{rows[0]['int8']['iou']:.3f}, Dice "
                                f"{rows[0]['int8']['dice']:.3f}")
    assert shown[0].float_HW.all() and shown[0].int8_HW.all()
    assert abs(shown[0].confidence_HW.unique().item() - 0.8808) < 1 / 256       # sigmoid(2)
    names = contact_sheets(tmp_path, frames, shown, advance=lambda: done.append(1))
    assert names == ["masks-001.png", "masks-002.png"]
    assert len(done) == len(frames)
    first, last = (Image.open(tmp_path / name) for name in names)
    assert first.width == last.width
    assert first.height > 5 * last.height
    white = (np.array(last) == 255).all(-1).mean()
    none = evaluate(*constant(-2.0), frames, shown=(dark := []))
    assert not any(row["float"]["sensitivity"] for row in none if row["lesion"])
    contact_sheets(tmp_path, frames, dark)
    black = (np.array(Image.open(tmp_path / names[1])) == 255).all(-1).mean()
    assert white > black + 0.2                      # two of five panels were white


def test_sheets_of_a_run_with_more_images_go(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("masks-002.png", "masks-1000.png", "mine.png"):
        (out / name).touch()
    assert main([*SMALL, "--data", "phantom:2", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "images.csv", "masks-001.png", "metrics.json", "mine.png", "reliability.png"]


def test_a_folder_of_other_people(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*SMALL, "--data", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "no class 'malignant'" in said
    assert re.search(r"^ ?accuracy( +0\.\d{4} ± 0\.\d{4}){4} *$", said, re.M)      # one line
    alarms = re.search(r"^false alarms on 6 images without lesion: float (\d), INT8 (\d)$", said,
                       re.M)
    assert "related groups come from a screen for near duplicates, which found 0" in said
    result = json.loads((out / "metrics.json").read_text())
    assert result["weights"] == "none: seeded, without meaning"
    assert result["part"] == "all"
    for form in ("float", "int8"):
        parts = result[form]
        assert parts["all"]["images"] == 12
        assert parts["lesion"]["images"] == parts["class"]["benign"]["images"] == 6
        assert set(METRICS) <= parts["all"].keys()
        assert parts["false_alarms"] == {"images": 6,
                                         "alarms": int(alarms[1 if form == "float" else 2])}
        assert parts["lesion"]["dice"] == parts["class"]["benign"]["dice"]
    with (out / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert sum(int(row["lesion"]) for row in rows) == 6
    mean = sum(float(row["int8 accuracy"]) for row in rows) / 12
    assert mean == pytest.approx(result["int8"]["all"]["accuracy"], abs=1e-6)


def test_broken_pairs_stop_or_are_left_out(folder, tmp_path, capsys):
    (folder / "Dataset_BUSI_with_GT/benign/benign (3)_mask.png").unlink()
    arguments = [*SMALL, "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"error: 1 of 12 pairs in {str(folder)!r} are broken: benign/benign (3).png: no mask "
        f"belongs to it. Repair them, or leave them out with SKIP=1\n")
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--skip"]) == 0
    assert "left out benign/benign (3).png: no mask belongs to it" in capsys.readouterr().out
    result = json.loads((tmp_path / "out/metrics.json").read_text())
    assert result["left_out"] == ["benign/benign (3).png: no mask belongs to it"]
    assert result["float"]["all"]["images"] == 11


def test_a_checkpoint_is_quantised_on_the_way(tmp_path):
    path = tmp_path / "best.pt"
    save_checkpoint(path, seeded("elec4848", 2))
    assert main(["--checkpoint", str(path), *SMALL, "--data", "phantom:2", "--out",
                 str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out/metrics.json").read_text())
    assert result["weights"] == str(path)
    assert result["agreement"]["pixels equal"] > 0.9


def test_only_lesions_or_none(tmp_path):
    frames = load(find("phantom:2"), 32)
    frames = frames.pick([s for s, t in zip(frames.samples, frames.truth, strict=True) if t.any()])
    frames.truth.zero_()
    network, graph = load_float(width=2, size=32), load_graph(width=2, size=32)
    result = totals(evaluate(network, graph, frames))
    assert result["float"]["lesion"]["images"] == 0
    assert result["float"]["lesion"]["dice"] is None
    json.dumps(result, allow_nan=False)


def test_an_empty_part(folder, tmp_path, capsys):
    split = tmp_path / "split.csv"
    names = [s.name for s in find(folder).samples]
    split.write_text("name,class,group,part\n" + "".join(f"{n},x,,train\n" for n in names))
    assert main([*SMALL, "--data", str(folder), "--out", str(tmp_path / "out"), "--part", "test",
                 "--split", str(split)]) == 2
    assert capsys.readouterr().err == (f"error: The test part of {str(folder)!r} is empty; give "
                                       f"more images, or PART=all\n")


def test_a_file_where_the_folder_should_be(tmp_path, capsys):
    out = tmp_path / "x.json"
    out.touch()
    assert main([*SMALL, "--data", "phantom:1", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {str(out)!r} is a file; name a folder with OUT\n"


def test_another_network(tmp_path, capsys):
    path = tmp_path / "best.pt"
    save_checkpoint(path, seeded("elec4848", 2))
    assert main(["--checkpoint", str(path), "--model", "attunet-ct"]) == 2
    assert capsys.readouterr().err == (
        f"error: Checkpoint {str(path)!r} is of elec4848 with width 2, not of attunet-ct with "
        f"width 2; give MODEL=elec4848, or another checkpoint\n")


def test_threads_do_not_matter():
    """The integer masks are the same however many threads make them."""
    graph, frames = load_graph(width=2, size=32), load(find("phantom:1"), 32)
    count = torch.get_num_threads()
    try:
        masks = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            masks.append(run(graph, frames.frame(0))["mask"])
    finally:
        torch.set_num_threads(count)
    assert torch.equal(*masks)


def test_waiting_threads_sleep():
    """Awake, on two cores that others used too, they made 46 seconds of evaluation 9 minutes."""
    said = subprocess.run(["make", "--eval", "policy: ; @echo $$OMP_WAIT_POLICY", "policy"],
                          env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert said.stdout == "passive\n"
