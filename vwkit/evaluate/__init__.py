"""How good a run finds what it should."""
