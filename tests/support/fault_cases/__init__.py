"""The faults of `python -m benchmarks.faults`, by what goes wrong."""
