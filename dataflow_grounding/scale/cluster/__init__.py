"""Runs on a cluster.

The driver splits the input and commits, workers take the parts through the steps.
"""
