"""The builders against an independent parse of the same files."""

import gzip
import io
import pathlib
import socket
import struct
import tarfile

import numpy as np
import pytest
from sklearn import datasets

from junlearn import data
from junlearn.data import builders
from junlearn.data.builders import idx, sources

MEMBERS = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


def idx_bytes(array):
  header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
  return header + array.tobytes()


def compressed(content):
  # Without a time stamp, so that every pytest worker collects equal test names.
  return gzip.compress(content, mtime=0)


def write_mnist(folder, train, test):
  folder.mkdir(exist_ok=True)
  for prefix, (image, label) in {"train": train, "t10k": test}.items():
    for kind, array in (("images-idx3", image), ("labels-idx1", label)):
      path = folder / f"{prefix}-{kind}-ubyte.gz"
      path.write_bytes(compressed(idx_bytes(array)))


def write_cifar(folder, files):
  folder.mkdir(exist_ok=True)
  path = folder / "cifar-10-binary.tar.gz"
  with tarfile.open(path, "w:gz") as archive:
    for name, content in files.items():
      info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return path


def random_mnist(n, seed):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
  return image, rng.integers(0, 10, n, dtype=np.uint8)


def random_batch(n, seed):
  rng = np.random.default_rng(seed)
  records = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
  records[:, 0] %= 10
  return records


def check(split, image, label, first_id):
  """`image` uint8 `[n, h, w, c]`, in the official order."""
  expected = image.astype(np.float64) / 255
  np.testing.assert_allclose(split["input"], expected, rtol=1e-7)
  # No loss: the bytes can be had back.
  np.testing.assert_array_equal(np.rint(split["input"] * 255), image)
  np.testing.assert_array_equal(split["label"], label)
  ids = np.arange(first_id, first_id + len(label))
  np.testing.assert_array_equal(split["id"], ids)


def test_digits_are_those_of_scikit_learn(tmp_path):
  digits = data.load("digits", data_dir=tmp_path)
  bunch = datasets.load_digits()
  seen = dict.fromkeys(range(10), 0)
  rows = {"train": 0, "test": 0}
  for image, target in zip(bunch.images, bunch.target, strict=True):
    seen[target] += 1
    split = "test" if seen[target] % 5 == 0 else "train"
    examples, row = getattr(digits, split), rows[split]
    np.testing.assert_array_equal(
      examples["input"][row, ..., 0].astype(np.float64), image / 16
    )
    assert examples["label"][row] == target
    rows[split] += 1
  assert rows == {"train": 1442, "test": 355}
  ids = np.concatenate([digits.train["id"], digits.test["id"]])
  np.testing.assert_array_equal(ids, np.arange(1797))


def test_digits_split_is_stratified(tmp_path):
  digits = data.load("digits", data_dir=tmp_path)
  train = np.bincount(digits.train["label"], minlength=10)
  test = np.bincount(digits.test["label"], minlength=10)
  share = test / (train + test)
  assert np.all((share > 0.19) & (share <= 0.2))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("subfolder", [False, True])
def test_mnist_from_manual_dir(tmp_path, name, subfolder):
  train, test = random_mnist(23, 0), random_mnist(7, 1)
  manual = tmp_path / "manual"
  manual.mkdir()
  write_mnist(manual / name if subfolder else manual, train, test)
  loaded = data.load(name, data_dir=tmp_path / "data", manual_dir=manual)
  check(loaded.train, train[0][..., None], train[1], 0)
  check(loaded.test, test[0][..., None], test[1], 23)
  assert loaded.num_classes == 10


def test_cifar_from_manual_dir(tmp_path):
  batches = [random_batch(n, n) for n in (4, 1, 3, 2, 5, 6)]
  # Written out of order, as in the official archive.
  files = {MEMBERS[i]: batches[i].tobytes() for i in (3, 5, 0, 4, 2, 1)}
  write_cifar(tmp_path / "m", {"batches.meta.txt": b"airplane\n", **files})
  loaded = data.load("cifar10", data_dir=tmp_path, manual_dir=tmp_path / "m")
  train = np.concatenate(batches[:5])
  for split, records, first in (
    (loaded.train, train, 0),
    (loaded.test, batches[5], 15),
  ):
    pixels = records[:, 1:].reshape(-1, 3, 32, 32)
    check(split, np.moveaxis(pixels, 1, -1), records[:, 0], first)


def test_real_fashion_mnist(tmp_path, real_dir):
  loaded = data.load("fashion_mnist", data_dir=tmp_path, manual_dir=real_dir)
  first = 0
  for split, prefix in ((loaded.train, "train"), (loaded.test, "t10k")):

    def read(kind, offset, prefix=prefix):
      path = real_dir / "fashion_mnist" / f"{prefix}-{kind}-ubyte.gz"
      with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8)[offset:]

    label = read("labels-idx1", 8)
    check(split, read("images-idx3", 16).reshape(-1, 28, 28, 1), label, first)
    first += len(label)


def test_real_cifar10(tmp_path, real_dir):
  manual = real_dir / "cifar10"
  loaded = data.load("cifar10", data_dir=tmp_path, manual_dir=manual)
  with tarfile.open(manual / "cifar-10-binary.tar.gz") as archive:
    content = {
      pathlib.PurePath(member.name).name: archive.extractfile(member).read()
      for member in archive.getmembers()
      if member.name.endswith(".bin")
    }
  first = 0
  for split, names in (
    (loaded.train, MEMBERS[:5]),
    (loaded.test, MEMBERS[5:]),
  ):
    joined = b"".join(content[name] for name in names)
    records = np.frombuffer(joined, np.uint8).reshape(-1, 3073)
    red, green, blue = np.split(records[:, 1:], 3, axis=1)
    image = np.stack([red, green, blue], axis=-1).reshape(-1, 32, 32, 3)
    check(split, image, records[:, 0], first)
    first += len(records)


