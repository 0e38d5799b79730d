"""Measurements, each a named case that prints a table: ``python -m benchmarks CASE …``."""
