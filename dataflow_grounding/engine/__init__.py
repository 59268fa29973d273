"""The engine: runs the steps of a plan over the rows of a file.

It owns everything that can go wrong.
"""
