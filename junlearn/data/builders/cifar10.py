"""CIFAR-10 from its binary archive."""

import os
import tarfile
import zlib
from typing import Any

import numpy as np

from junlearn.data.builders import images, sources

_FOLDER = "cifar-10-batches-bin/"
_SPLITS = {
  "train": [f"{_FOLDER}data_batch_{i}.bin" for i in range(1, 6)],
  "test": [f"{_FOLDER}test_batch.bin"],
}
_PIXELS = 3 * 32 * 32


class Cifar10(images.ImageBuilder, skip_registration=True):
  """50,000 + 10,000 color images of 32x32 pixels in 10 classes."""

  name = "cifar10"
  IMAGE_SHAPE = (32, 32, 3)
  CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
  )
  HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
  MANUAL_DOWNLOAD_INSTRUCTIONS = sources.MANUAL
  SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"

  def _splits(self, dl_manager: Any) -> dict[str, images.Split]:
    paths = sources.fetch(dl_manager, self.name, {"archive": self.SOURCE})
    batches = read(paths["archive"])
    return {
      name: images.Split(
        image=np.concatenate([batches[member].image for member in members]),
        label=np.concatenate([batches[member].label for member in members]),
      )
      for name, members in _SPLITS.items()
    }


def read(path: str | os.PathLike) -> dict[str, images.Split]:
  """Reads the six batch files of the archive, of whatever length they are.

  A record is a label byte and 3,072 pixel bytes, channels first.

  Args:
    path: `cifar-10-binary.tar.gz`, or an archive of the same form with fewer
      records.

  Returns:
    `{member name: Split}` with images `[n, 32, 32, 3]`.

  Raises:
    ValueError: if the archive is damaged, lacks a batch file, or a batch file
      is not a whole number of records.
  """
  wanted = [member for members in _SPLITS.values() for member in members]
  batches = {}
  try:
    # One pass: going back in a compressed archive means to begin again.
    with tarfile.open(path) as archive:
      for member in archive:
        content = archive.extractfile(member) if member.isfile() else None
        if content is not None and member.name in wanted:
          batches[member.name] = _parse(member.name, content.read())
  except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
    raise ValueError(
      f"{os.path.basename(path)} is not a whole .tar.gz archive: {error}."
    ) from error
  missing = [member for member in wanted if member not in batches]
  if missing:
    raise ValueError(f"{os.path.basename(path)} lacks {', '.join(missing)}.")
  return batches


def _parse(name, content):
  if len(content) % (1 + _PIXELS):
    raise ValueError(
      f"{name} has {len(content)} bytes, which is not a multiple of the "
      f"{1 + _PIXELS} bytes of a record."
    )
  records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
  pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  return images.Split(image=pixels, label=records[:, 0])
