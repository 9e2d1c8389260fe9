import pytest
import torch
import torch.nn.functional as F
from torch import nn

from golden.classes import class_mask
from golden.errors import InputError
from golden.networks import (
    MODELS,
    AttUNetCT,
    AttUNetNuclei,
    Elec4848,
    UNetBusi,
    elec4848,
    elec4848_ds,
    macs,
    parameters,
)
from golden.networks.operations import operations

NAMES = list(MODELS)


def conv(inputs, outputs, kernel, *, bias=True):
    """Parameters of a convolution, by formula."""
    return inputs * outputs * kernel**2 + (outputs if bias else 0)


def separable(inputs, outputs, kernel):
    """Parameters of Keras' SeparableConv2D with a bias."""
    return inputs * kernel**2 + conv(inputs, outputs, 1)


def norm(filters):
    """Gain, offset, running mean and variance."""
    return 4 * filters


def pairs(width, depth):
    """Inputs and filters of the encoder's levels."""
    filters = [width << level for level in range(depth + 1)]
    return list(zip([3, *filters], filters, strict=False))


def skips(width, depth):
    """Filters of the skips, from the bottleneck up."""
    return [width << level for level in reversed(range(depth))]


def parameters_by_hand(name, width, depth):
    """Parameters of a network from the formulas of its layers."""
    encoder, levels = pairs(width, depth), skips(width, depth)
    if name in ("elec4848", "elec4848-classes"):
        logits = 3 if name == "elec4848-classes" else 1
        return (sum(conv(i, f, 3) + conv(f, f, 3) for i, f in encoder)
                + sum(conv(2 * f, f, 3) + conv(f, f, 3) + conv(f, 1, 1) + norm(f) for f in levels)
                + sum(conv(3 * f, f, 3) + conv(f, f, 3) for f in levels) + conv(width, logits, 1))
    if name.startswith("elec4848-ds"):
        first = conv if name == "elec4848-ds-published" else separable
        return (sum(first(i, f, 3) + separable(f, f, 3) for i, f in encoder)
                + sum(separable(2 * f, f, 3) + separable(f, f, 3) + conv(f, 1, 1) + norm(f)
                      for f in levels)
                + sum(separable(3 * f, f, 3) + separable(f, f, 3) for f in levels)
                + conv(width, 1, 1))
    if name == "unet-busi":
        def block(i, f):
            return conv(i, f, 3, bias=False) + conv(f, f, 3, bias=False) + 2 * norm(f)
        return (sum(block(i, f) for i, f in encoder)
                + sum(conv(2 * f, f, 2) + block(2 * f, f) for f in levels) + conv(width, 1, 1))

    def block(i, f):
        return conv(i, f, 3) + conv(f, f, 3) + 2 * norm(f)
    total = sum(block(i, f) for i, f in encoder) + conv(width, 1, 1)
    if name == "attunet-nuclei":
        return total + sum(conv(2 * f, f, 1) + 2 * conv(f, f, 1) + 2 * norm(f) + block(3 * f, f)
                           for f in levels)
    return total + norm(1) + sum(conv(2 * f, 2 * width, 1) + conv(f, 2 * width, 1)
                                 + conv(2 * width, 1, 1) + block(3 * f, f) for f in levels)


