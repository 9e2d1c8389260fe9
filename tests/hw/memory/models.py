"""AXI managers and a memory in Python, for tests in Amaranth's simulator."""

import random

from hw.memory.axi import BurstType, Response

__all__ = ["AxiMemory", "read_burst", "write_burst"]


async def read_burst(ctx, axi, address, beats, *, size, stall=0.0, burst=BurstType.INCR, ident=0):
    """Read one burst; returns ``[(data, response), ...]`` and checks ``rlast`` and ``rid``."""
    ctx.set(axi.araddr, address)
    ctx.set(axi.arlen, beats - 1)
    ctx.set(axi.arsize, size)
    ctx.set(axi.arburst, burst)
    ctx.set(axi.arid, ident)
    ctx.set(axi.arvalid, 1)
    await ctx.tick().until(axi.arready)
    ctx.set(axi.arvalid, 0)
    answer = []
    while len(answer) < beats:
        ready = random.random() >= stall
        ctx.set(axi.rready, ready)
        _, _, valid, data, resp, last, rid = await ctx.tick().sample(
            axi.rvalid, axi.rdata, axi.rresp, axi.rlast, axi.rid)
        if valid and ready:
            answer.append((data, Response(resp)))
            assert last == (len(answer) == beats)
            assert rid == ident
    ctx.set(axi.rready, 0)
    return answer


async def write_burst(ctx, axi, address, words, *, size, strobes=None, stall=0.0, ident=0):
    """Write one burst and return its response."""
    ctx.set(axi.awaddr, address)
    ctx.set(axi.awlen, len(words) - 1)
    ctx.set(axi.awsize, size)
    ctx.set(axi.awid, ident)
    ctx.set(axi.awvalid, 1)
    await ctx.tick().until(axi.awready)
    ctx.set(axi.awvalid, 0)
    full = (1 << (1 << size)) - 1
    for index, word in enumerate(words):
        while random.random() < stall:
            await ctx.tick()
        ctx.set(axi.wdata, word)
        ctx.set(axi.wstrb, full if strobes is None else strobes[index])
        ctx.set(axi.wlast, index == len(words) - 1)
        ctx.set(axi.wvalid, 1)
        await ctx.tick().until(axi.wready)
        ctx.set(axi.wvalid, 0)
    ctx.set(axi.bready, 1)
    resp, bid = await ctx.tick().sample(axi.bresp, axi.bid).until(axi.bvalid)
    ctx.set(axi.bready, 0)
    assert bid == ident
    return Response(resp)


class AxiMemory:
    """Subordinate that answers in order with random pauses, and checks the protocol.

    ``words`` maps beat addresses to data. ``fails`` holds beat addresses that answer SLVERR.
    ``reads`` and ``writes`` log the bursts as ``(byte address, beats)``.
    """

    def __init__(self, *, vector, words=None, stall=0.0, latency=3, fails=()):
        self.vector  = vector
        self.words   = {} if words is None else words
        self.stall   = stall
        self.latency = latency
        self.fails   = set(fails)
        self.reads   = []
        self.writes  = []
        self.most_outstanding = 0
        self.refuses_data     = False     # WREADY stays low, for now

    def _check(self, address, length, size, burst):
        assert 1 << size == self.vector
        assert BurstType(burst) == BurstType.INCR
        assert address % self.vector == 0
        assert address // 4096 == (address + length * self.vector) // 4096, "crosses 4 KiB"

    async def read_side(self, ctx, axi):
        queue   = []      # [cycle, beat address, last]
        offered = None
        held    = None
        cycle   = 0
        while True:
            if offered is None and queue and queue[0][0] <= cycle and random.random() >= self.stall:
                offered = queue[0]
                ctx.set(axi.rdata, self.words.get(offered[1], 0))
                ctx.set(axi.rresp, Response.SLVERR if offered[1] in self.fails else Response.OKAY)
                ctx.set(axi.rlast, offered[2])
            ctx.set(axi.rvalid, offered is not None)
            ready = random.random() >= self.stall
            ctx.set(axi.arready, ready)
            _, _, arvalid, address, length, size, burst, rready = await ctx.tick().sample(
                axi.arvalid, axi.araddr, axi.arlen, axi.arsize, axi.arburst, axi.rready)
            cycle += 1
            if held is not None:
                assert arvalid and (address, length) == held, "AR changed before the transfer"
            held = (address, length) if arvalid and not ready else None
            if arvalid and ready:
                self._check(address, length, size, burst)
                self.reads.append((address, length + 1))
                queue += [[cycle + self.latency, address // self.vector + k, k == length]
                          for k in range(length + 1)]
            if offered is not None and rready:
                queue.pop(0)
                offered = None
            self.most_outstanding = max(self.most_outstanding, sum(entry[2] for entry in queue))

    async def write_side(self, ctx, axi):
        queue   = []      # [byte address, length]
        answers = []      # [cycle, response]
        beat    = 0
        held_aw = held_w = None
        failed  = False
        cycle   = 0
        bvalid  = False
        while True:
            bvalid = bvalid or bool(answers and answers[0][0] <= cycle
                                    and random.random() >= self.stall)
            ctx.set(axi.bvalid, bvalid)
            if bvalid:
                ctx.set(axi.bresp, answers[0][1])
            awready = random.random() >= self.stall
            wready  = (bool(queue) and not self.refuses_data
                       and random.random() >= self.stall)
            ctx.set(axi.awready, awready)
            ctx.set(axi.wready, wready)
            (_, _, awvalid, address, length, size, burst, wvalid, data, strobe, last,
             bready) = await ctx.tick().sample(
                axi.awvalid, axi.awaddr, axi.awlen, axi.awsize, axi.awburst, axi.wvalid,
                axi.wdata, axi.wstrb, axi.wlast, axi.bready)
            cycle += 1
            if held_aw is not None:
                assert awvalid and (address, length) == held_aw, "AW changed before the transfer"
            if held_w is not None:
                assert wvalid and (data, strobe, last) == held_w, "W changed before the transfer"
            held_aw = (address, length) if awvalid and not awready else None
            held_w  = (data, strobe, last) if wvalid and not wready else None
            if bvalid and bready:
                answers.pop(0)
                bvalid = False
            if wvalid and wready:
                address0, length0 = queue[0]
                word   = address0 // self.vector + beat
                old    = self.words.get(word, 0)
                mask   = sum(0xFF << 8 * k for k in range(self.vector) if strobe >> k & 1)
                failed = failed or word in self.fails
                if strobe and word not in self.fails:
                    self.words[word] = old & ~mask | data & mask
                assert last == (beat == length0), "wlast misplaced"
                beat += 1
                if last:
                    answers.append([cycle + self.latency,
                                    Response.SLVERR if failed else Response.OKAY])
                    queue.pop(0)
                    beat, failed = 0, False
            if awvalid and awready:
                self._check(address, length, size, burst)
                self.writes.append((address, length + 1))
                queue.append((address, length))
            self.most_outstanding = max(self.most_outstanding, len(queue) + len(answers))
