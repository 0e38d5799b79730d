"""Descriptor files: opening, reading in any order or as a stream, writing.

>>> import tempfile, numpy as np
>>> with tempfile.TemporaryDirectory() as folder:
...     vectors = np.arange(12, dtype=np.uint8).reshape(3, 4)
...     write_vectors(f"{folder}/few.bvecs", [vectors], dim=4, dtype=np.uint8)
...     few = open_vectors(f"{folder}/few.bvecs")
...     few.format, few.rows, few.dim, few.dtype
...     few.take([0, 2])
3
('bvecs', 3, 4, dtype('uint8'))
array([[ 0,  1,  2,  3],
       [ 8,  9, 10, 11]], dtype=uint8)
"""

from __future__ import annotations

from vwkit.formats.base import FORMATS, Format, MissingFileError, VectorFile
from vwkit.formats.open import open_vectors
from vwkit.formats.writing import write_vectors

__all__ = ["FORMATS", "Format", "MissingFileError", "VectorFile", "open_vectors", "write_vectors"]
