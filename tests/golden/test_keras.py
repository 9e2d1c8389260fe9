import json
import re

import h5py
import numpy as np
import pytest
import torch

from golden import evaluate
from golden.errors import InputError
from golden.keras import BLOCKS, MODULES, NORMS, read_keras
from golden.training.checkpoint import load_checkpoint

WIDTH = 2
EPSILON = 1e-3


def keras_weights(width=WIDTH, seed=0):
    """Arrays by tensor, with Keras' names and layout, in the order in which its model is built."""
    random = np.random.default_rng(seed)
    filters = [width << level for level in range(5)]

    def conv(inputs, outputs, kernel=3):
        scale = np.sqrt(2 / (kernel**2 * inputs))
        return {"kernel": random.normal(0, scale, (kernel, kernel, inputs, outputs)),
                "bias": random.normal(0, 0.1, outputs)}

    weights = {}
    for level, (inputs, f) in enumerate(zip([3, *filters], filters, strict=False), 1):
        weights[f"e{level}a"] = conv(inputs, f)
        weights["encoding" if level == 5 else f"c{level}"] = conv(f, f)
    for i, f in enumerate(reversed(filters[:-1]), 1):
        weights[f"g{i}_normal"] = conv(2 * f, f)
        weights[f"g{i}_down"] = conv(f, f)
        weights[f"g{i}_logit"] = conv(f, 1, 1)
        weights[f"gated{i}"] = {"gamma": random.normal(1, 0.3, f), "beta": random.normal(0, 0.2, f),
                                "moving_mean": random.normal(0, 0.2, f),
                                "moving_variance": random.uniform(0.3, 2, f)}
        weights[f"d{i}a"] = conv(3 * f, f)
        weights[f"d{i}"] = conv(f, f)
    weights["logit"] = conv(width, 1, 1)
    return {name: {part: x.astype(np.float32) for part, x in arrays.items()}
            for name, arrays in weights.items()}


def block_names(weights):
    """Places in the file as the source's custom layers have them, with Keras' counters."""
    owner = {name: block for block, tensors in BLOCKS.items() for name in tensors.values()}
    places, count, norms = {}, 0, 0
    for name in weights:
        if name in NORMS:
            suffix = f"_{norms}" if norms else ""
            places[name] = f"{NORMS[name]}/batch_normalization{suffix}"
            norms += 1
            continue
        layer = f"conv2d_{count}" if count else "conv2d"
        count += 1
        if name == "logit":
            places[name] = layer
        elif owner[name].startswith("Decoder"):
            places[name] = f"{owner[name]}/encoder_block/{layer}"
        else:
            places[name] = f"{owner[name]}/{layer}"
    return places


def attribute_names(weights):
    """The same with convolutions named as the source's attributes."""
    places = {name: f"{block}/{part}" for block, tensors in BLOCKS.items()
              for part, name in tensors.items()}
    places |= {name: f"{block}/BN" for name, block in NORMS.items()}
    return {name: places.get(name, "output") for name in weights}


def tensor_names(weights):
    return {name: name for name in weights}


def numbered_names(weights, first=7):
    """A flat model whose counters do not begin at 0: conv2d_7 .. conv2d_37."""
    convolutions = [name for name in weights if name not in NORMS]
    places = {name: f"conv2d_{first + k}" for k, name in enumerate(convolutions)}
    return places | {name: f"batch_normalization_{8 + k}" for k, name in enumerate(NORMS)}


LAYOUTS = [block_names, attribute_names, tensor_names, numbered_names]


