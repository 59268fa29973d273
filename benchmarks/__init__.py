"""What the library costs and survives, measured: `python -m benchmarks.NAME`.

Commands are here. `fault_cases`, `stand_ins` and `places` are what they are made of.
"""
