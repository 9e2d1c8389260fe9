"""The attention monitor: attention maps to the outside while the frame runs."""
