"""Networks that tell lesions apart."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from golden.classes import class_mask, codes, comparisons, lesion_logit, numbers, one_hot
from golden.confidence import fit_temperature, temper
from golden.data import find, load
from golden.data.phantoms import TRAIN_SEEDS, phantoms
from golden.data.sample import Dataset, Sample
from golden.errors import InputError
from golden.evaluate import evaluate, totals
from golden.graph_file import load as load_file
from golden.graph_file import save
from golden.images import read_image
from golden.integer import execute, float_mask, real, run
from golden.models import load_float, load_graph, seeded
from golden.networks import Elec4848
from golden.phantom import lesion_kind
from golden.quantize import quantize
from golden.training import Settings, load_checkpoint, train
from golden.training.losses import LOSSES
from golden.training.start import begin

NAMES = ("background", "benign", "malignant", "other")


def network(count, seed=1):
    """A small network of ``count`` classes whose logits differ from place to place."""
    torch.manual_seed(seed)
    made = Elec4848(size=32, width=2, depth=1, classes=NAMES[:count])
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.4)
    return made.eval()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_graph_s_mask_is_the_largest_stored_logit(count):
    images = [read_image(f"phantom:{seed}", 32) for seed in range(3)]
    graph  = quantize(network(count), images)
    assert graph.classes == NAMES[:count]
    seen = set()
    for image in images:
        values = run(graph, image)
        mask, logit = values["mask"][0].numpy(), values["logit"].numpy()
        first = logit.argmax(0)                     # NumPy's: the first of equal ones
        assert (mask == np.where(first > 0, 128 + first, 0)).all()
        seen |= set(first.flatten())
    assert len(seen) > 1


def test_ties_go_to_the_first_class():
    """All triples of four values, so with every tie there is."""
    graph  = quantize(network(3), [read_image("phantom:1", 32)])
    logit  = torch.cartesian_prod(*[torch.arange(100, 104)] * 3).T.reshape(3, 8, 8)
    values = {"logit": logit.to(torch.uint8)}
    for layer in graph.layers[-3:]:
        values[layer.name] = execute(graph, layer, *(values[name] for name in layer.inputs))
    assert (numbers(values["mask"][0]) == torch.from_numpy(logit.numpy().argmax(0))).all()


def test_bits_that_contradict_each_other_are_background():
    _, table = codes(3)
    # Of the pairs (0, 1), (0, 2), (1, 2): 1 beats 0, 0 beats 2, 2 beats 1.
    assert table[0b101] == 0
    assert table[:8].tolist() == [0, 129, 0, 129, 0, 0, 130, 130]
    assert not table[8:].any()


@pytest.mark.parametrize("classes", [("a",), ("a", "a"), tuple("abcde")])
def test_classes_that_no_mask_can_tell_apart(classes):
    with pytest.raises(InputError, match="^Classes must be 2 to 4 different names, the background "
                                         f"first, not {', '.join(map(repr, classes))}$"):
        Elec4848(classes=classes)


def test_float_masks_and_confidence():
    logit_NCHW = torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, 0.0], [0.0, 1.0, 3.0],
                               [2.0, 2.0, 1.0]]).T[None, :, None]
    mask_N1HW = class_mask(logit_NCHW)
    assert (256 * mask_N1HW).flatten().tolist() == [0, 129, 130, 0]
    assert numbers(mask_N1HW[0, 0]).tolist() == [[0, 1, 2, 0]]
    probability = logit_NCHW.softmax(1)[:, 1:].sum(1, keepdim=True)
    assert torch.allclose(lesion_logit(logit_NCHW).sigmoid(), probability)
    alone = torch.randn(2, 1, 3, 3)
    assert lesion_logit(alone) is alone


def test_float_and_integer_masks_agree_but_for_rounding():
    graph, net = load_graph("elec4848-classes", 64, 4), load_float("elec4848-classes", 64, 4)
    image = read_image("phantom:7", 64)
    values = run(graph, image)
    equal = numbers(net.segment(image)) == numbers(float_mask(graph, values))
    assert equal.float().mean() > 0.95
    with torch.no_grad():
        logit_CHW = net(image[None] / 255)[0]
    assert (real(graph, values, "logit") - logit_CHW).abs().mean() < 0.1 * logit_CHW.std()


def test_a_file_keeps_the_classes(tmp_path):
    graph = quantize(network(3), [read_image("phantom:1", 32)])
    save(graph, tmp_path / "graph.safetensors")
    assert load_file(tmp_path / "graph.safetensors")[0].classes == NAMES[:3]
    save(dataclasses.replace(graph, classes=("a", "a")), tmp_path / "graph.safetensors")
    with pytest.raises(InputError, match="its mask cannot tell 2 classes apart"):
        load_file(tmp_path / "graph.safetensors")


def framed(tmp_path, kinds):
    """A frame per kind, of 32 x 32: a bright square on the left if malignant, on the right if
    benign, and what is marked in it."""
    samples = []
    for number, kind in enumerate(kinds):
        image = np.random.default_rng(number).integers(0, 90, (32, 32), np.uint8)
        mask  = np.zeros_like(image)
        if kind != "normal":
            left = 3 + number % 4 + (0 if kind == "malignant" else 16)
            mask[8:18, left:left + 9] = 255
            image[mask > 0] = 220 if kind == "malignant" else 160
        paths = [tmp_path / f"{number}{end}.png" for end in ("", "_mask")]
        for path, pixels in zip(paths, (image, mask), strict=True):
            Image.fromarray(pixels).save(path)
        samples.append(Sample(f"{number}", paths[0], (paths[1],), kind, f"{number}"))
    return load(Dataset("made", "made", tuple(samples)), 32)


def test_a_frame_has_the_class_of_its_sample(tmp_path):
    frames = framed(tmp_path, ["malignant", "normal", "benign"])
    assert frames.numbers(NAMES[:3]).tolist() == [2, 0, 1]
    with pytest.raises(InputError) as refused:
        frames.numbers(("background", "benign"))
    assert str(refused.value) == (
        "0 has a lesion of class 'malignant', and the network knows benign; take other data, or a "
        "network that finds lesions of any class, such as elec4848")


def test_a_phantom_has_the_class_of_its_lesions():
    kinds  = [lesion_kind(seed) for seed in range(40)]
    frames = load(find("phantom:40"), 64)
    assert set(kinds) == {None, "benign", "malignant"}
    assert [kind is not None for kind in kinds] == [bool(t.any()) for t in frames.truth]
    assert frames.numbers(NAMES[:3]).tolist() == [0 if kind is None else NAMES.index(kind)
                                                  for kind in kinds]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_those_of_the_true_class(loss):
    """Sure of the right class, of the wrong one, and of none: the loss grows in that order, or at
    least does not fall."""
    truth_NKHW = torch.zeros(1, 2, 4, 4)
    truth_NKHW[:, 1, 1:3] = 1
    def logits(number):
        sure = 9 * one_hot(truth_NKHW.sum(1, keepdim=True), torch.tensor([number]), 3)
        return torch.cat([4.5 * torch.ones(1, 1, 4, 4), sure], 1)
    right, wrong = (float(LOSSES[loss](logits(number), truth_NKHW)) for number in (2, 1))
    assert right < 0.1 < 0.2 < wrong
    if loss == "bce":
        mean = nn.functional.cross_entropy(logits(1), 2 * truth_NKHW[:, 1].long())
        assert wrong == pytest.approx(float(mean), rel=1e-5)


def test_classes_are_learnt(tmp_path):
    """From nothing, in a few seconds: lesions are found, and called by their class."""
    frames = framed(tmp_path, ["malignant", "benign", "normal"] * 2)
    settings = Settings(model="elec4848-classes", width=4, size=32, crop=32, epochs=1, steps=90,
                        batch=6, rate=3e-2, loss="dice", augmentation="none", average=0.9,
                        dropout=False)
    assert train(settings, frames, frames, tmp_path / "run") > 0.8
    net = load_checkpoint(tmp_path / "run/best.pt", "elec4848-classes")
    graph = quantize(net, [frames.frame(i) for i in range(6)])
    result = totals(evaluate(net, graph, frames), net.classes)
    for form in ("float", "int8"):
        told = result[form]["classes"]
        assert min(told["found"][name]["iou"] for name in NAMES[1:3]) > 0.7
        assert told["frames"]["benign"] == {"background": 0, "benign": 2, "malignant": 0}
        assert told["frames"]["malignant"] == {"background": 0, "benign": 0, "malignant": 2}


def test_a_run_on_classes_goes_on_where_it_was_stopped(tmp_path):
    frames = framed(tmp_path, ["malignant", "benign", "normal"])
    settings = Settings(model="elec4848-classes", width=2, size=32, crop=32, epochs=2, batch=2,
                        blended=0.5)
    train(settings, frames, frames, tmp_path / "whole")
    class Killed(Exception):
        pass
    def stop(text):
        raise Killed
    with pytest.raises(Killed):
        train(settings, frames, frames, tmp_path / "halves", report=stop)
    train(settings, frames, frames, tmp_path / "halves", resume=True)
    whole, halves = (load_checkpoint(tmp_path / name / "last.pt").state_dict()
                     for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


class Says(nn.Module):
    """Stands for a network: it calls the upper half of every frame by one class."""
    name, classes = "says", NAMES[:3]

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, frame_N3HW):
        logit_NCHW = torch.zeros(len(frame_N3HW), 3, *frame_N3HW.shape[2:])
        logit_NCHW[:, 0] = 2.0
        logit_NCHW[:, self.number, :frame_N3HW.shape[2] // 2] = 5.0
        return logit_NCHW

    def segment(self, image_CHW):
        return class_mask(self(image_CHW[None]))[0, 0]


def test_measures_of_classes(tmp_path, monkeypatch):
    """A benign frame, a malignant one and a normal one, whose upper halves are called benign by
    the float network and malignant by the other."""
    frames = framed(tmp_path, ["benign", "malignant", "normal"])
    frames.truth[:2] = 0
    frames.truth[:2, :8] = 255          # a quarter of each frame
    def found(net, graph, image):
        nets = {"float": Says(1), "int8": Says(2)}
        return ({form: numbers(net.segment(image)) for form, net in nets.items()},
                dict.fromkeys(nets, lesion_logit(Says(1)(image[None])).sigmoid()[0, 0]))
    monkeypatch.setattr("golden.evaluate._found", found)
    rows = evaluate(Says(1), None, frames)
    assert [row["truth"] for row in rows] == [1, 2, 0]
    assert [row["pixels equal"] for row in rows] == [0.5] * 3
    assert [row["iou float/int8"] for row in rows] == [1.0] * 3         # lesion is lesion
    assert [row["float"]["iou"] for row in rows] == [0.5, 0.5, 0.0]
    result = totals(rows, NAMES[:3])
    benign, malignant = (result["float"]["classes"]["found"][name] for name in NAMES[1:3])
    assert benign["images"] == malignant["images"] == 1
    assert (benign["iou"], benign["dice"]) == (0.5, pytest.approx(2 / 3))
    assert (malignant["iou"], malignant["dice"]) == (0.0, 0.0)
    # 3 halves of a frame are called benign, and a quarter of one is.
    assert benign["pooled"] == {"iou": pytest.approx(1 / 6), "dice": pytest.approx(2 / 7)}
    assert result["float"]["classes"]["frames"] == {
        name: {"background": 0, "benign": 1, "malignant": 0} for name in NAMES[:3]}
    assert result["int8"]["classes"]["found"]["malignant"]["iou"] == 0.5


def test_a_temperature_moves_no_mask():
    net, frame = seeded("elec4848-classes", 2), read_image("phantom:2", 32)
    cooler = temper(net, 1.7)
    with torch.no_grad():
        assert torch.allclose(cooler(frame[None] / 255), net(frame[None] / 255) / 1.7, atol=1e-5)
    assert torch.equal(cooler.segment(frame), net.segment(frame))


def test_the_temperature_has_the_least_cross_entropy(tmp_path):
    """Of a network that is right on five eighths of the pixels of two frames, and more sure than
    that."""
    frames = framed(tmp_path, ["benign", "malignant"])
    frames.truth[:] = 0
    frames.truth[0, :20], frames.truth[1, 16:20] = 255, 255
    temperature = fit_temperature(Says(1), frames)

    def loss(divisor):
        return sum(float(nn.functional.cross_entropy(
            Says(1)(frames.frame(i)[None]) / divisor,
            (i + 1) * (frames.truth[i:i + 1] > 0).long())) for i in range(2))
    assert 1 < temperature < 15
    assert loss(temperature) < min(loss(0.95 * temperature), loss(1.05 * temperature), loss(1))


@torch.no_grad()
def test_it_starts_from_a_network_that_finds_lesions():
    source = seeded("elec4848", 2).eval()
    started = begin(seeded("elec4848-classes", 2), source, noise=0.0).eval()
    frame = torch.rand(1, 3, 32, 32)
    logit_NCHW = started(frame)
    assert torch.allclose(lesion_logit(logit_NCHW), source(frame), atol=1e-4)
    assert torch.allclose(logit_NCHW[:, 1], logit_NCHW[:, 2])


def test_comparisons_read_both_logits_of_each_pair():
    assert comparisons(3)[:, :, 0, 0].tolist() == [[-1, 1, 0], [-1, 0, 1], [0, -1, 1]]


def test_phantoms_train_it(tmp_path):
    frames = load(phantoms(TRAIN_SEEDS, 6), 32)
    settings = Settings(model="elec4848-classes", width=2, size=32, crop=32, epochs=1, batch=2)
    train(settings, frames, frames, tmp_path / "run", phantoms=frames)
    assert (tmp_path / "run/best.pt").exists()