@pytest.mark.parametrize(
  "content, message",
  [
    (b"not gzip", "not a whole gzip file"),
    (compressed(idx_bytes(np.zeros(900, np.uint8)))[:-9], "not a whole"),
    (compressed(b"\0\0\x0d\1\0\0\0\1\0\0\0\0"), "begins with .*00 00 08 01"),
    (compressed(idx_bytes(np.zeros((2, 2), np.uint8))), "with 1 axes"),
    (compressed(b"\0\0\x08\1\0"), "within its header of 8 bytes"),
    (compressed(b"\0\0\x08\1\0\0\0\3ab"), "holds 2 elements.*announces 3"),
    (compressed(b"\0\0\x08\1\0\0\0\1ab"), "holds 2 elements.*announces 1"),
  ],
)
def test_damaged_idx(tmp_path, content, message):
  path = tmp_path / "labels.gz"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    idx.read(path, ndim=1)


def test_inconsistent_mnist(tmp_path):
  image, label = random_mnist(5, 0)
  good = image, label
  for bad, message in (
    ((image, label[:4]), r"\(5, 28, 28, 1\); with 4 labels"),
    ((image[:, :27], label), r"\(5, 27, 28, 1\)"),
    ((image, label + np.uint8(10)), "must be below 10"),
    ((image[:0], label[:0]), "no image"),
  ):
    write_mnist(tmp_path / "m", good, bad)
    with pytest.raises(ValueError, match=message):
      data.load("mnist", data_dir=tmp_path, manual_dir=tmp_path / "m")


def test_damaged_cifar(tmp_path):
  files = {name: random_batch(1, 0).tobytes() for name in MEMBERS}
  large = random_batch(1, 0)
  large[0, 0] = 10
  for change, message in (
    ({"data_batch_2.bin": b"\0" * 3072}, "data_batch_2.bin has 3072 bytes"),
    ({"test_batch.bin": b""}, "test files hold no image"),
    ({"test_batch.bin": large.tobytes()}, "contain 10; they must be below 10"),
  ):
    write_cifar(tmp_path / "m", files | change)
    with pytest.raises(ValueError, match=message):
      data.load("cifar10", data_dir=tmp_path, manual_dir=tmp_path / "m")

  del files["data_batch_4.bin"]
  path = write_cifar(tmp_path / "m", files)
  with pytest.raises(ValueError, match=r"lacks .*data_batch_4\.bin"):
    data.load("cifar10", data_dir=tmp_path, manual_dir=tmp_path / "m")
  whole = path.read_bytes()
  for damaged in (whole[: len(whole) // 2], b"not an archive"):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"not a whole \.tar\.gz archive"):
      data.load("cifar10", data_dir=tmp_path, manual_dir=tmp_path / "m")


def test_manual_dir_lacks_a_file(tmp_path):
  write_mnist(tmp_path / "m", random_mnist(2, 0), random_mnist(2, 1))
  (tmp_path / "m" / "t10k-labels-idx1-ubyte.gz").unlink()
  with pytest.raises(FileNotFoundError, match="lacks t10k-labels-idx1-ubyte"):
    data.load("mnist", data_dir=tmp_path, manual_dir=tmp_path / "m")
  for missing in (tmp_path / "none", tmp_path / "m" / "train-images"):
    with pytest.raises(FileNotFoundError, match="is not a folder with files"):
      data.load("mnist", data_dir=tmp_path, manual_dir=missing)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_no_network(tmp_path, monkeypatch, name):
  def refuse(*args, **kwargs):
    raise OSError("no network here")

  monkeypatch.setattr(socket, "create_connection", refuse)
  monkeypatch.setattr(sources.urllib.request, "getproxies", dict)
  with pytest.raises(FileNotFoundError, match=r"no network.*\.gz into a fol"):
    data.load(name, data_dir=tmp_path)


def test_download(tmp_path, monkeypatch, server):
  address, folder = server
  monkeypatch.setattr(builders.Mnist, "SOURCE", address)
  train, test = random_mnist(6, 0), random_mnist(3, 1)
  write_mnist(folder, train, test)
  last = folder / "t10k-labels-idx1-ubyte.gz"
  aside = last.rename(folder / "aside")
  with pytest.raises(FileNotFoundError, match="could not be downloaded"):
    data.load("mnist", data_dir=tmp_path / "data")
  aside.rename(last)
  loaded = data.load("mnist", data_dir=tmp_path / "data")
  check(loaded.train, train[0][..., None], train[1], 0)
  check(loaded.test, test[0][..., None], test[1], 6)


def test_addresses_have_checksums():
  """TFDS knows them, so that a download is verified."""
  from tensorflow_datasets.core.download import checksums

  known = checksums.get_all_url_infos()
  for name in ("mnist", "fashion_mnist", "cifar10"):
    asked = []

    class Manager:
      manual_dir = None

      def download(self, urls, asked=asked):
        asked.extend(urls.values())
        raise OSError("enough")

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(sources, "_check_reachable", lambda url: None)
      with pytest.raises(FileNotFoundError, match="enough"):
        builders.BUILDERS[name]._splits(_Named(name), Manager())
    assert asked and set(asked) <= set(known)


class _Named:
  """Stands for a builder, which would want a data_dir."""

  def __init__(self, name):
    self.name = name
    self.SOURCE = builders.BUILDERS[name].SOURCE
