"""Files that are whole or not there."""

import contextlib
import os
from pathlib import Path


def replace(path: str | Path, content: bytes, *, private: bool = False) -> None:
  """Writes a file in one step, so that readers never see half of it.

  Args:
    path: of the file; folders that are missing above it are made.
    content: all of it.
    private: whether it is for its owner alone: mode 0600 from the moment it
      exists, and 0700 for the folders made, whatever the umask.

  Raises:
    OSError: naming the path; what was there before is untouched.
  """
  path = Path(path)
  partial = path.with_name(f"{path.name}.partial")
  mode = 0o600 if private else 0o666
  try:
    if private:
      make_private(path.parent)
    else:
      path.parent.mkdir(parents=True, exist_ok=True)
    # What a killed writer left would keep its mode, and "x" follows no link.
    partial.unlink(missing_ok=True)
    with open(partial, "xb", opener=lambda p, f: os.open(p, f, mode)) as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    partial.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):  # the first error is the one to tell
      partial.unlink()
    raise OSError(f"{path} cannot be written: {error.strerror}.") from error


def make_private(folder: str | Path) -> None:
  """Makes a folder, and those missing above it, for their owner alone (0700).

  Folders that exist keep their mode.

  Raises:
    OSError: if a file stands in the way or the place cannot be written.
  """
  folder = Path(folder)
  if not folder.is_dir():
    make_private(folder.parent)
    folder.mkdir(0o700, exist_ok=True)
