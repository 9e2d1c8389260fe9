"""The whole chip with its reset: the other runs have none, and begin with initial values."""

import pickle

import pytest

from hw.config import TINY
from hw.memory.dram import timing_plusarg
from sim.campaigns.hostile_code import bases
from sim.top import SOURCES, SimTop


@pytest.mark.cosim
def test_a_reset_in_the_middle_of_a_run_leaves_no_trace(cosimulate, tmp_path):
    base, = bases(seeds=[5])
    (tmp_path / "base").write_bytes(pickle.dumps(base))
    (tmp_path / "image").write_bytes(base.image)
    # The bus monitors stay out: a synchronous reset leaves VALID as it was in its own first cycle.
    cosimulate(SimTop(TINY, check=False), "tests.sim.bench_reset", sources=SOURCES,
               BASE=tmp_path / "base", DUMP=tmp_path / "dump",
               plusargs=[timing_plusarg(TINY), f"+offchip_image={tmp_path / 'image'}",
                         f"+offchip_dump={tmp_path / 'dump'}"])
