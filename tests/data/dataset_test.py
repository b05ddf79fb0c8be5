"""Loading: any prepared set, quiet, whole or not at all."""

import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from junlearn import data
from junlearn.data import builders
from tests.data.tofu_files import write_tofu

# --- from_arrays -----------------------------------------------------------


def test_from_arrays():
  examples = data.from_arrays([[1.0], [2.0], [3.0]], [2, 0, 1])
  assert {k: v.dtype for k, v in examples.items()} == {
    "input": np.float32,
    "label": np.int32,
    "id": np.int32,
  }
  np.testing.assert_array_equal(examples["id"], [0, 1, 2])
  ids = np.array([7, -1, 5], np.int64)
  examples = data.from_arrays(np.eye(3), [0, 1, 1], ids, num_classes=2)
  np.testing.assert_array_equal(examples["id"], ids)
  np.testing.assert_array_equal(examples["input"], np.eye(3))


@pytest.mark.parametrize(
  "change, message",
  [
    ({"label": [0, 3]}, r"label contains 3; labels must be in \[0, 3\)"),
    ({"label": [-2, 1]}, "label contains -2"),
    ({"label": [0.0, 1.0]}, "label has dtype float64; it must be integers"),
    ({"label": [True, False]}, "label has dtype bool"),
    ({"label": [0]}, r"label has shape \(1,\); for 2 rows"),
    ({"label": [[0, 1]]}, r"label has shape \(1, 2\)"),
    (
      {"label": [0, 2**40], "num_classes": None},
      "label contains 1099511627776",
    ),
    ({"input": [[np.nan], [1]]}, "input contains nan"),
    ({"input": [[1], [-np.inf]]}, "input contains -inf"),
    ({"input": [[1], [1e300]]}, r"input contains 1e\+300"),
    ({"input": ["a", "b"]}, "input has dtype <U1"),
    ({"input": [[1j], [1]]}, "input has dtype complex128"),
    ({"input": 0.0}, r"input has shape \(\)"),
    ({"input": np.zeros((0, 3)), "label": []}, r"input has shape \(0, 3\)"),
    ({"id": [4, 4]}, "id contains 4 more than once"),
    ({"id": [1, 2, 3]}, r"id has shape \(3,\)"),
    ({"id": ["a", "b"]}, "id has dtype <U1"),
    ({"id": [0, 2**31]}, "id contains 2147483648; ids must fit 32 bits"),
  ],
)
def test_from_arrays_rejects(change, message):
  good = {
    "input": [[0.5], [1.0]],
    "label": [0, 1],
    "id": [3, 4],
    "num_classes": 3,
  }
  with pytest.raises(ValueError, match=message):
    data.from_arrays(**good | change)


# --- load ------------------------------------------------------------------


def test_first_examples_by_id(tmp_path):
  whole = data.load("digits", data_dir=tmp_path)
  part = data.load("digits", data_dir=tmp_path, num_train=9, num_test=4)
  for key in ("input", "label", "id"):
    np.testing.assert_array_equal(part.train[key], whole.train[key][:9])
    np.testing.assert_array_equal(part.test[key], whole.test[key][:4])
  assert (part.num_classes, part.name) == (10, "digits")
  for wrong in ({"num_train": 0}, {"num_test": 356}):
    with pytest.raises(ValueError, match="it must be between 1 and"):
      data.load("digits", data_dir=tmp_path, **wrong)


def test_second_load_needs_no_source(tmp_path, monkeypatch):
  first = data.load("digits", data_dir=tmp_path)

  def fail(self, dl_manager):
    raise AssertionError("prepared twice")

  monkeypatch.setattr(builders.Digits, "_splits", fail)
  second = data.load("digits", data_dir=tmp_path, manual_dir="gone")
  np.testing.assert_array_equal(first.train["input"], second.train["input"])


def test_stdout_is_quiet(tmp_path, capfd):
  data.load("digits", data_dir=tmp_path)
  assert capfd.readouterr().out == ""


def test_without_tensorflow(tmp_path):
  program = """
import sys
from junlearn import data
from junlearn.data.text import tofu
assert len(data.load("digits", data_dir=sys.argv[1]).train["id"]) == 1442
places = {"data_dir": sys.argv[1], "manual_dir": sys.argv[2]}
assert len(tofu.load("forget10", **places)) == 20
assert "tensorflow" not in sys.modules
"""
  write_tofu(tmp_path / "tofu_files")
  command = [sys.executable, "-W", "error", "-c", program]
  subprocess.run([*command, tmp_path, tmp_path / "tofu_files"], check=True)


