"""``make onnx``: write a network as ONNX QDQ, and have ONNX Runtime check the integer graph by it.

ONNX Runtime is the outside referee. It computes the file in float32, node by node as written: its
graph optimisations are off, since they would replace float operators by integer kernels of its
own. Each layer gets the very inputs that the golden model had and may differ by one step in any
element; then the whole network runs, where such steps add up, and the masks must agree. Exit code
0: it does; 1: it does not; 2: it could not be done, and one line says why.
"""

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnx.utils import Extractor
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from golden.command import Parser, exit_code, make_console
from golden.folders import Fresh
from golden.images import read_image
from golden.integer import Add, float_mask, run
from golden.metrics import binary, iou, pixel_agreement
from golden.models import default_shape, load_graph
from golden.onnx_export import export, quantized

__all__ = ["LayerVerdict", "MASK_BAR", "STEP_BAR", "Verdict", "judge", "main", "progress",
           "session", "steps"]

STEP_BAR = 1                # largest difference of any element of a layer, in steps
MASK_BAR = 0.999            # least share of mask pixels that are equal
FOLDER = "reports"


@dataclass(frozen=True)
class LayerVerdict:
    """What ONNX Runtime makes of one layer, fed with the golden model's inputs.

    ``different`` of ``elements`` are not equal; ``steps`` is the largest difference.
    """
    name: str
    kind: str
    elements: int
    different: int
    steps: int


@dataclass(frozen=True)
class Verdict:
    """Every layer by itself, and the mask of the whole network, end to end.

    ``agreement`` and ``iou`` compare the masks of ONNX Runtime as written with the golden model's;
    ``optimised_agreement`` is that of ONNX Runtime as users run it, with its integer kernels, for
    information.
    """
    layers: tuple[LayerVerdict, ...]
    agreement: float
    iou: float
    optimised_agreement: float

    @property
    def steps(self):
        """Largest difference of any element of any layer."""
        return max(layer.steps for layer in self.layers)

    @property
    def passed(self):
        """Whether both bars are met."""
        return self.steps <= STEP_BAR and self.agreement >= MASK_BAR


def session(model, *, optimised=False):
    """An ONNX Runtime session on the CPU that computes a model as it is written.

    ``optimised`` allows every rewriting of the graph, which uses integer kernels and rounds
    otherwise.
    """
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options,
                                        providers=["CPUExecutionProvider"])


def judge(model, graph, image_CHW, *, progress=None):
    """Compare ONNX Runtime on an exported model with the integer graph, on one uint8 frame.

    ``progress``, if given, is called with the number of layers done.
    """
    values = run(graph, image_CHW)
    real = {graph.input: image_CHW[None].to(torch.float32).numpy() / 255}
    extractor = Extractor(onnx.shape_inference.infer_shapes(model))
    layers = []
    for layer in graph.layers:
        layers.append(_judge_layer(extractor, graph, layer, values, real))
        if progress:
            progress(len(layers))
    expected = binary(float_mask(graph, values))
    masks = [binary(torch.from_numpy(
        session(model, optimised=optimised).run([graph.output], real)[0][0, 0]))
        for optimised in (False, True)]
    return Verdict(tuple(layers), pixel_agreement(masks[0], expected), iou(masks[0], expected),
                   pixel_agreement(masks[1], expected))


def _judge_layer(extractor, graph, layer, values, frame):
    """Run the part of the file that makes one tensor."""
    feeds = {}
    for name in layer.inputs:
        if isinstance(graph.layer(name), Add):
            feeds[name] = (values[name][None] * graph.tensors[name].scale).to(torch.float32)
        else:
            feeds[quantized(name)] = values[name][None]
    feeds = {name: value.numpy() for name, value in feeds.items()} or frame
    exact = isinstance(layer, Add)
    output = layer.name if exact else quantized(layer.name)
    part = extractor.extract_model(list(feeds), [output])
    seen = torch.from_numpy(session(part).run([output], feeds)[0][0])
    if exact:
        seen = torch.round(seen / graph.tensors[layer.name].scale)
    steps = (seen.to(torch.int32) - values[layer.name].to(torch.int32)).abs()
    return LayerVerdict(layer.name, type(layer).__name__, steps.numel(),
                        int((steps > 0).sum()), int(steps.max()))


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    graph = load_graph(options.model, options.size, options.width)
    image_CHW = read_image(options.image, graph.size)
    path = Path(options.out)
    if path.suffix != ".onnx":
        width = options.width or default_shape(options.model)[1]
        path = path / f"{options.model}-{width}-{graph.size}.onnx"
    model = export(graph)
    with Fresh(path.parent, (), shared=True) as folder:
        onnx.save(model, folder / path.name)
    console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)
    with progress(console, len(graph.layers)) as done:
        verdict = judge(model, graph, image_CHW, progress=done)
    _print(console, verdict, options.image)
    return 0 if verdict.passed else 1


@contextmanager
def progress(console, layers):
    """A bar, and what to call with the number of layers that are judged."""
    with Progress(TextColumn("ONNX Runtime, layer by layer"), BarColumn(), MofNCompleteColumn(),
                  TimeRemainingColumn(), console=console, transient=True,
                  disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=layers)
        yield lambda done: bar.update(task, completed=done)


def _print(console, verdict, image):
    table = Table(title=f"ONNX Runtime against the integer golden model, {image}")
    for heading, side in (("layer", "left"), ("kind", "left"), ("elements", "right"),
                          ("different", "right"), ("largest difference", "right")):
        table.add_column(heading, justify=side)
    for layer in verdict.layers:
        table.add_row(layer.name, layer.kind, f"{layer.elements:,}", f"{layer.different:,}",
                      steps(layer.steps),
                      style="" if layer.steps <= STEP_BAR else "bold red")
    console.print(table)
    console.print(_line(verdict.steps <= STEP_BAR, "each layer, same inputs",
                        f"largest difference {steps(verdict.steps)}", STEP_BAR))
    console.print(_line(verdict.agreement >= MASK_BAR, "mask, end to end",
                        f"{verdict.agreement:.4%} of pixels equal, IoU {verdict.iou:.4f}",
                        f"{MASK_BAR:.1%}"))
    console.print(f"      with ONNX Runtime's own integer kernels: "
                  f"{verdict.optimised_agreement:.4%} of pixels equal")


def steps(count):
    """In words."""
    return f"{count} step{'' if count == 1 else 's'}"


def _line(passed, what, seen, bar):
    mark = "[green]pass[/]" if passed else "[bold red]MISS[/]"
    return f"{mark}  {what}: {seen} (bar {bar})"


def _parse(arguments):
    parser = Parser("golden.referee", __doc__)
    parser.add_argument("--model", default="elec4848")
    parser.add_argument("--image", default="phantom:7")
    parser.add_argument("--out", default=FOLDER,
                        help="file that ends in .onnx, or a folder for it")
    parser.add_argument("--size", type=int)
    parser.add_argument("--width", type=int)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
