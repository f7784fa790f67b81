"""How much a weight file may ask for while it is opened, before any of its data is read.

Plain numbers for the whole process: `limits.TENSORS = 100_000` before loading changes one. No file of this family comes
near them. Knows no format; those who read one look its numbers up here, each time.
"""

from __future__ import annotations

PICKLE_BYTES = 64 * 2**20  # of a checkpoint's pickle
PICKLE_OPERATIONS = 2_000_000  # of all its pickles together
INTEGER_BITS = 256  # of a number in a pickle
KEY_LENGTH = 4096  # letters of a dictionary's key in a pickle
TENSORS = 50_000
DIMENSIONS = 32  # of one tensor
ZIP_DIRECTORY_BYTES = 16 * 2**20
SAFETENSORS_HEADER_BYTES = 16 * 2**20  # as parsed JSON it takes many times as much
