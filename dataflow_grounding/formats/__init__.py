"""Annotation formats: one module per format, which turns its files into regions in pixels."""
