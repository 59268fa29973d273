"""Runs on a cluster: the driver splits the input and commits, workers take the parts through the
steps.
"""
