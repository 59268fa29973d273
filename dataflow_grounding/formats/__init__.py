"""Annotation formats: one file a format, which turns its files into regions in pixels."""
