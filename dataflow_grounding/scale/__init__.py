"""One run on many machines, and results elsewhere.

That is Ray, shards, merging, buckets and mirrors.
"""
