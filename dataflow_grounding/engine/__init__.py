"""The engine: runs the steps of a plan over the rows of a file, and owns everything that can go
wrong.
"""
