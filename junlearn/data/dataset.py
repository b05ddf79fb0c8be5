"""Classification data sets as NumPy arrays, through TFDS without TensorFlow."""

import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from junlearn import tree
from junlearn.data import builders
from junlearn.data.builders.prepare import prepared, rows

_INT32 = np.iinfo(np.int32)


class Dataset(NamedTuple):
  """A classification data set.

  Attributes:
    train: `{"input": float32 [n, h, w, c] in [0, 1], "label": int32 [n],
      "id": int32 [n]}`, in ascending order of the ids.
    test: the same for the test split.
    num_classes: labels are in `[0, num_classes)`.
    name: as given to `load`.
  """

  train: dict[str, np.ndarray]
  test: dict[str, np.ndarray]
  num_classes: int
  name: str


def load(
  name: str,
  *,
  data_dir: str | os.PathLike,
  manual_dir: str | os.PathLike | None = None,
  num_train: int | None = None,
  num_test: int | None = None,
) -> Dataset:
  """Loads a data set, preparing it on first use.

  The library's own sets (`digits`, `mnist`, `fashion_mnist`, `cifar10`) are
  downloaded, or read from `manual_dir`, and stored in `data_dir`; from then on
  `manual_dir` is not read again. Any other name is that of an image
  classification set that is already prepared in `data_dir` as `array_record`;
  a version (`mnist:3.0.1`) selects the TFDS set of a name that is also ours.

  Ids are those stored as `id` or `tfds_id` where these are integers, which for
  the library's own sets are unique over both splits and count in the official
  order; otherwise the number of the row as read, test after train.

  Args:
    name: the data set, in the syntax of TFDS: `name[/config][:version]`.
    data_dir: folder of the prepared sets; made if need be.
    manual_dir: folder with the official files, directly or in a subfolder
      `name`; None downloads them.
    num_train: keep this many train examples, those of the smallest ids; None
      keeps all.
    num_test: the same for the test split.

  Returns:
    The data set, the same on every machine.

  Raises:
    ValueError: if the set is neither ours nor prepared, is not one of image
      classification, a file is damaged, or `num_train` or `num_test` is not
      between 1 and the number of examples.
    FileNotFoundError: if the official files are not there or cannot be
      downloaded.

  **Guarantees**: a preparation that fails or is killed leaves nothing that a
  later call would take for the data set.
  """
  data_dir = os.path.expanduser(data_dir)
  if name in builders.BUILDERS:
    builder = prepared(builders.BUILDERS[name], data_dir, manual_dir)
  else:
    builder = _find(name, data_dir)
  keys = _keys(name, builder)
  num_classes = builder.info.features[keys[1]].num_classes
  train = _read(name, builder, "train", keys, 0)
  test = _read(name, builder, "test", keys, tree.size(train))
  return Dataset(
    _first(train, num_train, "num_train"),
    _first(test, num_test, "num_test"),
    num_classes,
    name,
  )


def from_arrays(
  input: Any,
  label: Any,
  id: Any = None,
  *,
  num_classes: int | None = None,
) -> dict[str, np.ndarray]:
  """Validated examples from one's own arrays.

  Args:
    input: real numbers `[n, ...]`, n at least 1; cast to float32, not scaled.
    label: integers `[n]` in `[0, num_classes)`.
    id: distinct integers `[n]` that fit 32 bits; None counts from 0.
    num_classes: None means that labels have no upper limit.

  Returns:
    `{"input": float32 [n, ...], "label": int32 [n], "id": int32 [n]}`.

  Raises:
    ValueError: if an argument is not as described.
  """
  label, inputs = np.asarray(label), _finite(input)
  n = len(inputs)
  ids = np.arange(n, dtype=np.int32) if id is None else np.asarray(id)
  _check_integers("label", label, n)
  _check_integers("id", ids, n)
  limit = _INT32.max + 1 if num_classes is None else num_classes
  wrong = label[(label < 0) | (label >= limit)]
  if wrong.size:
    raise ValueError(
      f"label contains {wrong[0]}; labels must be in [0, {limit})."
    )
  wrong = ids[(ids < _INT32.min) | (ids > _INT32.max)]
  if wrong.size:
    raise ValueError(f"id contains {wrong[0]}; ids must fit 32 bits.")
  values, counts = np.unique(ids, return_counts=True)
  if len(values) < n:
    raise ValueError(
      f"id contains {values[counts > 1][0]} more than once; ids must be unique."
    )
  return {
    "input": inputs,
    "label": label.astype(np.int32),
    "id": ids.astype(np.int32),
  }


