"""Hostile weights: checkpoints of PyTorch, runs to be resumed, files of Keras, safetensors."""

import importlib
import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import torch
import torch._dynamo  # makes a folder for its cache when it is imported, in no process here

from golden import data, integer, models
from golden.arbitrary import arbitrary_image
from golden.data import phantoms
from golden.keras import BLOCKS, NORMS, read_keras
from golden.models import load_float, load_graph, save_trained, seeded
from golden.networks import MODELS
from golden.quantize import quantize
from golden.training.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from golden.training.loop import Settings, train
from sim.campaigns.hostile.cage import Wrong
from sim.campaigns.hostile.kind import Kind, door, must_accept
from sim.campaigns.hostile.mutations import ODD, damaged, twisted

__all__ = ["CHECKPOINTS"]

SIZE  = 16              # of frames: the least that the networks take
TAKEN = ("elec4848", "elec4848-ds", "unet-busi")
SANE  = 1e3             # weights beyond may overflow float32 on their way through the network
SETTINGS = Settings(model="elec4848", width=1, size=SIZE, crop=SIZE, epochs=1, steps=1, batch=2)


class _Evil:
    """Pickled, it is a call."""

    def __init__(self, call, *arguments):
        self._made = call, arguments

    def __reduce__(self):
        return self._made


def _payloads(folder):
    """Objects whose unpickling runs something."""
    target = str(folder / "in" / "owned")
    return (_Evil(os.system, f"touch {target}"), _Evil(eval, f"open({target!r}, 'w')"),
            _Evil(exec, f"open({target!r}, 'w')"), _Evil(os.mkdir, target),
            _Evil(importlib.import_module, "torch"), _Evil(io.open, target, "w"),
            _Evil(os.unlink, str(folder / "in" / "weights.pt")))


def _tensors(random):
    """Tensors as no network has them."""
    nan = torch.tensor([float("nan"), 1.0])
    return (nan, torch.zeros(0), torch.tensor(5), torch.zeros(3, dtype=torch.int8),
            torch.zeros(3, dtype=torch.complex64), torch.zeros(1).expand(1 << 30),
            torch.zeros(1).expand(1 << 24, 1 << 20), torch.eye(3).to_sparse(),
            torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bool),
            torch.full((3,), 1e38), torch.zeros(2, 2, dtype=torch.float64),
            torch.empty(3, device="meta"))


def _checkpoint_corpus(run):
    found = []
    for model in TAKEN:
        torch.manual_seed(1)
        network = MODELS[model](size=SIZE, width=1).eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.pt"
            save_checkpoint(path, network)
            found.append(torch.load(path, weights_only=True))
    return found


def _saved(content, random):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=random.random() < 0.8)
    return file.getvalue()


def _odd_content(random, content):
    """The dictionary of a checkpoint, not as it should be."""
    content = {**content, "state_dict": dict(content["state_dict"])}
    state   = content["state_dict"]
    for _ in range(random.randint(1, 2)):
        name = random.choice(tuple(state))
        if not isinstance(state[name], torch.Tensor):
            continue            # twisted already
        match random.randrange(7):
            case 0:
                state[name] = random.choice(_tensors(random))
            case 1:
                state[name] = state[name].to(random.choice((
                    torch.float64, torch.float16, torch.int32, torch.complex64)))
            case 2 if state[name].is_floating_point():
                flat = state[name] = state[name].contiguous().clone()
                flat.view(-1)[0] = random.choice((float("nan"), float("inf"), -float("inf")))
            case 3:
                state[name] = state[name].reshape(-1) if random.random() < 0.5 else (
                    state[name].transpose(0, -1))
            case 4:
                content[random.choice(("width", "size"))] = random.choice(
                    (0, -1, 2, 3, 17, 32, 2**20, 2**40, 1.0, "1", None, True, float("nan"), [1]))
            case 5:
                content["model"] = random.choice((*MODELS, "no", 1, None, ["elec4848"], "../x"))
            case 6:
                content = twisted(random, content, most=2)
                if not isinstance(content, dict) or not isinstance(content.get("state_dict"),
                                                                  dict):
                    return content
                state = content["state_dict"] or {"x": torch.zeros(1)}
    return content


def _pickled(random, content, folder):
    """A file that is a pickle of more than weights."""
    evil = random.choice(_payloads(folder))
    whole = random.choice((evil, {**content, "state_dict": evil}, {**content, "more": evil},
                           [evil], MODELS["unet-busi"](size=16, width=1)))
    if random.random() < 0.5:
        return pickle.dumps(whole, protocol=random.randrange(6))
    return _saved(whole, random)


