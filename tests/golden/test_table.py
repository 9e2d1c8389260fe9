from dataclasses import fields

import pytest
import torch
from rich.console import Console

from golden import integer
from golden.models import load_graph
from golden.networks import (
    MODELS,
    AttUNetCT,
    AttUNetNuclei,
    UNetBusi,
    elec4848,
    elec4848_ds,
    float_bytes,
    int8_bytes,
    macs,
    parameters,
    peak_activation_bytes,
)
from golden.table import COLUMNS, PUBLISHED, main, markdown, measure


def test_published_figures():
    base, separable = PUBLISHED["elec4848"], PUBLISHED["elec4848-ds-published"]
    assert (base.macs, base.operations, base.float_bytes, base.int8_bytes, base.accuracy) == (
        14.6e9, 29.2e9, 42.9e6, 11.1e6, (94.78, 93.56))
    assert (separable.macs, separable.operations, separable.float_bytes, separable.int8_bytes,
            separable.accuracy) == (2.9e9, 5.8e9, 10.7e6, 3.0e6, (91.82, 91.82))
    assert base.peak_bytes == separable.peak_bytes == 13.7e6
    assert base.published and separable.published


def test_a_row_is_counted():
    network = elec4848(size=32, width=2)
    row = measure("mine", network)
    assert row.name == "mine" and row.frame == 32 and not row.published
    assert row.operations == 2 * row.macs
    assert row.parameters == parameters(network)
    assert row.float_bytes == 4 * row.parameters == float_bytes(network)
    assert row.int8_bytes == int8_bytes(network)
    assert row.cells() == ("mine", "32", f"{row.parameters / 1e6:.2f}", "0.00", "0.00",
                           f"{row.float_bytes / 1e6:.2f}", f"{row.int8_bytes / 1e6:.2f}",
                           f"{row.peak_bytes / 1e6:.2f}", "")


@pytest.mark.parametrize(("name", "width"), [
    ("elec4848", 8), ("elec4848", 32), *((name, 4) for name in MODELS)])
def test_counts_are_those_of_the_integer_graph(name, width):
    graph, network = load_graph(name, size=32, width=width), MODELS[name](size=32, width=width)
    arrays = [getattr(layer, part.name) for layer in graph.layers for part in fields(layer)]
    held = sum(x.numel() * x.element_size() for x in arrays if isinstance(x, torch.Tensor))
    sums = sum(type(layer).__name__ == "Sum" for layer in graph.layers)
    assert sums == (network.depth if name == "attunet-nuclei" else 0)
    # Of floor and ceiling a channel has one.
    bounded = sum(len(layer.floor) for layer in graph.layers
                  if getattr(layer, "floor", None) is not None)
    assert bounded == (2 * (31 + 15) * width if name == "attunet-ct" else 0)
    assert int8_bytes(network) == held - 3 * sums - bounded
    assert sum(integer.macs(graph).values()) == sum(macs(network).values())


def test_int8_bytes_by_hand():
    # Width 1, depth 1: e1a 3->1, c1 1->1, e2a 1->2, encoding 2->2, g normal 2->1, g down 1->1,
    # g logit 1->1, d1a 3->1, d1 1->1, logit 1->1.
    weights = 27 + 9 + 18 + 36 + 18 + 9 + 1 + 27 + 9 + 1
    channels = 1 + 1 + 2 + 2 + 1 + 1 + 1 + 1 + 1 + 1
    gated, tables = 1, 2
    assert int8_bytes(elec4848(size=16, width=1, depth=1)) == (
        weights + 7 * (channels + gated) + 256 * tables)


def test_peak_is_where_the_decoder_convolves_both_halves():
    # d4_up has 2w channels, gated4 and d4a w each, all at full size.
    assert peak_activation_bytes(elec4848(size=64, width=4)) == (8 + 4 + 4) * 64 * 64
    # The depthwise result in between has 3w channels, and its input is still alive.
    assert peak_activation_bytes(elec4848_ds(size=64, width=4)) == (8 + 4 + 12) * 64 * 64
    # d4_up, the skip and d4a have w each.
    assert peak_activation_bytes(UNetBusi(size=64, width=4)) == 3 * 4 * 64 * 64
    assert peak_activation_bytes(AttUNetCT(size=64, width=4)) == (8 + 4 + 4) * 64 * 64
    # The signal of 2w, the skip, both projections and their sum.
    assert peak_activation_bytes(AttUNetNuclei(size=64, width=4)) == (8 + 4 * 4) * 64 * 64


def test_markdown_has_a_line_for_each_network_and_publication():
    lines = markdown().splitlines()
    assert lines[0] == "| " + " | ".join(COLUMNS) + " |"
    assert lines[2] == "| elec4848 | 256 | 10.20 | 15.76 | 31.53 | 40.80 | 10.23 | 8.39 |  |"
    assert lines[3] == "| published |  |  | 14.6 | 29.2 | 42.9 | 11.1 | 13.7 | 94.78/93.56 |"
    assert lines[5].startswith("| elec4848-ds-published | 256 | 2.57 | 3.08 | 6.17 | 10.29 |")
    assert [line.split(" |")[0] for line in lines[2:10]] == [
        "| elec4848", "| published", "| elec4848-ds", "| elec4848-ds-published", "| published",
        "| unet-busi", "| attunet-nuclei", "| attunet-ct"]
    assert all(line.count("|") == 10 for line in lines[:10])


def test_the_table_fits_a_terminal_of_80_columns(capsys):
    main([], Console(width=80))
    out = capsys.readouterr().out
    assert "…" not in out
    assert "attunet-nuclei 256 8.14 45.62 91.23 32.57 8.16 25.17" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_markdown_option(capsys):
    main(["--markdown"])
    assert capsys.readouterr().out == markdown() + "\n"
