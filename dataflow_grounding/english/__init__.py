"""English, read by rules over closed word lists.

`nouns` tells singular from plural, and `heads` finds the noun of a phrase; `words` has the lists of
which `noun_phrases` are made. By these, figures, exports, reviews and the watch know what a phrase
names, and the embedded grounder knows what to look for.
"""
