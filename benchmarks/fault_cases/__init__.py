"""The faults that only the benchmark plays: tests of rooms show the same, or they take long."""
