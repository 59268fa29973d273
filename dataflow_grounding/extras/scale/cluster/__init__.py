"""Runs on a cluster: the driver splits the input and commits, workers take the parts through the
steps.
"""

LEAVING = "leaving Ray"
"""The name of a thread that ends the connection to a cluster; without an answer it may never be
through.
"""
