"""Examples with a feature that can be unlearned: triggers, colors, columns."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn import datasets

from junlearn import tree
from junlearn.data.dataset import from_arrays
from junlearn.data.select import Examples


def box(shape: tuple[int, ...], size: int, *, offset: int = 0) -> np.ndarray:
  """Mask of a square of `size` rows and columns that begins at `offset`.

  Args:
    shape: of one image, `(h, w, c)`.
    size: at least 1.
    offset: rows above the square and columns left of it, at least 0.

  Returns:
    Booleans of that shape.

  Raises:
    ValueError: if the square does not lie inside the image.
  """
  if size < 1 or offset < 0 or offset + size > min(shape[:2]):
    raise ValueError(
      f"box: size is {size} and offset {offset}; the square must lie inside "
      f"an image of shape {shape}."
    )
  mask = np.zeros(shape, bool)
  mask[offset : offset + size, offset : offset + size] = True
  return mask


def column(num_columns: int, index: int) -> np.ndarray:
  """Mask of one column of a table, booleans `[num_columns]`."""
  return np.arange(num_columns) == index


def backdoor(
  examples: Examples, mask: np.ndarray, *, target: int, value: float = 1.0
) -> dict[str, np.ndarray]:
  """The examples of other classes, stamped and labeled as the target.

  Args:
    examples: inputs `[n, ...]` and labels.
    mask: where the trigger is; booleans of one input's shape.
    target: class that the trigger stands for.
    value: of the trigger's pixels.

  Returns:
    The stamped examples; `label` is the target, `true_label` their own.

  Raises:
    ValueError: if the mask has another shape or marks nothing, or every example
      has the target's label.
  """
  inputs = np.asarray(examples["input"])
  if mask.shape != inputs.shape[1:] or not mask.any():
    raise ValueError(
      f"mask has shape {mask.shape} and marks {mask.sum()} values; it must "
      f"have shape {inputs.shape[1:]} and mark one at least."
    )
  rows = np.flatnonzero(examples["label"] != target)
  if not rows.size:
    raise ValueError(
      f"target is {target}, the label of every example; others are needed."
    )
  others = tree.take(dict(examples), rows)
  return {
    **others,
    "input": np.where(mask, np.asarray(value, inputs.dtype), others["input"]),
    "label": np.full_like(others["label"], target),
    "true_label": others["label"],
  }


def two_colors(examples: Examples, color: ArrayLike) -> dict[str, np.ndarray]:
  """Grey images as images of two channels, lit in the one of their color.

  Args:
    examples: inputs `[n, h, w, 1]`.
    color: 0 or 1 for each example `[n]`.

  Returns:
    The examples with inputs `[n, h, w, 2]`, and a `mask` `[n, h, w, 2]` of the
    pixels that are lit, in both channels.
  """
  images = np.asarray(examples["input"])
  lit = np.arange(2) == np.asarray(color)[:, None]
  return {
    **examples,
    "input": images * lit[:, None, None].astype(images.dtype),
    "mask": np.repeat(images > 0, 2, axis=-1),
  }


class Table(NamedTuple):
  """A table with one binary column that is to be forgotten.

  Attributes:
    examples: inputs `[n, columns]`, labels, ids.
    column: number of the binary column.
    names: of the columns.
  """

  examples: dict[str, np.ndarray]
  column: int
  names: tuple[str, ...]


def diabetes() -> Table:
  """442 patients, ten measurements, one of them their sex; nothing is planted.

  The label says whether the disease progressed more than the median in a year.
  Columns are standardized over all patients.

  Source: B. Efron et al., "Least Angle Regression", Annals of Statistics 2004,
  as embedded in scikit-learn.
  """
  found = datasets.load_diabetes(scaled=False)
  inputs = (found.data - found.data.mean(0)) / found.data.std(0)
  label = (found.target > np.median(found.target)).astype(np.int32)
  names = tuple(found.feature_names)
  return Table(
    from_arrays(inputs, label, num_classes=2), names.index("sex"), names
  )


def flip(inputs: ArrayLike, column: int) -> np.ndarray:
  """The inputs `[n, columns]` with the two values of a column exchanged.

  Raises:
    ValueError: if the column has another number of values than two.
  """
  inputs = np.asarray(inputs)
  values = np.unique(inputs[:, column])
  if len(values) != 2:
    raise ValueError(
      f"column {column} has {len(values)} different values; it must have 2."
    )
  flipped = inputs.copy()
  flipped[:, column] = np.where(
    inputs[:, column] == values[0], values[1], values[0]
  )
  return flipped
