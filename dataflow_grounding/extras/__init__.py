"""Rooms that can be taken away: nothing of the core imports them."""
