"""What the words of the page mean: section 2 of the contract, in the words of hw/README.md."""

from typing import NamedTuple

__all__ = ["BOUNDS", "CAUSES", "CLASSES", "ENGINES", "WORDS"]


class Word(NamedTuple):
    """A word of the page and what it means."""
    name:    str
    meaning: str


WORDS = {
    "bit-exact": Word(
        "Bit-exact",
        "Every compared tensor equals the golden integer model on every byte."),
    "golden": Word(
        "Golden model",
        "The network in exact PyTorch integers: the truth that the hardware is compared with."),
    "mask": Word(
        "Mask",
        "The network's result: for every pixel 0 to 255, how sure it is of a lesion. 128 and more "
        "counts as lesion."),
    "alpha": Word(
        "Attention map (α)",
        "What a gate makes of each pixel, 0 to 1: how much of the encoder's map it lets through. "
        "Seen by the attention monitor while the frame runs."),
    "dice": Word(
        "Dice",
        "How alike two masks are: twice their common area over the sum of their areas; 1 is "
        "equal."),
    "iou": Word(
        "IoU",
        "Intersection over union: the common area of two masks over the area that either covers."),
    "mac": Word(
        "MAC",
        "Multiply-accumulate: one product of two 8-bit numbers added to a sum. GMAC: 10⁹ of them."),
    "lane": Word(
        "MAC lane",
        "One multiplier with its adder, which can do one MAC per cycle."),
    "fps": Word(
        "Frames per second",
        "Of a stream the clock over the interval between masks; of one frame 1 over its execution "
        "time, which has the program's first words in it, as the latency has not."),
    "utilisation": Word(
        "MAC utilisation",
        "Useful MACs of the model over (MAC lanes × cycles). For one frame it counts the latency "
        "of the first frame; in steady state the cycles between two masks. Transformed "
        "convolutions make two pixels with four products instead of six, so it may exceed 100 %: "
        "then it is effective, and the share of busy lanes beside it is what they really did."),
    "vector instruction": Word(
        "Vector instruction",
        "One operation issued to one engine in one cycle: a step of the MAC array, a row-memory "
        "vector, a post-processing vector, a beat of off-chip data. The instruction of IPC and "
        "CPI."),
    "macro instruction": Word(
        "Macro instruction",
        "One word of the program, a row or a tile of a layer. It expands into vector instructions "
        "in the engine's own sequencer."),
    "ipc": Word(
        "IPC",
        "Instructions per cycle: retired vector instructions over cycles; 0 to 1 per engine, and "
        "for the whole machine its parallelism."),
    "cpi": Word(
        "CPI",
        "Cycles per instruction, 1 / IPC. As a stack: every cycle of every engine has exactly one "
        "cause, and the causes sum to the cycles of the run."),
    "engine": Word(
        "Engine",
        "An issue port of the machine. Each runs its own stream of macro instructions: three "
        "loads, two stores, and in the units the fills, the MAC arrays and the gate."),
    "latency": Word(
        "Latency",
        "Cycles from the first bytes of a frame arriving to the last bytes of its mask landing in "
        "off-chip memory."),
    "interval": Word(
        "Interval",
        "Cycles between consecutive masks in steady state, when frames overlap."),
    "execution time": Word(
        "Execution time",
        "Cycles / clock. The clock is the configured one, or the one that place-and-route "
        "reported; the page says which."),
    "off-chip": Word(
        "Off-chip memory",
        "Dynamic memory (DRAM) beside the chip: program, weights, frames, masks and what does not "
        "fit on chip, with the timing of a real data sheet."),
    "compulsory": Word(
        "Compulsory bytes",
        "What must cross the pins at least: the program once; weights, frame and mask once per "
        "frame."),
    "spill": Word(
        "Spilled map",
        "A map that does not fit on chip: it is written off chip and read again."),
    "row hit": Word(
        "Row hit, row miss",
        "An access that finds its memory row open, or that must open it first and waits longer."),
    "bandwidth": Word(
        "Bandwidth",
        "Bytes per cycle. The peak is one beat per cycle, or what the memory's pins allow; the "
        "measured one is bytes moved over cycles in which the memory was busy."),
    "occupancy": Word(
        "Occupancy",
        "On-chip bytes live over time: a block lives from its first writer to its last reader. "
        "The decoder's own feedback memory counts as on-chip."),
    "footprint": Word(
        "Footprint",
        "On-chip bytes that belonged to some block at some time of the run."),
    "roofline": Word(
        "Roofline",
        "The most a layer could do: limited by the MAC lanes (flat) or by the off-chip bytes it "
        "moves (slope). A dot far below both waits for something else."),
    "trace": Word(
        "Event trace",
        "Start and end of every instruction, as the hardware itself reported them during the run."),
    "mib": Word(
        "KiB, MiB, GiB",
        "1024, 1024² and 1024³ bytes."),
    "mhz": Word(
        "MHz",
        "Megahertz: 10⁶ clock cycles per second."),
    "json": Word(
        "JSON",
        "The text format of report.json, which has every figure of this page."),
}

CAUSES = {
    "issue":        Word("issuing", "retired one vector instruction"),
    "dependency":   Word("dependency", "waits for a result of another engine"),
    "conflict":     Word("port conflict", "lost a memory port to another engine"),
    "offchip":      Word("off-chip", "waits for a load, or for its next instruction"),
    "backpressure": Word("back-pressure", "its consumer cannot take more"),
    "fill_drain":   Word("fill, drain", "fills or drains its pipeline"),
    "no_work":      Word("no work", "has run its whole stream"),
}
"""Cause of a cycle -> its name, and what the engine did."""

CLASSES = {
    "program": "program",
    "weights": "weights",
    "frame":   "frame",
    "spill":   "spilled maps",
    "alpha":   "attention maps",
    "mask":    "mask",
}

BOUNDS = {
    "offchip":     Word("off-chip bytes",
                        "its bytes take longer at the peak bandwidth than its steps"),
    "pipeline":    Word("short rows",
                        "most of its cycles fill or drain the pipeline, or wait for a port"),
    "array_shape": Word("idle lanes", "its shape leaves more than a quarter of the lanes idle"),
    "issue":       Word("its own steps",
                        "it issues a step in most cycles, and nearly all lanes are in use"),
}
"""``bound_by`` of a layer -> its name, and when it holds; the first that does."""

ENGINES = {
    "load":      {"load_encoder": "load for the encoder", "load_attention": "load for attention",
                  "load_decoder": "load for the decoder"},
    "encoder":   {"encoder_fill": "encoder fill", "encoder": "encoder MAC array"},
    "attention": {"attention_fill": "attention fill", "attention": "attention MAC array",
                  "gate": "gate"},
    "decoder":   {"decoder_fill": "decoder fill", "decoder": "decoder MAC array"},
    "store":     {"store": "store", "store_decoder": "store of the decoder"},
    "monitor":   {"monitor": "attention monitor"},
}
"""Unit -> key in ``units`` of the report -> what the page calls it."""
