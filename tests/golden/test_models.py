import pytest
import torch

from golden import models
from golden.errors import InputError
from golden.folding import channel_factors, weight_steps
from golden.graph_file import load
from golden.images import read_image, read_truth
from golden.integer import float_mask, run
from golden.metrics import binary, dice, iou, pixel_agreement
from golden.models import (
    MODELS,
    default_shape,
    is_trained,
    load_float,
    load_graph,
    save_trained,
    seeded,
)
from golden.plan import plan
from golden.quantize import quantize


def test_unknown_model():
    for door in (load_graph, load_float, default_shape, is_trained):
        with pytest.raises(InputError, match="^No model 'elec4849'; known: elec4848, "
                                             "elec4848-ds, elec4848-ds-published, "
                                             "elec4848-classes, unet-busi, attunet-nuclei, "
                                             "attunet-ct$"):
            door("elec4849")


def test_default_shapes_are_the_sources():
    assert {model: default_shape(model) for model in MODELS} == {
        "elec4848": (256, 32), "elec4848-ds": (256, 32), "elec4848-ds-published": (256, 32),
        "elec4848-classes": (256, 32), "unet-busi": (224, 32), "attunet-nuclei": (256, 64),
        "attunet-ct": (224, 32)}


def test_size_defaults_to_the_source():
    assert load_graph("unet-busi", width=1).size == 224
    assert load_float("unet-busi", width=1).size == 224


def test_sizes_share_weights():
    small, large = load_graph(size=32, width=2), load_graph(size=64, width=2)
    assert small.layers is large.layers
    assert (small.size, large.size) == (32, 64)


def test_size_is_checked():
    with pytest.raises(InputError, match="^Frame size must be a positive multiple of 16, not 40; "
                                         "try 32$"):
        load_graph(size=40, width=2)
    with pytest.raises(InputError, match="^Frame size must be a positive multiple of 8, not 44; "
                                         "try 48$"):
        load_float("attunet-nuclei", size=44, width=2)


@pytest.mark.parametrize("model", MODELS)
def test_seeded_weights_are_the_same_every_time(model):
    a, b = seeded(model, 2).state_dict(), seeded(model, 2).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not is_trained(model, width=2)


@pytest.mark.parametrize("model", MODELS)
def test_seeded_weights_exercise_the_contract(model):
    graph = load_graph(model, size=64, width=4)
    values = run(graph, read_image("phantom:3", 64))
    assert 0.02 < (values["mask"] >= 128).float().mean() < 0.98
    assert graph.layer("e2a").multiplier[0] == 0        # the dead channel
    flat = [name for name, value in values.items() if value.min() == value.max()]
    assert flat == []


@pytest.mark.parametrize("model", MODELS)
@torch.no_grad()
def test_trained_weights_come_back_on_the_int8_grid(model, tmp_path, monkeypatch):
    network = seeded(model, 4)
    image = read_image("phantom:1", 32)
    graph = quantize(network, [image])
    monkeypatch.setattr(models, "WEIGHTS", tmp_path)
    save_trained(models.weights_path(model, 4), graph, network)
    assert is_trained(model, width=4)
    again = load_float(model, size=32, width=4)
    for old, new in zip(plan(network), plan(again), strict=True):
        if old.norm is not None:
            assert all(torch.equal(x, new.norm.state_dict()[key])
                       for key, x in old.norm.state_dict().items())
        if old.conv is None:
            continue
        assert (old.conv.bias is None) or torch.equal(old.conv.bias, new.conv.bias)
        first, second = (step.conv.weight.double() for step in (old, new))
        if old.kind == "transposed":
            first, second = first.transpose(0, 1), second.transpose(0, 1)
        gain_O = 1.0 if old.norm is None else (
            old.norm.weight / (old.norm.running_var + old.norm.eps).sqrt()).double()
        error_OI = (first - second).abs().amax((2, 3)) * torch.as_tensor(gain_O).abs()[..., None]
        factors = channel_factors(graph, old.inputs[0])
        factors = factors[:, None] if old.conv.groups > 1 else factors
        assert (error_OI <= 1.001 / 2 * weight_steps(graph, old)[:, None] * factors).all(), old.name
    # Quantising what came back, on the same frame, finds the same weights where the input has the
    # same factors per channel.
    twice = quantize(again, [image])
    stored, _ = load(models.weights_path(model, 4))
    same = [step.name for step in plan(network) if step.conv is not None and torch.equal(
        *(channel_factors(g, step.inputs[0]) for g in (twice, stored)))]
    assert ("e1a_dw" if model == "elec4848-ds" else "e1a") in same
    for name in same:
        assert torch.equal(twice.layer(name).weight, stored.layer(name).weight), name
    # Random weights with normalisation after ReLU pass on more of what rounding does.
    near = 0.1 if model == "attunet-ct" else 0.03
    assert (again.segment(image) - network.segment(image)).abs().mean() < near


@pytest.mark.parametrize(("width", "size"), [(32, 256), (8, 128)])
def test_trained_masks_find_the_lesion(width, size):
    assert is_trained(width=width)
    graph, network = load_graph(size=size, width=width), load_float(size=size, width=width)
    image, truth = read_image("phantom:0", size), read_truth("phantom:0", size) > 0
    mask, reference = binary(float_mask(graph, run(graph, image))), binary(network.segment(image))
    assert dice(mask, truth) > 0.85
    assert iou(mask, reference) > 0.95
    assert pixel_agreement(mask, reference) > 0.995


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Seeded networks are made anew, and kept in a folder of the test's own."""
    made = []
    monkeypatch.setattr(models, "CACHE", tmp_path / ".build")
    monkeypatch.setattr(models, "seeded", lambda *key: made.append(key) or seeded(*key))
    yield made
    models._graph.cache_clear()


def again(model, width):
    models._graph.cache_clear()         # as another process would
    return load_graph(model, 16, width), load_float(model, 16, width)


@pytest.mark.parametrize("model", ["elec4848", "attunet-ct"])
def test_seeded_networks_are_made_once(cache, model):
    """A rerun of `make sim CONFIG=tiny` spent 4 to 9 s of CPU on the same weights again."""
    first, second = again(model, 2), again(model, 2)
    assert cache == [(model, 2)] * 2, "once for the graph, once for the float network"
    image = read_image("phantom:3", 16)
    assert all(torch.equal(x, y) for x, y in zip(run(first[0], image).values(),
                                                 run(second[0], image).values(), strict=True))
    assert torch.equal(first[1].segment(image), second[1].segment(image))
    assert first[0].equalisation.keys() == second[0].equalisation.keys()


def test_changed_sources_make_seeded_networks_anew(cache, monkeypatch):
    again("unet-busi", 1)
    monkeypatch.setattr(models, "_sources", lambda: "others")
    again("unet-busi", 1)
    assert len(cache) == 4
    assert sorted(path.name for path in models.CACHE.iterdir()) == [
        "seeded-graph-unet-busi-1-others.safetensors",
        "seeded-weights-unet-busi-1-others.safetensors"]


def test_where_nothing_can_be_kept_it_is_made_again(cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(models, "CACHE", tmp_path / "file")
    again("unet-busi", 1)
    again("unet-busi", 1)
    assert len(cache) == 4
