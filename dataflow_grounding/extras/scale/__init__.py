"""One run on many machines, and results elsewhere: Ray, leases, shards, merging, buckets and
mirrors.
"""
