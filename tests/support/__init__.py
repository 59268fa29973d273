"""What benchmarks and tests run in: folders, stores, wires, and a measured process."""
