"""Data sets that TFDS prepares in a folder and reads from it."""

import contextlib
import io
import os
import sys
from typing import Any, TypeAlias

import tensorflow_datasets as tfds

Builder: TypeAlias = tfds.core.DatasetBuilder


def prepared(
  builder_class: type[Builder],
  data_dir: str | os.PathLike,
  manual_dir: str | os.PathLike | None,
) -> Builder:
  """A builder of ours whose data are in place, prepared if need be.

  Args:
    builder_class: of `builders`.
    data_dir: folder of the prepared sets; made if need be.
    manual_dir: folder with the official files; None downloads them.

  Raises:
    FileNotFoundError: if the official files are not there or cannot be
      downloaded.
    ValueError: if one of them is damaged.
  """
  data_dir = os.path.expanduser(data_dir)

  def build():
    return builder_class(data_dir=data_dir, file_format="array_record")

  builder = build()
  if builder.info.splits:
    return builder
  config = tfds.download.DownloadConfig(try_download_gcs=False)
  if manual_dir is not None:
    manual_dir = os.path.expanduser(manual_dir)
    if not os.path.isdir(manual_dir) or not os.listdir(manual_dir):
      raise FileNotFoundError(
        f"manual_dir {manual_dir!r} is not a folder with files in it."
      )
    config = config.replace(manual_dir=manual_dir)
  try:
    with _quiet():
      builder.download_and_prepare(download_config=config)
    return builder
  except OSError:
    # TFDS moves the finished folder to its place. The move fails where another
    # process was faster, and then that one's data are as good.
    builder = build()
    if not builder.info.splits:
      raise
    return builder


def rows(name: str, builder: Builder, split: str) -> list[dict[str, Any]]:
  """All rows of a split, in the order in which they are stored.

  Args:
    name: the data set, for messages.
    builder: whose data are in place.
    split: one of its splits.

  Raises:
    ValueError: if the data are damaged or in another format than array_record.
  """
  folder = os.fspath(builder.data_dir)
  try:
    source = builder.as_data_source(split)
    return source.__getitems__(range(len(source)))
  except NotImplementedError as error:
    raise ValueError(
      f"{name} is stored as {builder.info.file_format.value} in {folder!r}; "
      "prepare it with file_format='array_record'."
    ) from error
  except RuntimeError as error:  # array_record checks its files' hashes
    raise ValueError(
      f"{name} is damaged in {folder!r} ({error}); delete that folder to have "
      "it prepared anew."
    ) from error


@contextlib.contextmanager
def _quiet():
  """Keeps what TFDS prints off stdout, and its bars out of logs."""
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    yield