def macs_by_hand(name, size, width, depth):
    """Multiply-accumulates by unit, from the formulas of the layers."""
    encoder, levels = pairs(width, depth), skips(width, depth)
    full = [(size >> level) ** 2 for level in range(depth + 1)]
    at = list(reversed(full[:-1]))

    def dense(i, o):
        return 9 * i * o

    def mac3(i, o):
        return 9 * i + i * o if name.startswith("elec4848-ds") else dense(i, o)

    first = dense if name == "elec4848-ds-published" else mac3
    counts = {
        "encoder": sum((first(i, f) + mac3(f, f)) * area
                       for (i, f), area in zip(encoder, full, strict=True)),
        "attention": 0,
        "decoder": width * size**2,
    }
    if name == "elec4848-classes":      # three logits; three pairs of them; three bits in a byte
        counts["decoder"] = (3 * width + 3 * 3 + 3) * size**2
    for f, area in zip(levels, at, strict=True):
        half = area // 4
        if name.startswith("elec4848"):
            counts["attention"] += (mac3(2 * f, f) + mac3(f, f) + f) * half
            counts["decoder"] += (mac3(3 * f, f) + mac3(f, f)) * area
        elif name == "unet-busi":
            # Each of the four outputs of a 2x2 transposed convolution takes one tap.
            counts["decoder"] += 2 * f * f * area + (dense(2 * f, f) + dense(f, f)) * area
        elif name == "attunet-nuclei":
            counts["attention"] += (2 * f * f + f * f + f * f) * area
            counts["decoder"] += (dense(3 * f, f) + dense(f, f)) * area
        else:
            counts["attention"] += (3 * f + 1) * 2 * width * half
            counts["decoder"] += (dense(3 * f, f) + dense(f, f)) * area
    return counts


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("width", "depth"), [(None, None), (4, 2), (6, 3)])
def test_parameters_and_macs_follow_the_formulas(name, width, depth):
    chosen = {} if width is None else {"size": 32, "width": width, "depth": depth}
    network = MODELS[name](**chosen)
    assert parameters(network) == parameters_by_hand(name, network.width, network.depth)
    assert macs(network) == macs_by_hand(name, network.size, network.width, network.depth)


@pytest.mark.parametrize(("name", "size", "width", "depth", "count", "total"), [
    ("elec4848", 256, 32, 4, 10_200_101, 15_763_177_472),
    ("elec4848-ds", 256, 32, 4, 1_182_496, 1_969_487_872),
    ("elec4848-ds-published", 256, 32, 4, 2_571_557, 3_082_944_512),
    ("unet-busi", 224, 32, 4, 7_768_929, 9_242_017_792),
    ("attunet-nuclei", 256, 64, 3, 8_143_169, 45_617_250_304),
    ("attunet-ct", 224, 32, 4, 7_951_369, 10_826_237_184),
    ("elec4848-classes", 256, 32, 4, 10_200_167, 15_768_158_208),
])
def test_defaults_are_the_sources(name, size, width, depth, count, total):
    network = MODELS[name]()
    assert (network.name, network.size, network.width, network.depth) == (name, size, width, depth)
    assert parameters(network) == count
    assert sum(macs(network).values()) == total


def test_separable_in_the_words_of_the_brief():
    dense, light = MODELS["elec4848"](), MODELS["elec4848-ds"]()
    assert round(sum(macs(dense).values()) / sum(macs(light).values()), 1) == 8.0
    assert round(parameters(dense) / parameters(light), 1) == 8.6


def test_published_separable_network_by_arithmetic():
    """Of the choices by role, the named one alone has 2.9 * 2**30 MACs and 4 times less size."""
    base = elec4848()
    roles = {
        "encoder, first": ("e1a", "e2a", "e3a", "e4a", "e5a"),
        "encoder, second": ("c1", "c2", "c3", "c4", "encoding"),
        "normal": ("g1_normal", "g2_normal", "g3_normal", "g4_normal"),
        "down": ("g1_down", "g2_down", "g3_down", "g4_down"),
        "decoder, first": ("d1a", "d2a", "d3a", "d4a"),
        "decoder, second": ("d1", "d2", "d3", "d4"),
    }
    # What a role adds does not depend on the others, so six networks tell all 64 sums.
    light = elec4848_ds()
    start = sum(macs(light).values()), parameters(light)
    added = {}
    for role, dense in roles.items():
        network = elec4848_ds(dense=dense)
        added[role] = sum(macs(network).values()) - start[0], parameters(network) - start[1]
    fits = []
    for choice in range(1 << len(roles)):
        chosen = [role for bit, role in enumerate(roles) if choice >> bit & 1]
        count = start[0] + sum(added[role][0] for role in chosen)
        size = start[1] + sum(added[role][1] for role in chosen)
        smaller = parameters(base) / size
        if round(count / 2**30, 1) == 2.9 and abs(smaller / (42.9 / 10.7) - 1) < 0.1:
            fits.append(chosen)
    assert fits == [["encoder, first"]]
    published = MODELS["elec4848-ds-published"]()
    assert roles["encoder, first"] == published.dense
    assert round(sum(macs(published).values()) / 1e9, 2) == 3.08
    assert round(parameters(published) / 1e6, 2) == 2.57


