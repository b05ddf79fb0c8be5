"""The idx file format of MNIST and its successors."""

import gzip
import math
import os
import struct
import zlib

import numpy as np

_UINT8 = 0x08


def read(path: str | os.PathLike, ndim: int) -> np.ndarray:
  """Reads a gzipped idx file of unsigned bytes.

  The layout is two zero bytes, the element type, the number of axes, one
  big-endian 32-bit length per axis, and the elements in C order.

  Args:
    path: the `.gz` file.
    ndim: the number of axes that the file must have, at least 1.

  Returns:
    uint8 array `[n, ...]` with `ndim` axes.

  Raises:
    ValueError: if the file is not gzip, is cut short, has another magic number
      than `00 00 08 ndim`, or another length than its header says.
  """
  name = os.path.basename(path)
  try:
    with gzip.open(path) as file:
      content = file.read()
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise ValueError(f"{name} is not a whole gzip file: {error}.") from error

  magic, expected = content[:4], bytes([0, 0, _UINT8, ndim])
  if magic != expected:
    raise ValueError(
      f"{name} begins with the bytes {magic.hex(' ')!r}; an idx file of "
      f"unsigned bytes with {ndim} axes begins with {expected.hex(' ')!r}."
    )
  start = 4 + 4 * ndim
  if len(content) < start:
    raise ValueError(f"{name} ends within its header of {start} bytes.")
  shape = struct.unpack(f">{ndim}I", content[4:start])
  if len(content) - start != math.prod(shape):
    raise ValueError(
      f"{name} holds {len(content) - start} elements; its header {shape} "
      f"announces {math.prod(shape)}."
    )
  return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
