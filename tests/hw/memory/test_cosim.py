"""The memory system in Verilog, against an AXI implementation that is not ours."""

import random

import pytest

from hw.config import TINY, preset
from hw.memory.dram import timing_plusarg
from hw.memory.offchip import MODEL_SOURCES, OffchipMemory
from tests.hw.memory.dma import Dma


@pytest.mark.cosim
@pytest.mark.parametrize(("simulator", "dram"), [
    ("icarus", "sdr-ulx3s"), ("icarus", TINY.dram.name), ("verilator", TINY.dram.name)])
def test_offchip_memory(cosimulate, tmp_path, simulator, dram):
    """Also: paths with spaces and parentheses, and an image that ends inside the memory."""
    config = preset("tiny", dram=dram)
    folder = tmp_path / "my images (busi)"
    folder.mkdir()
    image, dump = folder / "frame (1).bin", folder / "mask (1).bin"
    image.write_bytes(random.Random(7).randbytes(3000 * config.vector))
    depth = 4096
    cosimulate(OffchipMemory(config=config, depth=depth, id_width=2),
               "tests.hw.memory.bench_offchip", simulator=simulator, sources=MODEL_SOURCES,
               plusargs=[timing_plusarg(config), f"+offchip_image={image}",
                         f"+offchip_dump={dump}"],
               BYTES=depth * config.vector, VECTOR=config.vector, IMAGE=image, DUMP=dump)


@pytest.mark.cosim
def test_loads_and_stores(cosimulate):
    cosimulate(Dma(config=TINY, window=16), "tests.hw.memory.bench_dma", VECTOR=TINY.vector)
