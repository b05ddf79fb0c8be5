"""Files that are whole or not there."""

import os
from pathlib import Path


def replace(path: str | Path, content: bytes) -> None:
  """Writes a file in one step, so that readers never see half of it.

  Raises:
    OSError: naming the path; what was there before is untouched.
  """
  path = Path(path)
  partial = path.with_name(f"{path.name}.partial")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    partial.replace(path)
  except OSError as error:
    partial.unlink(missing_ok=True)
    raise OSError(f"{path} cannot be written: {error.strerror}.") from error
