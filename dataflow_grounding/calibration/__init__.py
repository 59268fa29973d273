"""Finding out a model's box format: probe pictures, the fit of every format, and what is
remembered.
"""
