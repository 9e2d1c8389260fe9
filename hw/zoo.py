"""``make zoo``: public U-Nets, built by their own libraries, and what becomes of each.

Every network is made with random weights, exported by PyTorch, quantised as ``make quantise`` does
(with ``FREEZE=1`` where its name says ``frozen``) and compiled for CONFIG; then ONNX Runtime says
how far its layers are from the integer ones. The table has the estimated cycles, the share of the
lanes, the off-chip bytes and their ratio to the compulsory ones, or why it does not run;
``zoo.json`` in OUT has all of it, and beside it lies each quantised network that runs, for ``make
sim MODEL=``. The networks of segmentation-models-pytorch need the extra ``zoo`` of this project,
which ``make zoo`` installs; without it they are left out, and said so. Exit code 0: every network
was tried, whatever came of it; 1: ONNX Runtime is further than a step from one that runs; 2: it
could not be done.
"""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import onnx
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import nn

from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.folders import Fresh
from golden.images import read_image
from golden.places import ROOT
from golden.progress import bars
from golden.referee import STEP_BAR
from hw.compiler import CompileError, compile_network
from hw.compiler.importer import Refused, judge
from hw.config import preset
from hw.network import export_module
from hw.quantise import load_calibrated

__all__ = ["ZOO", "main", "tried"]

MONAI, SMP = "monai", "segmentation_models_pytorch"
PICTURES   = "phantom:2"        # of the calibration
PICTURE    = "phantom:1"
SEED       = 0
EXTRA      = ROOT / ".venv" / "zoo"
"""Where ``make`` puts the libraries of the extra."""


def _monai(kind, *arguments, **named):
    def make():
        from monai.networks import nets
        return getattr(nets, kind)(*arguments, **named)
    return MONAI, make


def _smp(kind, encoder):
    def make():
        # Shapes of torchvision's compiled operators, which another build of PyTorch does not have,
        # and no network here has either.
        sys.modules.setdefault("torchvision._meta_registrations", ModuleType("unused"))
        import segmentation_models_pytorch
        return getattr(segmentation_models_pytorch, kind)(encoder, encoder_weights=None,
                                                          in_channels=3, classes=1)
    return SMP, make


WIDTHS, HALVES = (16, 32, 64, 128), (2, 2, 2)
DYNAMIC = {"kernel_size": (3, 3, 3, 3), "strides": (1, 2, 2, 2), "upsample_kernel_size": HALVES,
           "filters": WIDTHS}
ZOO = {
    "UNet":              _monai("UNet", 2, 3, 1, WIDTHS, HALVES, norm="batch"),
    "UNet, residual":    _monai("UNet", 2, 3, 1, WIDTHS, HALVES, num_res_units=2, norm="batch"),
    "AttentionUnet, frozen": _monai("AttentionUnet", 2, 3, 1, WIDTHS, HALVES),
    "BasicUNet":         _monai("BasicUNet", 2, 3, 1, (16, 16, 32, 64, 128, 16), norm="batch"),
    "BasicUNet++":       _monai("BasicUNetPlusPlus", 2, 3, 1, features=(16, 16, 32, 64, 128, 16),
                                norm="batch"),
    "DynUNet":           _monai("DynUNet", 2, 3, 1, **DYNAMIC, norm_name="batch"),
    "DynUNet, residual": _monai("DynUNet", 2, 3, 1, **DYNAMIC, norm_name="batch", res_block=True),
    "DynUNet, frozen":   _monai("DynUNet", 2, 3, 1, **DYNAMIC, norm_name="instance"),
    "SegResNet":         _monai("SegResNet", 2, 16, 3, 1, norm="batch"),
    "SegResNet, frozen": _monai("SegResNet", 2, 16, 3, 1),
    **{f"Unet, {encoder}": _smp("Unet", encoder) for encoder in (
        "resnet18", "resnet34", "vgg11_bn", "mobilenet_v2", "efficientnet-b0")},
    **{f"{kind}, resnet18": _smp(kind, "resnet18") for kind in (
        "Linknet", "UnetPlusPlus", "MAnet", "DeepLabV3Plus")},
    "FPN, resnet18, frozen": _smp("FPN", "resnet18"),
}
"""Name -> its library, and what makes it."""


