"""`tune`: which way of asking a model is best, found out on pictures with gold.

`race` chooses, and knows nothing of models; `candidates` are the ways, each a set of spec keys;
`trying` asks, `scoring` compares replies with gold, `page` shows what was tried.
"""
