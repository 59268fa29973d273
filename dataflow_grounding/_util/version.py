"""The package's version."""

__version__ = "0.1.0"

OUTPUT = f"{__version__} 1"
"""What made the files of a run. Raise the last number with each change to what comes out of stored
replies: files of another one are made again.
"""