def test_unknown_name(tmp_path):
  for name in ("nonesuch", "mnist:3.0.1", "no name"):
    with pytest.raises(ValueError, match="nor prepared in data_dir"):
      data.load(name, data_dir=tmp_path)


# --- interruption ----------------------------------------------------------


def test_failed_preparation_leaves_nothing(tmp_path, monkeypatch):
  generate = builders.Digits._generate_examples

  def fail(self, split, start):
    for i, example in enumerate(generate(self, split, start)):
      if i == 300:
        raise KeyboardInterrupt
      yield example

  with monkeypatch.context() as patch:
    patch.setattr(builders.Digits, "_generate_examples", fail)
    with pytest.raises(KeyboardInterrupt):
      data.load("digits", data_dir=tmp_path)
  assert not list((tmp_path / "digits").iterdir())
  assert len(data.load("digits", data_dir=tmp_path).train["id"]) == 1442


def test_killed_preparation_is_not_loaded(tmp_path):
  program = """
import os, signal, sys
from junlearn import data
from junlearn.data import builders
generate = builders.Digits._generate_examples
def die(self, split, start):
  if start:  # train is complete, test is not
    os.kill(os.getpid(), signal.SIGKILL)
  yield from generate(self, split, start)
builders.Digits._generate_examples = die
data.load("digits", data_dir=sys.argv[1])
"""
  run = subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
  assert run.returncode == -signal.SIGKILL
  left = list((tmp_path / "digits").iterdir())
  assert left and all(path.name.startswith("incomplete") for path in left)
  digits = data.load("digits", data_dir=tmp_path)
  assert (len(digits.train["id"]), len(digits.test["id"])) == (1442, 355)


def test_two_preparations_at_a_time(tmp_path, monkeypatch):
  splits = builders.Digits._splits
  loaded = []

  def overtaken(self, dl_manager):
    with monkeypatch.context() as patch:
      patch.setattr(builders.Digits, "_splits", splits)
      loaded.append(data.load("digits", data_dir=tmp_path))
    return splits(self, dl_manager)

  monkeypatch.setattr(builders.Digits, "_splits", overtaken)
  loaded.append(data.load("digits", data_dir=tmp_path))
  first, second = loaded
  np.testing.assert_array_equal(first.train["input"], second.train["input"])
  assert [p.name for p in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_damaged_file(tmp_path):
  data.load("digits", data_dir=tmp_path)
  (path,) = (tmp_path / "digits" / "1.0.0").glob("digits-train*")
  content = path.read_bytes()
  middle = len(content) // 2
  flipped = content[:middle] + bytes([content[middle] ^ 1])
  flipped += content[middle + 1 :]
  for damaged in (content[:middle], flipped, b""):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"damaged .* delete that folder"):
      data.load("digits", data_dir=tmp_path)
  path.unlink()
  with pytest.raises(ValueError, match=r"damaged .* delete that folder"):
    data.load("digits", data_dir=tmp_path)


# --- sets of others --------------------------------------------------------


def prepare(data_dir, features, splits, supervised_keys=None):
  """Prepares `toy` with rows `{split: [example, ...]}` as anyone would."""

  class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = "toy"
    VERSION = tfds.core.Version("2.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        supervised_keys=supervised_keys,
      )

    def _split_generators(self, dl_manager):
      return {k: enumerate(v) for k, v in splits.items()}

    def _generate_examples(self):
      raise NotImplementedError

  tfds.disable_progress_bar()
  Toy(data_dir=data_dir, file_format="array_record").download_and_prepare(
    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
  )


def png(array):
  file = io.BytesIO()
  Image.fromarray(array).save(file, "PNG")
  file.seek(0)
  return file


def random_images(n, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8)


