"""What CI proves: each property holds, is not vacuous, and its mutant is refuted."""

import pytest

from hw.prove.bench import catalogue
from hw.prove.examine import examine

PROPERTIES = catalogue()


@pytest.mark.parametrize("name", [name for name, entry in PROPERTIES.items() if not entry.slow])
def test_property(name, tmp_path):
    result = examine(name, out=tmp_path)
    assert result.shown, f"{result.outcome}\n{result.explanation}"
