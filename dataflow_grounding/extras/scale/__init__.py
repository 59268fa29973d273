"""One run on many machines, and results elsewhere.

That is Ray, leases, shards, merging, buckets and mirrors.
"""
