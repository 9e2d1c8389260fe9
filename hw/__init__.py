"""The accelerator in Amaranth HDL: one module per block of figure 10, one package per unit."""
