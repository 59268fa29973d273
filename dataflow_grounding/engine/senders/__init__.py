"""The chain that gets a request answered: each sender does one thing, and knows the next alone.

In order: stored, gateway_cache, silence, retry, refusals, places, picture_limit, paying,
to_serving. A sender's `send` returns the reply, or raises why there is none.
"""