def test_parameters_and_macs_of_the_paper():
    network = elec4848()
    assert round(parameters(network) / 1e6, 2) == 10.20
    units = macs(network)
    assert {unit: round(count / 1e9, 2) for unit, count in units.items()} == {
        "encoder": 4.28, "attention": 1.81, "decoder": 9.67}
    assert round(sum(units.values()) / 1e9, 2) == 15.76


def test_shapes_of_every_level():
    shapes = {name: tuple(x.shape[1:])
              for name, x in elec4848(width=2).eval().trace(torch.zeros(1, 3, 32, 48)).items()}
    assert shapes["c1"] == (2, 32, 48)
    assert shapes["p4"] == (16, 2, 3)
    assert shapes["encoding"] == (32, 2, 3)
    assert shapes["g1_down"] == shapes["g1_normal"] == (16, 2, 3)
    assert shapes["alpha1"] == (1, 2, 3)
    assert shapes["gated1"] == (16, 4, 6)
    assert shapes["d1_concat"] == (48, 4, 6)
    assert shapes["d4"] == (2, 32, 48)
    assert shapes["mask"] == (1, 32, 48)


@torch.no_grad()
def test_down_pads_after_as_keras_does():
    gate = elec4848(width=1).gates[0].eval()
    gate.down.weight.zero_()
    gate.down.weight[0, 0, 0, 0] = 1
    gate.down.bias.zero_()
    skip = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 8, 4, 4)
    t = {}
    gate(t, 1, torch.zeros(1, 16, 2, 2), skip)
    assert t["g1_down"][0, 0].tolist() == [[0, 2], [8, 10]]


@torch.no_grad()
def test_segment_scales_bytes_to_one():
    network = elec4848(size=16, width=2)
    frame = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    expected = torch.sigmoid(network.eval()(frame[None] / 255))[0, 0]
    assert torch.allclose(network.segment(frame), expected)


@pytest.mark.parametrize(("size", "hint"), [(0, 16), (-16, 16), (100, 96), (8, 16), (255, 256)])
def test_frame_size_must_be_a_multiple_of_16(size, hint):
    with pytest.raises(InputError, match=f"^Frame size must be a positive multiple of 16, not "
                                         f"{size}; try {hint}$"):
        elec4848(size=size)


def test_width_must_be_positive():
    with pytest.raises(InputError, match="^Network width must be positive, not 0; "
                                         "it is the number of filters of the first level$"):
        elec4848(width=0)


def test_shapes_that_would_ask_for_all_memory():
    with pytest.raises(InputError, match="^Network width must be at most 1024, not 1048576; "
                                         "it is the number of filters of the first level$"):
        elec4848(width=1 << 20)
    with pytest.raises(InputError, match="^Frame size must be at most 16384, not 1048576$"):
        elec4848(size=1 << 20)


def randomised(name, **shape):
    """A network in evaluation mode whose batch normalisation does something to every channel."""
    torch.manual_seed(1)
    network = MODELS[name](**shape).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.2, 2.0)
    return network


