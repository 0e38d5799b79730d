"""How large the blocks of the kernels are, and how far off a float32 product may be."""

from __future__ import annotations

__all__ = ["CELLS", "CENTERS", "PAIR_BYTES", "UNDERFLOW", "UNIT", "UNIT64"]

UNIT = 2.0**-24
UNIT64 = 2.0**-53
UNDERFLOW = 2.0**-149  # the smallest float32: what a product may lose besides its rounding
CENTERS = 4096  # columns of one block of products
CELLS = 1 << 19  # cells of one block: 2 MiB, less than one core has of the cache
PAIR_BYTES = 2 << 20  # float64 work space for candidates, a few times over per thread
