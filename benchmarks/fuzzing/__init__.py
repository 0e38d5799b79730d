"""Hostile bytes for everything that reads what strangers wrote; see `benchmarks.fuzz`."""
