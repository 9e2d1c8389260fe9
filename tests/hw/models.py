"""What stands around a block under test: memories that refuse at random, and stalling sinks."""

import random

from hw.interfaces import PENDING_READS


def reader(port, words, *, latency=PENDING_READS, stall=0.0, seed=0, requests=None):
    """Behaviour of the memory behind ``port`` (a ``MemoryRead``, seen from the reader).

    Refuses with odds ``stall``. Answers exactly ``latency`` cycles after acceptance; if that is
    more than ``PENDING_READS``, as in a pipelined machine, so many cycles later at least: with
    odds ``stall`` nothing is answered in a cycle. A request that is withdrawn or altered before it
    is accepted fails the test. ``requests`` collects the accepted addresses.
    """
    chance = random.Random(seed)

    async def serve(ctx):
        answers = [None] * (latency - 1)
        late    = []
        waiting = None
        while True:
            ready = chance.random() >= stall
            ctx.set(port.address.ready, ready)
            valid, address = (await ctx.tick().sample(port.address.valid, port.address.p))[2:]
            if waiting is not None:
                assert valid and address == waiting, "a read request was withdrawn or altered"
            waiting = address if valid and not ready else None
            answers.append(address if valid and ready else None)
            answer = answers.pop(0)
            if latency != PENDING_READS:
                late  += [] if answer is None else [answer]
                answer = late.pop(0) if late and chance.random() >= stall else None
            ctx.set(port.data_valid, answer is not None)
            if answer is None:
                ctx.set(port.data, chance.getrandbits(len(port.data)))
            else:
                if requests is not None:
                    requests.append(answer)
                ctx.set(port.data, int.from_bytes(words[answer], "little"))

    return serve


def sink(port, accept, *, stall=0.0, seed=0):
    """Takes every payload of stream ``port`` and hands it to ``accept``; refuses with odds
    ``stall``, and checks that nothing on offer is withdrawn or altered."""
    chance = random.Random(seed)

    async def serve(ctx):
        waiting = None
        while True:
            ready = chance.random() >= stall
            ctx.set(port.ready, ready)
            valid, payload = (await ctx.tick().sample(port.valid, port.p))[2:]
            if waiting is not None:
                assert valid and payload == waiting, "a payload was withdrawn or altered"
            waiting = payload if valid and not ready else None
            if valid and ready:
                accept(payload)

    return serve


def watch(signals, accept):
    """Hands the values of ``signals`` to ``accept`` once a cycle."""
    async def serve(ctx):
        while True:
            accept(*(await ctx.tick().sample(*signals))[2:])

    return serve


class RowModel:
    """A row memory as bytes; unwritten ones are None, and writing one twice is an error."""

    def __init__(self, *, banks, depth, vector, lanes):
        self.banks, self.vector, self.lanes = banks, vector, lanes
        self.depth = depth
        self.words = {}

    def write(self, payload):
        part = self.vector // self.lanes
        assert payload.bank < self.banks and payload.address < self.depth
        data = payload.data.to_bytes(self.vector, "little")
        for lane in range(self.lanes):
            if payload.mask >> lane & 1:
                for byte in range(lane * part, lane * part + part):
                    key = (payload.bank, payload.address, byte)
                    assert key not in self.words, f"{key} is written twice"
                    self.words[key] = data[byte]
