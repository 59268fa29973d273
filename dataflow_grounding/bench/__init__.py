"""`bench`: how well an endpoint grounds, on pictures with gold that come with the package.

`set/` has the pictures and `gold.jsonl`, which `bench_set` reads; `ways` are the ways of asking,
each a pipeline; `running` asks, `scoring` makes figures, `page` shows them.
`own_pictures` reads a user's own pictures with gold, `choosing` says which way is best on these.
"""
