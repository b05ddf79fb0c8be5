"""Files are replaced whole or not at all."""

import errno
import os

import pytest

from junlearn import files


def test_replaces_and_makes_folders(tmp_path):
  path = tmp_path / "a" / "b.txt"
  for content in (b"one", b"two"):
    files.replace(path, content)
    assert path.read_bytes() == content
  assert os.listdir(path.parent) == ["b.txt"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "b.txt"
  files.replace(path, b"old")

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match=r"b\.txt cannot be written: No space left"):
    files.replace(path, b"new")
  assert path.read_bytes() == b"old"
  assert os.listdir(tmp_path) == ["b.txt"]
