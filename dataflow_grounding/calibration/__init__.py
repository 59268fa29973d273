"""Finding out a model's box format, and remembering it: probe pictures, the fit of every format."""