def tried(network, config, size, folder, name, *, freeze=False):
    """What becomes of a float network of ``size`` x ``size`` pixels on a machine, as for JSON;
    with ``freeze``, as of :func:`hw.quantise.load_calibrated`. If it runs, its file is the ``file``
    of ``folder``, after its ``name``."""
    path = Path(folder) / "float.onnx"
    try:
        export_module(_with_statistics(network), path, 3, (size, size))
        imported = load_calibrated(path, PICTURES, freeze=freeze)
        program  = compile_network(imported.graph, config)
    except Refused as refused:
        return {"runs": False, "reasons": list(refused.reasons)}
    except (InputError, CompileError) as error:
        return {"runs": False, "reasons": [str(error).replace(f"{path}: ", "")]}
    finally:
        path.unlink(missing_ok=True)
    file = re.sub(r"[^\w+]+", "-", name).lower() + ".onnx"
    onnx.save(imported.model, path.with_name(file))
    frame    = imported.graph.tensors[imported.graph.input]
    verdicts = judge(imported, imported.frame(read_image(PICTURE, (frame.height, frame.width))))
    macs   = sum(layer.macs for layer in program.layers)
    cycles = program.estimated_cycles
    moved  = sum(program.layer_bytes.values()) + program.program_bytes
    return {"runs": True, "file": file, "layers": len(imported.graph.layers), "macs": macs,
            "estimated_cycles": cycles, "utilisation": macs / cycles / config.mac_lanes,
            "offchip_bytes": moved, "offchip_ratio": moved / program.compulsory_bytes,
            "steps": max(layer.steps for layer in verdicts), "notes": list(imported.notes)}


def _with_statistics(network):
    """A network whose batch normalisation is not the identity, as new ones are."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    if options.size < 1 or options.size % 64:
        raise InputError(f"SIZE must be a multiple of 64, not {options.size}: some of the networks "
                         "halve it six times")
    sys.path.append(str(EXTRA))
    config  = preset(options.config, changes=options.set)
    missing = sorted({library for library, _ in ZOO.values()
                      if importlib.util.find_spec(library) is None})
    chosen  = {name: make for name, (library, make) in ZOO.items() if library not in missing}
    found   = {}
    with Fresh(options.out, ("zoo.json", "*.onnx"), shared=True) as folder:
        with bars(console) as bar:
            task = bar.add_task("networks", total=len(chosen))
            for name, make in chosen.items():
                torch.manual_seed(SEED)
                found[name] = tried(make(), config, options.size, folder, name,
                                    freeze=name.endswith("frozen"))
                bar.advance(task)
        (folder / "zoo.json").write_text(json.dumps(
            {"config": config.name, "size": options.size, "not_installed": missing,
             "networks": found}, indent=1) + "\n")
    console.print(_table(found, config, options.size))
    for name, result in found.items():
        for reason in result.get("reasons", ()):
            console.print(f"{name}: {reason}", soft_wrap=True, markup=False)
    for library in missing:
        console.print(f"not installed, so not tried: {library}")
    runs  = sum(result["runs"] for result in found.values())
    apart = max((result["steps"] for result in found.values() if result["runs"]), default=0)
    console.print(f"{runs} of {len(found)} run; ONNX Runtime is {apart} step"
                  f"{'' if apart == 1 else 's'} apart at most (bar {STEP_BAR})")
    return 0 if apart <= STEP_BAR else 1


def _table(found, config, size):
    table = Table(title=f"on {config.name}, {size} x {size}, by estimate", title_justify="left",
                  box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("network", no_wrap=True)
    for heading in ("layers", "MMAC", "cycles", "of lanes", "bytes", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, result in found.items():
        if result["runs"]:
            table.add_row(name, str(result["layers"]), f"{result['macs'] / 1e6:.0f}",
                          f"{result['estimated_cycles']:,}", f"{result['utilisation']:.0%}",
                          f"{result['offchip_bytes']:,}", f"{result['offchip_ratio']:.2f}")
        else:
            table.add_row(name, "no", *[""] * 5)
    return table


def _parse(arguments):
    parser = Parser("hw.zoo", __doc__)
    parser.add_argument("--config", default="reference")
    parser.add_argument("--set")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", default="reports/zoo")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
