"""Runs on a cluster: the driver splits the input and commits, workers take shards through the steps; Ray between."""
