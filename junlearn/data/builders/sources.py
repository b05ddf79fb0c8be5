"""Where the original files come from: a folder of the user's or the network."""

import os
import pathlib
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

MANUAL = "Put the official files, under their official names, into manual_dir."


class LocalInfo(tfds.core.DatasetInfo):
  """Info that is never sought in TFDS's cloud bucket."""

  def initialize_from_bucket(self) -> None:
    """Does nothing.

    The bucket could only answer for the stock set of the same name, and TFDS
    leaves an empty temporary folder behind for each time it asks.
    """


def fetch(
  dl_manager: Any,
  name: str,
  urls: Mapping[str, str],
  *,
  endings: Sequence[str] = (),
) -> dict:
  """Local paths of official files.

  Where a manual folder is given, they are taken from it or from its subfolder
  `name` (MNIST and Fashion-MNIST share their file names), and nothing is
  downloaded, so that a mistyped folder never ends in other data. Downloads are
  checked against the checksums that TFDS itself has, for the addresses that it
  knows.

  Args:
    dl_manager: the `tfds.download.DownloadManager` of the preparation.
    name: the data set, for the subfolder and for messages.
    urls: `{key: address}`; an address ends in the official file name.
    endings: that a file of the manual folder may have instead of its own.

  Returns:
    `{key: path}`.

  Raises:
    FileNotFoundError: if the manual folder lacks a file, or a download fails.
  """
  files = {key: url.rsplit("/", 1)[-1] for key, url in urls.items()}
  manual = _manual_dir(dl_manager)
  if manual is None:
    return _download(dl_manager, name, urls, files)
  for folder in (manual, manual / name):
    found = {key: _find(folder, file, endings) for key, file in files.items()}
    if any(found.values()):
      break
  else:
    folder = manual
  missing = [file for key, file in files.items() if found[key] is None]
  if missing:
    raise FileNotFoundError(
      f"manual_dir {os.fspath(folder)!r} lacks {', '.join(missing)}, which "
      f"{name} needs there."
    )
  return found


def _find(folder, file, endings):
  stem = pathlib.PurePath(file).stem
  names = (file, *(stem + ending for ending in endings))
  paths = (folder / name for name in names)
  return next((path for path in paths if path.exists()), None)


def _manual_dir(dl_manager):
  try:
    return dl_manager.manual_dir
  except AssertionError:  # how TFDS says that there is none, or an empty one
    return None


def _download(dl_manager, name, urls, files):
  try:
    for url in urls.values():
      _check_reachable(url)
    return dl_manager.download(dict(urls))
  except Exception as error:  # HTTP and checksum errors share no narrower base
    raise FileNotFoundError(
      f"{name} could not be downloaded from {min(urls.values())} "
      f"({type(error).__name__}: {error}): put {', '.join(files.values())} "
      "into a folder and pass it as manual_dir."
    ) from error


def _check_reachable(url):
  """Raises OSError at once where TFDS would retry for minutes."""
  if urllib.request.getproxies():
    return  # the proxy resolves the name; this machine may be unable to
  parts = urllib.parse.urlsplit(url)
  port = parts.port or {"http": 80, "https": 443}[parts.scheme]
  socket.create_connection((parts.hostname, port), timeout=10).close()