class Functions:
    """The layers of a network as functions of a name, in the words of its source."""

    def __init__(self, network, eps):
        self.state, self.eps = network.state_dict(), eps

    def conv(self, name, x, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), **options)

    def norm(self, name, x):
        mean, var, gain, offset = (
            self.state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / torch.sqrt(var + self.eps) * gain + offset

    def double(self, name, x):
        """Conv, norm, ReLU, twice."""
        for part in "ab":
            x = self.conv(f"{name}.{part}", x, padding=1)
            x = self.norm(f"{name}.{part}_norm", x).relu()
        return x


def down_the_encoder(depth, block, x):
    """Skips from the deepest up, and the bottleneck."""
    kept = []
    for level in range(depth):
        kept.insert(0, block(f"encoder.{level}", x))
        x = F.max_pool2d(kept[0], 2)
    return kept, block(f"encoder.{depth}", x)


def expand(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@torch.no_grad()
def test_elec4848_is_the_keras_source():
    network = randomised("elec4848", size=32, width=3)
    f, x = Functions(network, 1e-3), torch.rand(2, 3, 32, 48)

    def block(name, x):
        return f.conv(f"{name}.b", f.conv(f"{name}.a", x, padding=1).relu(), padding=1).relu()

    kept, y = down_the_encoder(4, block, x)
    for i, skip in enumerate(kept):
        normal = f.conv(f"gates.{i}.normal", y, padding=1).relu()
        # Padded on both sides, and every second result from the second on: padded only after.
        down = f.conv(f"gates.{i}.down", skip, padding=1)[:, :, 1::2, 1::2].relu()
        alpha = torch.sigmoid(f.conv(f"gates.{i}.learn", normal + down))
        gated = f.norm(f"gates.{i}.norm", expand(alpha) * skip)
        y = block(f"decoder.{i}", torch.cat([expand(y), gated], 1))
    assert torch.allclose(network(x), f.conv("final", y), atol=1e-5)


@torch.no_grad()
def test_elec4848_ds_is_separable_everywhere():
    network = randomised("elec4848-ds", size=32, width=3)
    f, x = Functions(network, 1e-3), torch.rand(2, 3, 32, 48)

    def conv(name, x):
        wide = f.conv(f"{name}.depthwise", x, padding=1, groups=x.shape[1])
        assert f"{name}.depthwise.bias" not in f.state
        return f.conv(f"{name}.pointwise", wide)

    def block(name, x):
        return conv(f"{name}.b", conv(f"{name}.a", x).relu()).relu()

    kept, y = down_the_encoder(4, block, x)
    for i, skip in enumerate(kept):
        normal = conv(f"gates.{i}.normal", y).relu()
        down = conv(f"gates.{i}.down", skip)[:, :, 1::2, 1::2].relu()
        alpha = torch.sigmoid(f.conv(f"gates.{i}.learn", normal + down))
        gated = f.norm(f"gates.{i}.norm", expand(alpha) * skip)
        y = block(f"decoder.{i}", torch.cat([expand(y), gated], 1))
    assert torch.allclose(network(x), f.conv("final", y), atol=1e-5)


@torch.no_grad()
def test_unet_busi_is_the_source():
    network = randomised("unet-busi", size=32, width=3)
    f, x = Functions(network, 1e-5), torch.rand(2, 3, 32, 48)
    kept, y = down_the_encoder(4, f.double, x)
    for i, skip in enumerate(kept):
        weight, bias = f.state[f"decoder.{i}.up.weight"], f.state[f"decoder.{i}.up.bias"]
        taps = torch.einsum("nihw,iokl->nohkwl", y, weight)
        up = taps.reshape(2, len(bias), *skip.shape[2:]) + bias[:, None, None]
        y = f.double(f"decoder.{i}", torch.cat([up, skip], 1))
    assert torch.allclose(network(x), f.conv("final", y), atol=1e-5)
    assert not [name for name in f.state if name.endswith(("a.bias", "b.bias"))]


@torch.no_grad()
def test_attunet_nuclei_is_the_keras_source():
    network = randomised("attunet-nuclei", size=32, width=3)
    f, x = Functions(network, 1e-3), torch.rand(2, 3, 32, 48)
    kept, y = down_the_encoder(3, f.double, x)
    for i, skip in enumerate(kept):
        up = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        normal = f.norm(f"gates.{i}.normal_norm", f.conv(f"gates.{i}.normal", up))
        own = f.norm(f"gates.{i}.skip_norm", f.conv(f"gates.{i}.skip", skip))
        alpha = torch.sigmoid(f.conv(f"gates.{i}.learn", (normal + own).relu()))
        assert alpha.shape == skip.shape
        y = f.double(f"decoder.{i}", torch.cat([up, alpha * skip], 1))
    assert torch.allclose(network(x), f.conv("final", y), atol=1e-5)


@torch.no_grad()
def test_attunet_ct_is_the_keras_source():
    """In double precision: in single, normalisations after ReLU lose the last digits on the way."""
    network = randomised("attunet-ct", size=32, width=3).double()
    f, x = Functions(network, 1e-3), torch.rand(2, 3, 32, 48, dtype=torch.float64)

    def block(name, x):
        for part in "ab":
            x = f.norm(f"{name}.{part}_norm", f.conv(f"{name}.{part}", x, padding=1).relu())
        return x

    kept, y = down_the_encoder(4, block, x)
    for i, skip in enumerate(kept):
        own = f.conv(f"gates.{i}.down", skip, stride=2).relu()
        signal = f.conv(f"gates.{i}.normal", y).relu()
        assert own.shape[1] == 2 * 3
        alpha = torch.sigmoid(f.conv(f"gates.{i}.learn", (own + signal).relu()))
        assert alpha.shape[1] == 1
        y = block(f"decoder.{i}", torch.cat([expand(alpha) * skip, expand(y)], 1))
    logit = f.norm("final_norm", f.conv("final", y))
    assert (network(x) - logit).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_traces_symbolically(name):
    network = randomised(name, size=32, width=4)
    frame = torch.rand(1, 3, 48, 32)
    traced, named = operations(network)
    values, again = network.trace(frame), traced(frame)
    assert list(named.values()) == list(values)
    assert list(values) == list(again)
    assert all(torch.equal(values[key], again[key]) for key in values)
    assert all(key.isidentifier() for key in values)
    assert torch.equal(network(frame), values["logit"])
    found = class_mask if network.classes else torch.sigmoid
    assert torch.equal(found(values["logit"]), values["mask"])


@pytest.mark.parametrize("name", NAMES)
def test_units_of_tensors(name):
    network = MODELS[name](size=32, width=4)
    units = {key: network.unit_of(key) for key in network.trace(torch.zeros(1, 3, 32, 32))}
    assert {key for key, unit in units.items() if unit == "attention"} == {
        key for key in units if key.startswith(("g1_", "g2_", "g3_", "g4_", "alpha", "gated"))}
    assert units["encoding"] == units["c1"] == units["p1"] == units["e2a"] == "encoder"
    assert units["d1_up"] == units["d1"] == units["logit"] == units["mask"] == "decoder"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_sets_the_multiple_of_a_frame(name, depth):
    multiple = 1 << depth
    network = MODELS[name](size=2 * multiple, width=2, depth=depth)
    assert network.frames_multiple == multiple
    trace = network.eval().trace(torch.zeros(1, 3, multiple, 3 * multiple))
    assert trace["encoding"].shape == (1, 2 << depth, 1, 3)
    assert trace["mask"].shape == (1, 1, multiple, 3 * multiple)
    with pytest.raises(InputError, match=f"^Frame size must be a positive multiple of {multiple}, "
                                         f"not {4 * multiple + 1}; try {4 * multiple}$"):
        MODELS[name](size=4 * multiple + 1, width=2, depth=depth)


def test_nuclei_take_multiples_of_8():
    assert AttUNetNuclei(size=40, width=2)(torch.zeros(1, 3, 40, 24)).shape == (1, 1, 40, 24)


@pytest.mark.parametrize("name", NAMES)
def test_depth_must_be_positive(name):
    with pytest.raises(InputError, match="^Network depth must be positive, not 0; "
                                         "it is the number of poolings$"):
        MODELS[name](depth=0)


def test_dense_names_what_stays():
    network = elec4848_ds(size=16, width=2, depth=1, dense=("e1a", "g1_down"))
    trace = network.trace(torch.zeros(1, 3, 16, 16))
    assert [name for name in trace if name.endswith("_dw")] == [
        "c1_dw", "e2a_dw", "encoding_dw", "g1_normal_dw", "d1a_dw", "d1_dw"]
    assert network.dense == ("e1a", "g1_down")


@pytest.mark.parametrize("depth", [1, 3])
def test_published_keeps_the_first_of_every_encoder_block_dense(depth):
    network = MODELS["elec4848-ds-published"](size=16, width=2, depth=depth)
    plain = [name for name, module in network.named_modules()
             if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
             and module.groups == 1]
    assert plain == [f"encoder.{level}.a" for level in range(depth + 1)]


def test_dense_must_be_a_convolution():
    with pytest.raises(InputError, match="^No 3x3 convolution makes 'logit'; those that can stay "
                                         "dense: c1, d1, d1a, e1a, e2a, encoding, g1_down, "
                                         "g1_normal$"):
        elec4848_ds(size=16, width=2, depth=1, dense=("logit",))


def test_dropout_of_elec4848():
    network = elec4848(size=32, width=2)
    assert [block.dropout.p for block in network.encoder] == [0.1, 0.1, 0.2, 0.2, 0.3]
    assert [block.dropout.p for block in network.decoder] == [0.2, 0.2, 0.1, 0.1]


def test_names_say_which_network():
    assert {name: MODELS[name](size=32, width=2).name for name in NAMES} == {
        name: name for name in NAMES}
    assert [type(MODELS[name](size=32, width=2)) for name in NAMES[3:]] == [
        Elec4848, UNetBusi, AttUNetNuclei, AttUNetCT]
