"""The deterministic network that runs thousands of mesh machines in one process: faults, invariants, measurements."""
