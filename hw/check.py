"""``make check-model``: whether a network runs, where, and at what cost, before anything is built.

MODEL is an ONNX QDQ file, a float one with pictures for CALIBRATION, or a name of ``make models``.
Prints every layer with its unit, the estimated cycles at which its first and last row are done, and
its off-chip bytes, and what the other machines would make of it; or every reason why not, with the
nearest rewrite that would run, and what share of the network would. ONNX Runtime then computes
every layer of a file on the very inputs that the integer model has. Exit code 0: it runs; 1: ONNX
Runtime differs by more than a step; 2: it does not run.
"""

import sys
from time import process_time

from rich.box import SIMPLE_HEAD
from rich.table import Table

from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.images import padded, read_image
from golden.integer import Conv
from golden.names import is_file
from golden.referee import STEP_BAR, progress
from hw.compiler import CompileError, compile_network
from hw.compiler.importer import Refused, judge, worst
from hw.config import PRESETS, preset, usual_shape
from hw.network import load_network, padding

__all__ = ["check", "main"]

NONE_RUNS = "no preset runs it; take a smaller frame, or fewer channels in that layer"
NAME_COLUMNS = 30       # at most, of a layer's name


def check(graph, imported, config, console):
    """Print what compiling a network, as of :func:`hw.network.load_network`, for a preset tells;
    returns the program.

    Raises
    ------
    CompileError
        If it does not run.
    """
    started = process_time()
    program = compile_network(graph, config)
    seconds = process_time() - started
    kinds   = {layer.name: _kind(layer) for layer in graph.layers}
    frame   = graph.tensors[graph.input]
    table   = Table(title=f"{graph.network} on {config.name}, frame "
                          f"{frame.height}x{frame.width}x{frame.channels}", box=SIMPLE_HEAD,
                    padding=(0, 1, 0, 0), title_justify="left")
    for heading, side in (("", "right"), ("layer", "left"), ("kind", "left"), ("unit", "left"),
                          ("output", "right"), ("MACs", "right"), ("from cycle", "right"),
                          ("to cycle", "right"), ("off-chip B", "right")):
        table.add_column(heading, justify=side, no_wrap=True,
                         max_width=NAME_COLUMNS if heading == "layer" else None)
    for layer in program.layers:
        first, last = (f"{cycle:,}" for cycle in program.layer_spans[layer.id]) \
            if layer.id in program.layer_spans else ("", "")
        table.add_row(str(layer.id), layer.name, kinds.get(layer.name, "copy"), layer.unit,
                      f"{layer.height}x{layer.width}x{layer.channels}",
                      f"{layer.macs:,}" if layer.macs else "", first, last,
                      f"{program.layer_bytes.get(layer.id, 0):,}")
    console.print(table)
    for line in (*_figures(program, config), f"compiled in {seconds:.2f} s of one core",
                 *(imported.notes if imported else ()),
                 *(line for _, line in _elsewhere(graph, config))):
        console.print(line, markup=False)
    return program


def referee(imported, image, console):
    """Print what ONNX Runtime makes of a file's layers; returns whether it is within the bar."""
    graph   = imported.graph
    frame   = graph.tensors[graph.input]
    picture = padded(read_image(image, imported.picture), (frame.height, frame.width))
    with progress(console, len(graph.layers)) as done:
        layer, line = worst(judge(imported, imported.frame(picture), progress=done))
    console.print(line, style="" if layer.steps <= STEP_BAR else "bold red")
    return layer.steps <= STEP_BAR


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    options, console = _parse(arguments), make_console()
    config = preset(options.config, changes=options.set)
    if not is_file(options.model):
        size, width = usual_shape(options.model, config)
        options.size  = size if options.size is None else options.size
        options.width = width if options.width is None else options.width
    try:
        graph, imported = load_network(
            options.model, options.size, options.width, pad=True, calibration=options.calibration,
            freeze=options.freeze, console=console)
        check(graph, imported, config, console)
        frame = graph.tensors[graph.input]
        if line := padding(imported.picture if imported else (options.size, options.size),
                           (frame.height, frame.width)):
            console.print(line)
    except Refused as refused:
        raise InputError("\n  ".join(refused.lines)) from None
    except CompileError as error:
        found = tuple(_elsewhere(graph, config))
        if not any(runs for runs, _ in found):
            found += (False, NONE_RUNS),
        raise InputError("\n  ".join((str(error), *(line for _, line in found)))) from None
    agreed = imported is None or not options.referee or referee(imported, options.image, console)
    return 0 if agreed else 1


def _elsewhere(graph, config):
    """Whether the presets other than ``config`` run a network, and how fast, or why not."""
    for name, other in PRESETS.items():
        if other == config:
            continue
        try:
            yield True, f"with CONFIG={name}: {_score(compile_network(graph, other), other)}"
        except CompileError as error:
            yield False, f"not with CONFIG={name}: {error}"


def _score(program, config):
    """Speed on a machine, and how much of it is used."""
    macs   = sum(layer.macs for layer in program.layers)
    cycles = program.estimated_cycles
    return (f"about {cycles:,} cycles a frame alone, {cycles / config.clock_mhz / 1e3:.2f} ms at "
            f"{config.clock_mhz:g} MHz, {macs / cycles / config.mac_lanes:.1%} of "
            f"{config.mac_lanes} lanes")


def _figures(program, config):
    """What the whole network costs, a line each."""
    macs    = sum(layer.macs for layer in program.layers)
    traffic = sum(program.layer_bytes.values()) + program.program_bytes
    yield f"it runs: {_score(program, config)}"
    yield f"{macs:,} MACs; in a stream, where frames overlap, more of the lanes are used"
    yield (f"off chip {traffic:,} bytes, {traffic / program.compulsory_bytes:.2f} times the "
           "compulsory ones")
    if program.spilled:
        yield "maps that do not fit on chip: " + ", ".join(program.spilled)
    for output in program.outputs:
        yield f"output {output.name}: {output.height} x {output.width} x {sum(output.layout)}"


def _kind(layer):
    kind = type(layer).__name__
    if isinstance(layer, Conv):
        rows, columns = layer.weight.shape[2:]
        kind = "depthwise" if layer.groups > 1 else kind
        return f"{kind} {rows}x{columns}" + (f" /{layer.stride}" if layer.stride > 1 else "")
    return kind


def _parse(arguments):
    parser = Parser("hw.check", __doc__)
    parser.add_argument("--model", default="elec4848")
    parser.add_argument("--config", default="reference")
    parser.add_argument("--set")
    parser.add_argument("--size", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--calibration")
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--image", default="phantom:7")
    parser.add_argument("--referee", type=int, choices=(0, 1), default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
