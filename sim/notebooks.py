"""``make notebooks``: run the notebooks, and keep in each what its cells print and draw.

A notebook is a file of Jupyter's format (nbformat 4), and needs Jupyter only to be worked with: its
cells are run here by Python alone, in a new folder. Exit code 0: all ran; 2: a cell failed, and the
notebook is as it was.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

import matplotlib

from golden.command import Parser, exit_code, make_console
from golden.errors import InputError
from golden.places import ROOT

__all__ = ["FOLDER", "main", "refresh", "run"]

FOLDER = ROOT / "notebooks"


def run(notebook):
    """The notebook (a dictionary) with new outputs.

    Raises
    ------
    InputError
        If a cell fails: its number, and the exception.
    """
    matplotlib.use("Agg")
    names, cells, count = {"__name__": "__main__"}, [], 0
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    count += 1
                    cell = {**cell, "execution_count": count,
                            "outputs": _outputs("".join(cell["source"]), names, count)}
                cells.append(cell)
        finally:
            os.chdir(before)
    return {**notebook, "cells": cells}


def refresh(path):
    """Run the notebook of a file, and write it with its outputs."""
    notebook = json.loads(path.read_text())
    text     = json.dumps(run(notebook), indent=1, ensure_ascii=False) + "\n"
    scratch  = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)


def _outputs(source, names, count):
    """What a cell prints, what its last expression is, and what it draws."""
    from matplotlib import pyplot
    said, value = io.StringIO(), None
    tree  = ast.parse(source)
    last  = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    where = f"cell {count}"
    try:
        with contextlib.redirect_stdout(said):
            exec(compile(tree, where, "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), where, "eval"), names)
    except Exception as error:
        line = next((frame.lineno for frame in reversed(traceback.extract_tb(error.__traceback__))
                     if frame.filename == where), 0)
        raise InputError(f"{where}, line {line}: {type(error).__name__}: {error}") from error
    found = []
    if said.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": _lines(said.getvalue())})
    found += [{"output_type": "display_data", "metadata": {}, "data": {"image/png": _png(number)}}
              for number in pyplot.get_fignums()]
    pyplot.close("all")
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": _lines(value._repr_html_()), **data}
        found.append({"output_type": "execute_result", "execution_count": count, "metadata": {},
                      "data": data})
    return found


def _png(number):
    from matplotlib import pyplot
    drawn = io.BytesIO()
    pyplot.figure(number).savefig(drawn, format="png", dpi=80, bbox_inches="tight",
                                  metadata={"Software": None})
    return base64.b64encode(drawn.getvalue()).decode()


def _lines(text):
    return text.splitlines(keepends=True)


def main(arguments=None):
    """The command line; returns the exit code."""
    return exit_code(_command, arguments)


def _command(arguments):
    _parse(arguments)
    console = make_console()
    for path in sorted(FOLDER.glob("*.ipynb")):
        with console.status(path.name):
            try:
                refresh(path)
            except InputError as error:
                raise InputError(f"{path.name}: {error}") from None
        console.print(f"{path.relative_to(ROOT)}: every cell ran")


def _parse(arguments):
    return Parser("sim.notebooks", __doc__).parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
