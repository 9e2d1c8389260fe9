"""Running the machine: simulators, off-chip memory, the host, and what it reports."""
