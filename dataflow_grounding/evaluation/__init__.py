"""How good annotations are, and what is in them."""