def write(path, weights, places, *, whole=True, suffix=":0"):
    """An HDF5 file as Keras writes it: of the whole model, or of the weights alone."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        root.create_group("input_1")
        root.create_group("dropout")
        for name, arrays in weights.items():
            top, *_ = places[name].split("/")
            for part, x in arrays.items():
                root.require_group(top)[f"{places[name]}/{part}{suffix}"] = x
        if whole:
            root.create_group("top_level_model_weights")
            file.create_group("optimizer_weights")["iter:0"] = np.int64(3)
    return path


@pytest.fixture
def model(tmp_path):
    weights = keras_weights()
    return write(tmp_path / "model.h5", weights, block_names(weights))


def same_padded(x_HWC, kernel, stride):
    """TensorFlow's 'same' convolution, tap by tap, from its definition."""
    rows, columns, _ = x_HWC.shape
    k = kernel.shape[0]
    out = [-(-n // stride) for n in (rows, columns)]
    pads = [max((o - 1) * stride + k - n, 0) for o, n in zip(out, (rows, columns), strict=True)]
    x_HWC = np.pad(x_HWC, [*((p // 2, p - p // 2) for p in pads), (0, 0)])
    y_HWO = np.zeros((*out, kernel.shape[3]))
    for r in range(k):
        for c in range(k):
            y_HWO += x_HWC[r:r + stride * (out[0] - 1) + 1:stride,
                           c:c + stride * (out[1] - 1) + 1:stride] @ kernel[r, c]
    return y_HWO


def keras_mask(weights, image_HWC):
    """The source's model on one image, channels last, in float64."""
    def conv(name, x, stride=1):
        return same_padded(x, weights[name]["kernel"].astype(np.float64), stride) + (
            weights[name]["bias"])

    def relu(x):
        return np.maximum(x, 0)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def up(x):
        return x.repeat(2, 0).repeat(2, 1)

    def pool(x):
        return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))

    x, kept = image_HWC, []
    for level in range(1, 6):
        last = "encoding" if level == 5 else f"c{level}"
        y = relu(conv(last, relu(conv(f"e{level}a", x))))
        kept.append(y)
        x = pool(y)
    for i in range(1, 5):
        skip, norm = kept[4 - i], weights[f"gated{i}"]
        alpha = sigmoid(conv(f"g{i}_logit", relu(conv(f"g{i}_normal", y))
                             + relu(conv(f"g{i}_down", skip, 2))))
        gated = ((up(alpha) * skip - norm["moving_mean"])
                 / np.sqrt(norm["moving_variance"] + EPSILON) * norm["gamma"] + norm["beta"])
        y = np.concatenate([up(y), gated], 2)
        y = relu(conv(f"d{i}", relu(conv(f"d{i}a", y))))
    return sigmoid(conv("logit", y))[..., 0]


def test_keras_pads_stride_2_after():
    image_HWC = np.arange(16.0).reshape(4, 4, 1)
    kernel = np.zeros((3, 3, 1, 1))
    kernel[0, 0] = 1
    assert same_padded(image_HWC, kernel, 2)[..., 0].tolist() == [[0, 2], [8, 10]]
    assert same_padded(image_HWC, kernel, 1)[..., 0].tolist() == [
        [0, 0, 0, 0], [0, 0, 1, 2], [0, 4, 5, 6], [0, 8, 9, 10]]


@torch.no_grad()
@pytest.mark.parametrize("names", LAYOUTS)
@pytest.mark.parametrize("whole", [True, False])
def test_the_mask_is_that_of_the_keras_model(tmp_path, names, whole):
    weights = keras_weights()
    network = read_keras(write(tmp_path / "m.h5", weights, names(weights), whole=whole), size=32)
    assert (network.name, network.width, network.size) == ("elec4848", WIDTH, 32)
    assert not network.training
    image_HWC = np.random.default_rng(1).uniform(0, 1, (32, 48, 3))
    frame = torch.from_numpy(image_HWC).permute(2, 0, 1)[None].to(torch.float32)
    mask = network.trace(frame)["mask"][0, 0]
    expected = keras_mask(weights, image_HWC)
    assert expected.std() > 0.01
    np.testing.assert_allclose(mask.numpy(), expected, atol=2e-5)


@torch.no_grad()
def test_one_convolution_of_stride_2(model):
    weights = keras_weights()
    gate = read_keras(model, size=32).gates[2]
    skip_HWC = np.random.default_rng(2).normal(0, 1, (6, 10, 2 * WIDTH))
    skip = torch.from_numpy(skip_HWC).permute(2, 0, 1)[None].to(torch.float32)
    t = {}
    gate(t, 3, torch.zeros(1, 4 * WIDTH, 3, 5), skip)
    expected = np.maximum(same_padded(skip_HWC, weights["g3_down"]["kernel"], 2)
                          + weights["g3_down"]["bias"], 0)
    np.testing.assert_allclose(t["g3_down"][0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_names_without_keras_2_suffix(tmp_path):
    weights = keras_weights()
    places = block_names(weights)
    old = read_keras(write(tmp_path / "old.h5", weights, places), size=32).state_dict()
    new = read_keras(write(tmp_path / "new.h5", weights, places, suffix=""), size=32).state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_every_parameter_is_read(tmp_path):
    weights = keras_weights(width=3)
    path = write(tmp_path / "m.h5", weights, tensor_names(weights))
    state = read_keras(path, size=16).state_dict()
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert len(counters) == len(NORMS)
    values = sorted(x for arrays in weights.values() for y in arrays.values() for x in y.flat)
    assert sorted(x for name in set(state) - counters
                  for x in state[name].flatten().tolist()) == values
    assert set(MODULES) == set(weights)


@torch.no_grad()
def test_a_file_will_do_for_a_checkpoint(model):
    network = load_checkpoint(model, "elec4848", WIDTH, size=64)
    assert (network.name, network.width, network.size) == ("elec4848", WIDTH, 64)
    frame = torch.rand(1, 3, 32, 32)
    assert torch.equal(network(frame), read_keras(model)(frame))
    with pytest.raises(InputError, match="is of elec4848 with width 2, not of unet-busi"):
        load_checkpoint(model, "unet-busi")


def test_from_keras_to_scores(model, tmp_path, capsys):
    out = tmp_path / "scores"
    assert evaluate.main(["--checkpoint", str(model), "--size", "32", "--data", "phantom:2",
                          "--out", str(out)]) == 0
    assert f"quantising {model} on 16 frames" in capsys.readouterr().out
    result = json.loads((out / "metrics.json").read_text())
    assert (result["weights"], result["width"]) == (str(model), WIDTH)
    assert result["agreement"]["pixels equal"] > 0.9


def refused(path, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_keras(path, size=32)


def test_no_file(tmp_path):
    path = str(tmp_path / "none.h5")
    refused(path, f"No file {path!r}; name an HDF5 file of a Keras model")
    refused(tmp_path, f"No file {str(tmp_path)!r}; name an HDF5 file of a Keras model")


def test_not_hdf5(tmp_path, capsys):
    path = tmp_path / "model.keras"
    path.write_bytes(b"PK\3\4 not HDF5")
    message = (f"{str(path)!r} is not an HDF5 file, or is damaged; save the model with "
               "model.save('x.h5') or model.save_weights('x.h5')")
    refused(path, message)
    out = tmp_path / "scores"
    assert evaluate.main(["--checkpoint", str(path), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not out.exists()


def test_truncated(model, tmp_path):
    path = tmp_path / "cut.h5"
    path.write_bytes(model.read_bytes()[:5000])
    refused(path, f"{str(path)!r} is not an HDF5 file, or is damaged; save the model with "
                  "model.save('x.h5') or model.save_weights('x.h5')")


def test_weights_of_keras_3(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/encoder_block/c1/vars/0"] = np.zeros((3, 3, 3, 2))
    refused(path, f"{str(path)!r} is a '.weights.h5' file of Keras 3, which has no layer names; "
                  "save the model with model.save('x.h5') or model.save_weights('x.h5') of "
                  "another name")


def test_another_model(tmp_path):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file["dense/dense/kernel:0"] = np.zeros((3, 3))
        file["block1_conv1/block1_conv1/kernel:0"] = np.zeros((3, 3))
    refused(path, f"{str(path)!r} has no layer of ELEC4848 ('block1_conv1', 'dense'); "
                  "golden/keras.py has the names")
    with h5py.File(path, "w"):
        pass
    refused(path, f"{str(path)!r} has no layer of ELEC4848 (nothing); "
                  "golden/keras.py has the names")


def edited(tmp_path, edit, names=block_names):
    """A file after a change to its weights, and to their places."""
    weights = keras_weights()
    places = names(weights)
    edit(weights, places)
    return write(tmp_path / "m.h5", weights, places)


def test_missing_block(tmp_path):
    def edit(weights, places):
        del weights["e2a"], weights["c2"]
    path = edited(tmp_path, edit)
    refused(path, f"{str(path)!r} lacks 'Encoder2'; is it ELEC4848's model?")


def test_missing_layer(tmp_path):
    def edit(weights, places):
        for name in ("g2_down", "gated3", "e1a", "d1", "d2", "d3"):
            del weights[name]
    path = edited(tmp_path, edit, tensor_names)
    refused(path, f"{str(path)!r} lacks 'd1', 'd2', 'd3', 'e1a' and 2 more; "
                  "is it ELEC4848's model?")


def test_block_of_another_shape(tmp_path):
    def edit(weights, places):
        del weights["gated2"]
    path = edited(tmp_path, edit)
    refused(path, f"{str(path)!r}: 'Attention2' has 3 convolutions and 0 batch normalisations, "
                  "not 3 and 1")


def test_wrong_number_of_layers(tmp_path):
    def edit(weights, places):
        del weights["d4"]
    path = edited(tmp_path, edit, numbered_names)
    refused(path, f"{str(path)!r} has 30 convolutions and 4 batch normalisations, not 31 and 4")


def test_no_output(tmp_path):
    def edit(weights, places):
        del weights["logit"]
    path = edited(tmp_path, edit)
    refused(path, f"{str(path)!r} has nothing beside the blocks, not one output convolution")


def test_unknown_layer(tmp_path):
    def edit(weights, places):
        weights["x"] = {"kernel": np.zeros((1, 1, 2, 2), np.float32)}
        places["x"] = "refine"
    path = edited(tmp_path, edit)
    refused(path, f"{str(path)!r} has 'refine', 'conv2d_30' beside the blocks, "
                  "not one output convolution")
    path = edited(tmp_path, edit, tensor_names)
    refused(path, f"{str(path)!r} has layers that ELEC4848 has not: 'refine'")


def test_wrong_shape(tmp_path):
    def edit(weights, places):
        weights["g2_down"]["kernel"] = np.zeros((3, 3, 8, 4), np.float32)
    path = edited(tmp_path, edit)
    refused(path, f"{str(path)!r}: layer 'Attention2/conv2d_16' has an array of shape "
                  "(3, 3, 8, 4) where 'g2_down' of a network of width 2 has (3, 3, 8, 8); "
                  "is it ELEC4848's model?")


def test_separable_model(tmp_path):
    def edit(weights, places):
        weights["c1"] = {"depthwise_kernel": np.zeros((3, 3, 2, 1), np.float32),
                         "pointwise_kernel": np.zeros((1, 1, 2, 2), np.float32),
                         "bias": weights["c1"]["bias"]}
    path = edited(tmp_path, edit)
    refused(path, f"{str(path)!r}: layer 'Encoder1/conv2d_1' has no 'kernel', but 'bias', "
                  "'depthwise_kernel', 'pointwise_kernel'; separable models are not read")


def test_unknown_array(tmp_path):
    def edit(weights, places):
        weights["c1"]["scale"] = np.zeros(2, np.float32)
    path = edited(tmp_path, edit)
    refused(path, f"{str(path)!r}: layer 'Encoder1/conv2d_1' has 'scale', which ELEC4848 has not")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_diverged(tmp_path, value):
    def edit(weights, places):
        weights["d3"]["bias"][1] = value
    path = edited(tmp_path, edit)
    refused(path, f"{str(path)!r}: 'bias' of layer 'Decoder3/encoder_block/conv2d_24' is not all "
                  "finite numbers; take a file from before training diverged")


def test_size_of_the_frame(model):
    with pytest.raises(InputError, match="^Frame size must be a positive multiple of 16, not 30; "
                                         "try 32$"):
        read_keras(model, size=30)
