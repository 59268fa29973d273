"""What the library costs and survives, measured: `python -m benchmarks.NAME`."""
