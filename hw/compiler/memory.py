"""Where things lie: allocators for every memory of the machine, used while emitting."""

from hw.compiler.errors import CompileError


class Heap:
    """Blocks that live from :meth:`take` to :meth:`give`. Takes the first hole after the previous
    block: successive tiles, stages and frames use different words and wait less for each other."""

    def __init__(self, name, words):
        self.name, self.words = name, words
        self.blocks = {}        # base -> (words, what)
        self.next   = 0
        self.peak   = 0

    def take(self, words, what):
        base = self._hole(words, self.next)
        if base is None:
            base = self._hole(words, 0)
        if base is None:
            live = ", ".join(f"{name} {size}" for size, name in self.blocks.values())
            raise CompileError(f"{what} needs {words} words of {self.name}; of its {self.words} "
                               f"these are in use: {live or 'none'}")
        self.blocks[base] = (words, what)
        self.next = base + words
        self.peak = max(self.peak, self.used())
        return base

    def gather(self, words):
        """The blocks taken next, ``words`` in all, are to lie side by side."""
        base = self._hole(words, self.next)
        self.next = self._hole(words, 0) if base is None else base

    def used(self):
        return sum(size for size, _ in self.blocks.values())

    def largest(self):
        """Words of the largest hole."""
        edges = [0, *(edge for base, (size, _) in sorted(self.blocks.items())
                      for edge in (base, base + size)), self.words]
        return max(end - start for start, end in zip(edges[::2], edges[1::2], strict=True))

    def _hole(self, words, start):
        for base, (size, _) in sorted(self.blocks.items()):
            if base + size <= start:
                continue
            if start + words <= base:
                return start
            start = base + size
        return start if start + words <= self.words else None

    def give(self, base):
        del self.blocks[base]


class OffchipImage:
    """The contents of off-chip memory before a run, built from address 0 up."""

    ALIGN = 64

    def __init__(self, capacity):
        self.capacity = capacity
        self.data     = bytearray()
        self.end      = 0

    def reserve(self, size, what):
        """Byte address of ``size`` bytes that the run fills."""
        address = -(-self.end // self.ALIGN) * self.ALIGN
        self.end = address + size
        if self.end > self.capacity:
            raise CompileError(f"{what} needs off-chip memory up to byte {self.end}; this preset "
                               f"has {self.capacity}; use fewer frames, a smaller network or a "
                               "larger preset")
        return address

    def place(self, blob, what):
        """Byte address of ``blob``."""
        address = self.reserve(len(blob), what)
        self.data.extend(bytes(address - len(self.data)))
        self.data.extend(blob)
        return address
