"""Results in buckets, worked on in a folder of this machine."""
