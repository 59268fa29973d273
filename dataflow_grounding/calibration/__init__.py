"""Finding out in which box format a model answers: probe pictures, the fit of every format, and what is remembered."""
