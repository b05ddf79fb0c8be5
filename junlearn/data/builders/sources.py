"""Where the original files come from: a folder of the user's or the network."""

import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

MANUAL = "Put the official files, under their official names, into manual_dir."


def fetch(dl_manager: Any, name: str, urls: Mapping[str, str]) -> dict:
  """Local paths of official files.

  Where a manual folder is given, they are taken from it or from its subfolder
  `name` (MNIST and Fashion-MNIST share their file names), and nothing is
  downloaded, so that a mistyped folder never ends in other data. Downloads are
  checked against the checksums that TFDS itself has for these addresses.

  Args:
    dl_manager: the `tfds.download.DownloadManager` of the preparation.
    name: the data set, for the subfolder and for messages.
    urls: `{key: address}`; an address ends in the official file name.

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
    if any((folder / file).exists() for file in files.values()):
      break
  else:
    folder = manual
  missing = [f for f in files.values() if not (folder / f).exists()]
  if missing:
    raise FileNotFoundError(
      f"manual_dir {os.fspath(folder)!r} lacks {', '.join(missing)}, which "
      f"{name} needs there."
    )
  return {key: folder / file for key, file in files.items()}


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
