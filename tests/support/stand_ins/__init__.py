"""Models that stand in for real ones, with errors of known kinds."""
