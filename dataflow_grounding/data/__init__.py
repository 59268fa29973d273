"""Records and rows: reading, writing, and where steps keep them."""