def _zipped(random):
    """An archive that looks like a checkpoint from outside."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in random.sample(("archive/data.pkl", "archive/version", "archive/data/0",
                                   "archive/constants.pkl", "archive/code/x.py", "../../escape",
                                   "archive/byteorder", "/absolute"), 4):
            archive.writestr(name, random.choice((b"", b"\x80\x02.", b"3\n", b"little",
                                                  bytes(10_000_000), pickle.dumps({"model": 1}))))
    return file.getvalue()


def _checkpoint(random, corpus, folder):
    content = random.choice(corpus)
    path    = folder / "in" / random.choice(("weights.pt",) * 6 + ("w.pth", "weights", "w.ckpt"))
    roll    = random.random()
    good    = roll < 0.04
    if good:
        blob = _saved(content, random)
    elif roll < 0.35:
        blob = damaged(random, _saved(content, random), _saved(corpus[0], random))
    elif roll < 0.8:
        blob = _saved(_odd_content(random, content), random)
    elif roll < 0.92:
        blob = _pickled(random, content, folder)
    else:
        blob = _zipped(random)
    path.write_bytes(blob)

    def read():
        network = load_checkpoint(path, None if good or random.random() < 0.9 else "elec4848")
        _demand_network(network)
        held = read_checkpoint(path)["state_dict"]
        for name, value in network.state_dict().items():
            if not torch.equal(value, held[name].to(value.dtype)):
                raise Wrong(f"{name} is not what the file holds")
    return must_accept(door(read)) if good else door(read)


def _demand_network(network):
    """Weights are finite, and so is the mask unless they are absurd."""
    state = network.state_dict()
    floats = [value for value in state.values() if value.is_floating_point()]
    if any(not value.isfinite().all() for value in floats):
        raise Wrong("weights that are no finite numbers")
    variances = [value for name, value in state.items() if name.endswith("running_var")]
    if any((value < 0).any() for value in variances):
        raise Wrong("a variance below zero")
    if network.size > 64 or network.width > 8 or max(
            float(value.abs().max()) for value in floats if value.numel()) > SANE:
        return
    mask_HW = network.segment(arbitrary_frame(network.size))
    if not (mask_HW.isfinite().all() and 0 <= mask_HW.min() and mask_HW.max() <= 1):
        raise Wrong("a mask that is no probability")


def arbitrary_frame(size):
    """Some uint8 frame, always the same."""
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)


def _run_corpus(run):
    """What training leaves, and the frames that it had."""
    frames = data.load(phantoms.phantoms(phantoms.TRAIN_SEEDS, 2), SIZE)
    with tempfile.TemporaryDirectory() as folder:
        train(SETTINGS, frames, frames, folder)
        return torch.load(Path(folder) / "last.pt", weights_only=True), frames


def _resumed(random, corpus, folder):
    content, frames = corpus
    place = folder / "out" / "run"
    place.mkdir(parents=True)
    roll, good = random.random(), False
    if roll < 0.25:
        blob = damaged(random, _saved(content, random))
    elif roll < 0.5:
        blob = _saved(_odd_content(random, content), random)
    else:
        good    = roll > 0.97
        changed = content["run"] if good else twisted(random, content["run"], most=2,
                                                      odd=(*ODD, *_tensors(random)))
        blob    = _saved({**content, "run": changed}, random)
    (place / "last.pt").write_bytes(blob)

    def read():
        score = train(SETTINGS, frames, frames, place, resume=True)
        if not 0 <= score <= 1:
            raise Wrong(f"a score of {score}")

    def begin():
        train(SETTINGS, frames, frames, folder / "out" / "other", start=place / "last.pt",
              sheet_every=0)
    if good:
        return must_accept(door(read))
    return door(begin if random.random() < 0.15 else read)


def _keras_corpus(run):
    """Files of a network of width 1, by how its layers are named and where they lie."""
    values = np.random.default_rng(0)
    filters = [1 << level for level in range(5)]
    shapes = {}
    for level, (inputs, f) in enumerate(zip([3, *filters], filters, strict=False), 1):
        shapes[f"e{level}a"] = 3, inputs, f
        shapes["encoding" if level == 5 else f"c{level}"] = 3, f, f
    for i, f in enumerate(reversed(filters[:-1]), 1):
        shapes |= {f"g{i}_normal": (3, 2 * f, f), f"g{i}_down": (3, f, f), f"g{i}_logit": (1, f, 1),
                   f"gated{i}": f, f"d{i}a": (3, 3 * f, f), f"d{i}": (3, f, f)}
    shapes["logit"] = 1, 1, 1
    arrays = {}
    for name, shape in shapes.items():
        if name in NORMS:
            arrays[name] = {part: values.uniform(0.3, 2, shape).astype(np.float32) for part in
                            ("gamma", "beta", "moving_mean", "moving_variance")}
        else:
            k, inputs, outputs = shape
            arrays[name] = {
                "kernel": values.normal(0, 0.3, (k, k, inputs, outputs)).astype(np.float32),
                "bias": values.normal(0, 0.1, outputs).astype(np.float32)}
    blocks = {name: f"{block}/{part}" for block, tensors in BLOCKS.items()
              for part, name in tensors.items()} | {
        name: f"{block}/BN" for name, block in NORMS.items()} | {"logit": "output"}
    numbers = {name: f"conv2d_{index + 3}" for index, name in enumerate(
        name for name in shapes if name not in NORMS)} | {
        name: f"batch_normalization_{index}" for index, name in enumerate(NORMS)}
    found = []
    for places in (blocks, numbers, {name: name for name in shapes}):
        for whole in (True, False):
            file = io.BytesIO()
            with h5py.File(file, "w") as root:
                top = root.create_group("model_weights") if whole else root
                for name, parts in arrays.items():
                    for part, value in parts.items():
                        top.require_group(places[name].split("/")[0])[
                            f"{places[name]}/{part}:0"] = value
            found.append(file.getvalue())
    return found


def _odd_hdf5(random, path):
    """Change what is in an HDF5 file by its own rules."""
    with h5py.File(path, "r+") as file:
        for _ in range(random.randint(1, 3)):
            names = []
            file.visit(names.append)
            if not names:
                return
            name  = random.choice(names)
            old   = file[name]
            shape = old.shape if isinstance(old, h5py.Dataset) else (3,)
            match random.randrange(14):
                case 0:
                    del file[name]
                case 1:
                    file.move(name, name + random.choice(("_1", "x", "/y", " ")))
                case 2 | 3 | 4:
                    del file[name]
                    kind = random.choice(("i4", "f8", "f2", "c8", "S5", "?", "u1", "f4"))
                    file[name] = np.zeros(random.choice((shape, (), (0,), (2, 3), (1,) * 9)), kind)
                case 5:
                    del file[name]
                    file[name] = np.full(shape, random.choice((np.nan, np.inf, 1e38)), "f4")
                case 6:
                    del file[name]
                    file.create_dataset(name, random.choice(((1 << 40,), (1 << 20, 1 << 20),
                                                             (1 << 31,))), "f4", chunks=True)
                case 7:
                    del file[name]
                    file.create_group(name)
                case 8:
                    del file[name]
                    file[name] = h5py.SoftLink(random.choice(("/", "/missing", name, names[0])))
                case 9:
                    del file[name]
                    file[name] = h5py.ExternalLink(random.choice(("missing.h5", "/etc/passwd",
                                                                  str(path))), "/")
                case 10:
                    del file[name]
                    file.create_dataset(name, data="text", dtype=h5py.string_dtype())
                case 11:
                    if isinstance(file, h5py.Group):
                        file[f"{name}_link"] = old
                case 12:
                    del file[name]
                    file.create_dataset(name, shape=shape, dtype=np.dtype([("a", "f4"),
                                                                           ("b", "i4")]))
                case 13:
                    del file[name]
                    file.create_dataset(name, data=np.ones(shape, "f4"), **(
                        {"compression": "gzip"} if shape and min(shape) else {}))


def _keras(random, corpus, folder):
    path = folder / "in" / random.choice(("model.h5",) * 6 + ("m.hdf5", "m.keras", "m.H5"))
    roll, blob = random.random(), random.choice(corpus)
    if 0.04 <= roll < 0.5:
        blob = damaged(random, blob, random.choice(corpus))
    path.write_bytes(blob)
    if roll >= 0.5:
        try:
            _odd_hdf5(random, path)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError):
            pass                # HDF5 refuses some; what it has done so far is odd enough

    def read():
        _demand_network(read_keras(path, size=SIZE))
        load_checkpoint(path, None, None, SIZE)
    return must_accept(door(read)) if roll < 0.04 else door(read)


def _weights_corpus(run):
    network = seeded("elec4848", 1)
    graph   = quantize(network, [arbitrary_frame(64)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        save_trained(path, graph, network)
        return path.read_bytes()


def _weights(random, corpus, folder):
    """A file of weights as they lie in the repository."""
    roll, blob = random.random(), corpus
    if 0.04 <= roll < 0.5:
        blob = damaged(random, blob)
    elif roll >= 0.5:
        size   = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8:8 + size])
        if random.random() < 0.5:
            inner = json.loads(header["__metadata__"]["attune"])
            header["__metadata__"]["attune"] = json.dumps(twisted(random, inner))
        else:
            header = twisted(random, header)
        text = json.dumps(header).encode()
        blob = struct.pack("<Q", len(text)) + text + blob[8 + size:]
    (folder / "in" / "elec4848-1.safetensors").write_bytes(blob)

    def read():
        models.WEIGHTS = folder / "in"
        models._graph.cache_clear()
        graph = load_graph("elec4848", SIZE, 1)
        shape = [getattr(graph.tensors[graph.input], side)
                 for side in ("channels", "height", "width")]
        if shape != [3, SIZE, SIZE]:
            raise Wrong(f"a frame of {shape}")
        for name, values in integer.run(graph, arbitrary_image(graph, 1)).items():
            t = graph.tensors[name]
            if tuple(values.shape) != (t.channels, t.height, t.width):
                raise Wrong(f"{name} has shape {tuple(values.shape)}")
        _demand_network(load_float("elec4848", SIZE, 1))
    return must_accept(door(read)) if roll < 0.04 else door(read)


CHECKPOINTS = (
    Kind("checkpoint", _checkpoint_corpus, _checkpoint, 14),
    Kind("resume",     _run_corpus,        _resumed,    5),
    Kind("keras",      _keras_corpus,      _keras,      10),
    Kind("weights",    _weights_corpus,    _weights,    5),
)