def _finite(value):
  value = np.asarray(value)
  if value.dtype.kind not in "biuf":
    raise ValueError(f"input has dtype {value.dtype}; it must be real numbers.")
  if value.ndim == 0 or len(value) == 0:
    raise ValueError(
      f"input has shape {value.shape}; it must be [n, ...] with n at least 1."
    )
  with np.errstate(over="ignore"):
    result = value.astype(np.float32)
  finite = np.isfinite(result)
  if not finite.all():
    raise ValueError(
      f"input contains {value[~finite][0]}; all values must be finite in "
      "float32."
    )
  return result


def _check_integers(name, value, n):
  if value.dtype.kind not in "iu":
    raise ValueError(f"{name} has dtype {value.dtype}; it must be integers.")
  if value.shape != (n,):
    raise ValueError(
      f"{name} has shape {value.shape}; for {n} rows of input it must be "
      f"({n},)."
    )


def _find(name, data_dir):
  """A builder of anyone's whose data are in place, without its code."""
  try:
    return read_only_builder.builder_from_files(name, data_dir=data_dir)
  except ValueError as error:  # not found, or not a name at all
    raise ValueError(
      f"name is {name!r}, which is neither one of {sorted(builders.BUILDERS)} "
      f"nor prepared in data_dir {data_dir!r}; prepare it there "
      "with TFDS and file_format='array_record'."
    ) from error


def _keys(name, builder):
  """Names of the features for input, label and, or None, id."""
  features = builder.info.features
  supervised = builder.info.supervised_keys or ("image", "label")
  if not (
    len(supervised) == 2
    and all(isinstance(key, str) and key in features for key in supervised)
    and isinstance(features[supervised[1]], tfds.features.ClassLabel)
  ):
    raise ValueError(
      f"{name} has the features {sorted(features)}; an image classification "
      "set needs an image and a ClassLabel, named 'image' and 'label' or by "
      "its supervised_keys."
    )
  ids = [k for k in ("id", "tfds_id") if k in features]
  ids = [key for key in ids if _is_integer(features[key])]
  return *supervised, ids[0] if ids else None


def _is_integer(feature):
  return (
    isinstance(feature, tfds.features.Tensor)
    and feature.shape == ()
    and np.issubdtype(feature.np_dtype, np.integer)
  )


def _read(name, builder, split, keys, first_row):
  """All examples of a split, sorted by id."""
  if split not in builder.info.splits:
    raise ValueError(
      f"{name} has the splits {sorted(builder.info.splits)} in "
      f"{os.fspath(builder.data_dir)!r}; 'train' and 'test' are needed."
    )
  found = rows(name, builder, split)
  image_key, label_key, id_key = keys
  shapes = sorted({np.shape(row[image_key]) for row in found})
  if len(shapes) != 1 or len(shapes[0]) != 3:
    raise ValueError(
      f"{name} has {split} images of the shapes {shapes[:3]}; all must have "
      "one shape (h, w, c)."
    )
  examples = from_arrays(
    _scale(name, np.stack([row[image_key] for row in found]), builder.info),
    np.asarray([row[label_key] for row in found]),
    np.arange(first_row, first_row + len(found))
    if id_key is None
    else np.asarray([row[id_key] for row in found]),
    num_classes=builder.info.features[label_key].num_classes,
  )
  return tree.take(examples, np.argsort(examples["id"]))


def _scale(name, image, info):
  """Float in [0, 1]; integers are divided by what stands for 1."""
  if image.dtype.kind in "iu":
    top = (info.metadata or {}).get("pixel_max", np.iinfo(image.dtype).max)
    image = image / np.float32(top)
  if image.min() < 0 or image.max() > 1:
    raise ValueError(
      f"{name} has pixels from {image.min()} to {image.max()}; they must be "
      "integers from 0 or floats in [0, 1]."
    )
  return image


def _first(examples, number, argument):
  if number is None:
    return examples
  n = tree.size(examples)
  if not 1 <= number <= n:
    raise ValueError(
      f"{argument} is {number}; it must be between 1 and {n}, the number of "
      "examples there are."
    )
  return tree.take(examples, slice(number))
