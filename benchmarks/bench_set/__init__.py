"""Draws the pictures of `dataflowgrounding bench`, and writes their gold."""
