"""English, read by rules over closed word lists: `words`, and `noun_phrases` made of them.

By these, figures, exports and reviews know the noun of a phrase, and the embedded grounder what it
should look for.
"""
