"""``component.xml``: the chip in IP-XACT (IEEE 1685-2009), with the bus definitions of Vivado."""

from xml.etree import ElementTree

from amaranth.lib.wiring import Out

from hw.control.regmap import ADDRESS_BITS, REGISTERS, Access
from hw.ip.top import BUSES

__all__ = ["component"]

SPIRIT   = "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"
XILINX   = "http://www.xilinx.com"
VENDOR   = "attune"
LIBRARY  = "user"
VERSION  = "1.0"
FAMILIES = ("artix7", "kintex7", "spartan7", "virtex7", "zynq", "kintexu", "virtexu", "kintexuplus",
            "virtexuplus", "zynquplus", "versal")
ACCESS   = {Access.READ: "read-only", Access.WRITE: "write-only",
            Access.READ_WRITE: "read-write", Access.CLEAR: "read-write"}
SOURCES  = "sources"

INTERFACES = {
    "m_axi":     ("interface", "aximm", "master", {}),
    "s_axi":     ("interface", "aximm", "slave", {}),
    "m_axis":    ("interface", "axis", "master", {}),
    "aclk":      ("signal", "clock", "slave", {"ASSOCIATED_BUSIF": ":".join(BUSES.values()),
                                               "ASSOCIATED_RESET": "aresetn"}),
    "aresetn":   ("signal", "reset", "slave", {"POLARITY": "ACTIVE_LOW"}),
    "interrupt": ("signal", "interrupt", "master", {"SENSITIVITY": "LEVEL_HIGH"}),
}
"""Interface -> library and name of its bus at xilinx.com, its role, and its parameters."""
LOGICAL = {"aclk": "CLK", "aresetn": "RST", "interrupt": "INTERRUPT"}
"""What the bus calls the only wire of it."""


def component(ip, name, verilog, constraints):
    """The text of ``component.xml`` for ``ip`` (:class:`hw.ip.top.Ip`) as the module ``name`` of
    the file ``verilog``; it and ``constraints`` lie beside it."""
    for prefix, space in (("spirit", SPIRIT), ("xilinx", XILINX)):
        ElementTree.register_namespace(prefix, space)
    config, ports = ip.config, ip.signature.members
    top = ElementTree.Element(f"{{{SPIRIT}}}component")
    _add_all(top, vendor=VENDOR, library=LIBRARY, name=name, version=VERSION)
    interfaces = _add(top, "busInterfaces")
    for interface, words in INTERFACES.items():
        _interface(interfaces, interface, *words, ports)
    space = _add(_add(top, "addressSpaces"), "addressSpace", name="m_axi")
    _add_all(space, range=1 << config.offchip_address_width, width=8 * config.vector)
    _registers(top)
    _model(top, name, ports)
    files = _add(_add(top, "fileSets"), "fileSet", name=SOURCES)
    _add(files, "file", name=verilog, fileType="verilogSource")
    _add(files, "file", name=constraints, userFileType="xdc")
    _add_all(top, description=f"INT8 Attention U-Net accelerator, machine {config.name}")
    core = _add(_add(top, "vendorExtensions"), "coreExtensions", space=XILINX)
    families = _add(core, "supportedFamilies", space=XILINX)
    for family in FAMILIES:
        added = _add(families, "family", space=XILINX)
        added.text = family
        added.set(f"{{{XILINX}}}lifeCycle", "Beta")
    _add_all(_add(core, "taxonomies", space=XILINX), XILINX, taxonomy="/UserIP")
    _add_all(core, XILINX, displayName=f"Attune {config.name}", coreRevision=1)
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _add(parent, tag, space=SPIRIT, **children):
    """A new element of ``parent``, with ``children`` that have a text."""
    made = ElementTree.SubElement(parent, f"{{{space}}}{tag}")
    _add_all(made, space, **children)
    return made


def _add_all(parent, space=SPIRIT, **children):
    for tag, text in children.items():
        ElementTree.SubElement(parent, f"{{{space}}}{tag}").text = str(text)


def _refer(parent, tag, library, name):
    """A reference to a bus of Xilinx."""
    made = _add(parent, tag)
    for key, value in (("vendor", "xilinx.com"), ("library", library), ("name", name),
                       ("version", "1.0")):
        made.set(f"{{{SPIRIT}}}{key}", value)


def _interface(parent, name, library, bus, role, parameters, ports):
    made = _add(parent, "busInterface", name=name)
    _refer(made, "busType", library, bus)
    _refer(made, "abstractionType", library, f"{bus}_rtl")
    side = _add(made, role)
    if bus == "aximm":
        kind = "addressSpaceRef" if role == "master" else "memoryMapRef"
        _add(side, kind).set(f"{{{SPIRIT}}}{kind}", name)
    maps = _add(made, "portMaps")
    for port in ports:
        if port == name or port.startswith(f"{name}_"):
            mapped = _add(maps, "portMap")
            _add(mapped, "logicalPort",
                 name=LOGICAL.get(port) or port.removeprefix(f"{name}_").upper())
            _add(mapped, "physicalPort", name=port)
    if parameters:
        listed = _add(made, "parameters")
        for key, value in parameters.items():
            _add(listed, "parameter", name=key, value=value)


def _registers(top):
    made  = _add(_add(top, "memoryMaps"), "memoryMap", name="s_axi")
    block = _add(made, "addressBlock", name="registers", baseAddress=0, range=1 << ADDRESS_BITS,
                 width=32, usage="register")
    for register, entry in REGISTERS.items():
        _add(block, "register", name=register.name, description=entry.text,
             addressOffset=f"0x{register.value:X}", size=32, access=ACCESS[entry.access])


def _model(top, name, ports):
    model = _add(top, "model")
    views = _add(model, "views")
    for use in ("synthesis", "simulation"):
        view = _add(views, "view", name=f"verilog_{use}",
                    envIdentifier=f"verilogSource:vivado.xilinx.com:{use}", language="verilog",
                    modelName=name)
        _add(view, "fileSetRef", localName=SOURCES)
    listed = _add(model, "ports")
    for port, member in ports.items():
        wire = _add(_add(listed, "port", name=port), "wire",
                    direction="out" if member.flow is Out else "in")
        if member.shape > 1:
            _add(wire, "vector", left=member.shape - 1, right=0)
