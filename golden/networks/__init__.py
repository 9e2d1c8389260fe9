"""Float networks: what the engine approximates, and what training produces."""

from golden.names import POOLINGS
from golden.networks.attunet_ct import AttUNetCT
from golden.networks.attunet_nuclei import AttUNetNuclei
from golden.networks.base import Network
from golden.networks.count import (
    float_bytes,
    int8_bytes,
    macs,
    parameters,
    peak_activation_bytes,
)
from golden.networks.elec4848 import (
    Elec4848,
    elec4848,
    elec4848_classes,
    elec4848_ds,
    elec4848_ds_published,
)
from golden.networks.unet_busi import UNetBusi

__all__ = ["MODELS", "AttUNetCT", "AttUNetNuclei", "Elec4848", "Network", "UNetBusi",
           "elec4848", "elec4848_classes", "elec4848_ds", "elec4848_ds_published",
           "float_bytes", "int8_bytes", "macs", "parameters", "peak_activation_bytes"]

# Name -> what makes the network, with its source's size, width and depth as defaults.
MODELS = dict(zip(POOLINGS, (elec4848, elec4848_ds, elec4848_ds_published, elec4848_classes,
                             UNetBusi, AttUNetNuclei, AttUNetCT), strict=True))
