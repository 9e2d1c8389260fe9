"""Proofs: what holds of the blocks in every cycle and for every input. See README.md."""
