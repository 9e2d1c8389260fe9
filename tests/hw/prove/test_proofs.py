"""What CI proves: each property holds, is not vacuous, and its mutant is refuted."""

import pytest

from hw.prove.bench import catalogue
from hw.prove.examine import examine

PROPERTIES = catalogue()


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_mutant_is_of_a_line_that_exists(name):
    """Of the slow ones, too: one of these once ended `make prove` after the line had changed."""
    with PROPERTIES[name].mutant.applied():
        pass


@pytest.mark.parametrize("name", [name for name, entry in PROPERTIES.items() if not entry.slow])
def test_property(name, tmp_path):
    result = examine(name, out=tmp_path)
    assert result.shown, f"{result.outcome}\n{result.explanation}"
