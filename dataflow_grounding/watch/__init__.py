"""Watching a run's boxes, so that none is in another convention than the one they are read in."""
