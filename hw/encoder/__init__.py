"""The encoder unit: c1 to c4 and the encoding, in five passes over on-chip memory."""
