"""The notebooks run, without Jupyter."""

import json

import jsonschema
import pytest

from golden.errors import InputError
from sim.notebooks import FOLDER, refresh, run

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CELLS = {"type": "object", "required": ["cells", "metadata", "nbformat", "nbformat_minor"],
         "properties": {"cells": {"items": {
             "required": ["cell_type", "id", "metadata", "source"]}}}}


def notebook(*sources):
    return {"cells": [{"cell_type": "code", "id": str(number), "metadata": {}, "source": [source],
                       "execution_count": None, "outputs": []}
                      for number, source in enumerate(sources)],
            "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def kinds(cells):
    return [[one["output_type"] for one in cell["outputs"]] for cell in cells
            if cell["cell_type"] == "code"]


@pytest.mark.filterwarnings("ignore")       # PyTorch's about its own exporter
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_shows_what_it_showed(path):
    kept = json.loads(path.read_text())
    jsonschema.validate(kept, CELLS)
    made = run(kept)
    assert kinds(made["cells"]) == kinds(kept["cells"]), "`make notebooks` writes what they show"
    assert sum("display_data" in kind for kind in kinds(made["cells"])) >= 1


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["finding-a-machine", "your-unet-on-a-chip"]


def test_what_cells_print_draw_and_are():
    made = run(notebook("x = 2\nprint(x)\nx + 1", "x = None", "from matplotlib import pyplot\n"
                        "pyplot.plot([1, 2]);\npyplot.show()\nx"))
    first, second, third = (cell["outputs"] for cell in made["cells"])
    assert [(one.get("text"), one.get("data")) for one in first] == [
        (["2\n"], None), (None, {"text/plain": ["3"]})]
    assert second == []
    assert [list(one["data"]) for one in third] == [["image/png"]]
    assert [cell["execution_count"] for cell in made["cells"]] == [1, 2, 3]


def test_a_cell_that_fails_leaves_the_file(tmp_path):
    path = tmp_path / "bad.ipynb"
    path.write_text(json.dumps(notebook("x = 1", "\nx / 0")))
    before = path.read_text()
    with pytest.raises(InputError, match="^cell 2, line 2: ZeroDivisionError: division by zero$"):
        refresh(path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["bad.ipynb"]
