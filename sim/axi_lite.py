"""AXI4-Lite manager for benches: one access at a time, and nothing at all in between."""

from cocotb.triggers import RisingEdge

__all__ = ["AxiLiteError", "AxiLiteManager"]


class AxiLiteError(RuntimeError):
    """A register access was answered with an error."""


class AxiLiteManager:
    """Reads and writes 32-bit registers at the port ``name`` of ``dut``."""

    def __init__(self, dut, name):
        self._clk   = dut.clk
        self._ports = {member: dut[f"{name}__{member}"]
                       for member in ("awaddr", "awvalid", "awready", "wdata", "wstrb", "wvalid",
                                      "wready", "bresp", "bvalid", "bready", "araddr", "arvalid",
                                      "arready", "rdata", "rresp", "rvalid", "rready")}
        for member in ("awvalid", "wvalid", "arvalid"):
            self._ports[member].value = 0
        self._ports["bready"].value = 1
        self._ports["rready"].value = 1

    async def write(self, address, value):
        """Write one register."""
        ports = self._ports
        ports["awaddr"].value  = address
        ports["wdata"].value   = value
        ports["wstrb"].value   = 0xF
        ports["awvalid"].value = ports["wvalid"].value = 1
        waiting = {"aw", "w", "b"}
        while waiting:
            await RisingEdge(self._clk)
            for channel in sorted(waiting - {"b"}):
                if ports[f"{channel}ready"].value:
                    ports[f"{channel}valid"].value = 0
                    waiting.discard(channel)
            if ports["bvalid"].value:
                waiting.discard("b")
                self._check(ports["bresp"], "write", address)

    async def read(self, address):
        """Value of one register."""
        ports = self._ports
        ports["araddr"].value  = address
        ports["arvalid"].value = 1
        while True:
            await RisingEdge(self._clk)
            if ports["arvalid"].value and ports["arready"].value:
                ports["arvalid"].value = 0
            if ports["rvalid"].value:
                self._check(ports["rresp"], "read", address)
                return ports["rdata"].value.to_unsigned()

    @staticmethod
    def _check(response, what, address):
        if int(response.value) != 0:
            raise AxiLiteError(f"Register {what} at 0x{address:03x} was answered with "
                               f"response {int(response.value)}")
