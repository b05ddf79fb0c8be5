"""Files are replaced whole or not at all."""

import errno
import os
import stat

import pytest

from junlearn.storage import files


@pytest.fixture(params=[0o000, 0o022], ids=["umask 000", "umask 022"])
def umask(request):
  before = os.umask(request.param)
  yield request.param
  os.umask(before)


def mode(path):
  return stat.S_IMODE(path.lstat().st_mode)


def test_replaces_and_makes_folders(tmp_path):
  path = tmp_path / "a" / "b.txt"
  for content in (b"one", b"two"):
    files.replace(path, content)
    assert path.read_bytes() == content
  assert os.listdir(path.parent) == ["b.txt"]


def test_private_files_are_their_owners_alone(tmp_path, umask):
  path = tmp_path / "new" / "deep" / "b.txt"
  files.replace(path, b"secret", private=True)
  assert path.read_bytes() == b"secret"
  assert mode(path) == 0o600
  assert mode(path.parent) == mode(path.parent.parent) == 0o700
  files.replace(tmp_path / "open" / "b.txt", b"for all")
  assert mode(tmp_path / "open" / "b.txt") == 0o666 & ~umask
  assert mode(tmp_path / "open") == 0o777 & ~umask


def test_private_files_are_never_open_while_written(
  tmp_path, umask, monkeypatch
):
  path = tmp_path / "b.txt"
  files.replace(path, b"open")
  # As a killed writer of another mode leaves it.
  (tmp_path / "b.txt.partial").write_bytes(b"half")
  assert mode(path) == mode(tmp_path / "b.txt.partial") == 0o666 & ~umask
  seen = []

  def opened(*arguments):
    descriptor = os_open(*arguments)
    seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
    return descriptor

  os_open = os.open
  monkeypatch.setattr(os, "open", opened)
  files.replace(path, b"secret", private=True)
  assert seen == [0o600]
  assert mode(path) == 0o600


def test_a_link_where_the_file_is_written_is_not_followed(tmp_path):
  (tmp_path / "other").write_bytes(b"mine")
  (tmp_path / "b.txt.partial").symlink_to(tmp_path / "other")
  files.replace(tmp_path / "b.txt", b"secret", private=True)
  assert (tmp_path / "other").read_bytes() == b"mine"
  assert not (tmp_path / "b.txt").is_symlink()


def test_a_file_in_the_way_of_a_private_folder(tmp_path):
  (tmp_path / "a").write_bytes(b"mine")
  with pytest.raises(OSError, match=r"b\.txt cannot be written: File exists"):
    files.replace(tmp_path / "a" / "b.txt", b"secret", private=True)
  assert (tmp_path / "a").read_bytes() == b"mine"


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
