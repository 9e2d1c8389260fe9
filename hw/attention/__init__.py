"""The attention unit: attention maps, and the gate that weighs the skips with them."""
