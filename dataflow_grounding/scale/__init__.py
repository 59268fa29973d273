"""One run on many machines, and remote results.

That is Ray, shards, merging, buckets and mirrors.
"""