def test_prepared_png_images_without_ids(tmp_path):
  image = random_images(12)
  rows = [{"image": png(x), "label": i % 3} for i, x in enumerate(image)]
  prepare(
    tmp_path,
    {
      "image": tfds.features.Image(shape=(5, 4, 3)),
      "label": tfds.features.ClassLabel(num_classes=3),
    },
    {"train": rows[:8], "test": rows[8:]},
  )
  for name in ("toy", "toy:2.0.0"):
    toy = data.load(name, data_dir=tmp_path)
    np.testing.assert_array_equal(toy.train["id"], np.arange(8))
    np.testing.assert_array_equal(toy.test["id"], np.arange(8, 12))
    got = np.rint(np.concatenate([toy.train["input"], toy.test["input"]]) * 255)
    # Preparation shuffled the rows: equal as sets, within each split.
    for part in (slice(8), slice(8, 12)):
      assert {x.astype(np.uint8).tobytes() for x in got[part]} == {
        x.tobytes() for x in image[part]
      }
    assert (toy.num_classes, toy.name) == (3, name)


def toy_features(**change):
  tensor = tfds.features.Tensor(shape=(5, 4, 3), dtype=np.uint8)
  label = tfds.features.ClassLabel(num_classes=3)
  return {"image": tensor, "label": label} | change


@pytest.mark.parametrize("id_key", ["id", "tfds_id"])
def test_stored_ids_and_supervised_keys(tmp_path, id_key):
  image = random_images(10)
  ids = np.random.default_rng(1).permutation(1000)[:10]
  rows = [
    {"photo": x, "kind": i % 3, id_key: int(n)}
    for i, (x, n) in enumerate(zip(image, ids, strict=True))
  ]
  features = toy_features()
  prepare(
    tmp_path,
    {
      "photo": features["image"],
      "kind": features["label"],
      id_key: tfds.features.Scalar(np.int64),
    },
    {"train": rows, "test": rows[:2]},
    supervised_keys=("photo", "kind"),
  )
  toy = data.load("toy", data_dir=tmp_path)
  order = np.argsort(ids)
  np.testing.assert_array_equal(toy.train["id"], ids[order])
  np.testing.assert_array_equal(toy.train["label"], (np.arange(10) % 3)[order])
  np.testing.assert_array_equal(np.rint(toy.train["input"] * 255), image[order])


def test_ids_that_are_text_are_not_used(tmp_path):
  rows = [
    {"image": x, "label": 0, "id": f"img{i}"}
    for i, x in enumerate(random_images(4))
  ]
  features = toy_features(id=tfds.features.Text())
  prepare(tmp_path, features, {"train": rows, "test": rows})
  toy = data.load("toy", data_dir=tmp_path)
  np.testing.assert_array_equal(toy.test["id"], [4, 5, 6, 7])


def test_sets_that_do_not_fit(tmp_path):
  image = random_images(3)
  rows = [{"image": x, "label": 1} for x in image]
  splits = {"train": rows, "test": rows}
  scalar = tfds.features.Scalar(np.int64)
  floats = tfds.features.Tensor(shape=(5, 4, 3), dtype=np.float32)
  bright = {"image": np.full((5, 4, 3), 1.5, np.float32), "label": 0}
  ragged = tfds.features.Tensor(shape=(None, 4, 3), dtype=np.uint8)
  cases = [
    (toy_features(), {"train": rows}, r"splits \['train'\].*are needed"),
    (toy_features(label=scalar), splits, "needs an image and a ClassLabel"),
    (
      toy_features(image=floats),
      {key: [bright] for key in splits},
      r"they must be integers from 0 or floats in \[0, 1\]",
    ),
    (
      toy_features(image=ragged),
      {
        "train": [r | {"image": image[0, : 2 + i]} for i, r in enumerate(rows)],
        "test": rows,
      },
      r"shapes \[\(2, 4, 3\), \(3, 4, 3\), \(4, 4, 3\)\]",
    ),
  ]
  for i, (features, content, message) in enumerate(cases):
    prepare(tmp_path / str(i), features, content)
    with pytest.raises(ValueError, match=message):
      data.load("toy", data_dir=tmp_path / str(i))


def test_other_file_format(tmp_path):
  rows = [{"image": x, "label": 1} for x in random_images(3)]
  prepare(tmp_path, toy_features(), {"train": rows, "test": rows})
  path = tmp_path / "toy" / "2.0.0" / "dataset_info.json"
  info = json.loads(path.read_text())
  assert info["fileFormat"] == "array_record"
  os.chmod(path, 0o644)
  path.write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
  with pytest.raises(ValueError, match=r"stored as tfrecord .*array_record"):
    data.load("toy", data_dir=tmp_path)
