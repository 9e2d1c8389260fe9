"""The chip for other people's designs: one Verilog file, and what Vivado and Quartus ask for."""
