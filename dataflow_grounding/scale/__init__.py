"""One run on many machines.

That is Ray, shards and merging.
"""
