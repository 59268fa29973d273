"""What a data set is like before it is trained on.

Figures of it, findings in it, and parts that share no picture.
"""
