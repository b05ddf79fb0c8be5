"""Selection of what to forget: ids, a class, authors, a fraction, weights.

All but `by_weight` run on the host and give requests whose shapes depend on
the selection. Examples are dicts of arrays with an `id` per row of axis 0, and
a `label` or other columns to select by; the rows of a request keep the order of
the examples.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from junlearn import tree, validate
from junlearn.transform import Request
from junlearn.typing import Examples


def by_id(examples: Examples, ids: Any) -> Request:
  """Forgets the records with the given ids.

  Args:
    examples: arrays `[n, ...]` with a unique `id` per row.
    ids: distinct ids `[m]`, 0 < m < n, in any order.

  Raises:
    ValueError: if `ids` is empty, has duplicates or unknown ids, or names all
      examples, or if the examples' own ids are not unique.
  """
  return _by_values("ids", examples, "id", _ids(examples), ids)


def by_column(examples: Examples, column: str, values: Any) -> Request:
  """Forgets all examples with given values of a column: authors, facts.

  Args:
    examples: arrays `[n, ...]` with integers `[n]` named `column`.
    column: such as "author" or "fact".
    values: one value, or distinct ones `[m]` in any order.

  Raises:
    ValueError: if `values` is empty, has duplicates or one that no example has,
      or selects all examples.
  """
  known = np.asarray(_leaf(examples, column))
  return _by_values("values", examples, column, known, values)


def by_class(examples: Examples, label: int) -> Request:
  """Forgets all examples of one class.

  Raises:
    ValueError: if no example or every example has the label.
  """
  labels = np.asarray(_leaf(examples, "label"))
  if label not in labels:
    raise ValueError(
      f"label is {label}, which no example has; it must be one of "
      f"{_few(np.unique(labels))}."
    )
  return _divide("label", examples, labels == label)


def by_fraction(
  examples: Examples, fraction: float, *, seed: int, column: str = "id"
) -> Request:
  """Forgets a uniformly random fraction of the examples, or of whole groups.

  The choice depends on the seed and the set of ids (or of the column's values),
  not on the order of rows.

  Args:
    examples: arrays `[n, ...]` with a unique `id` per row.
    fraction: in (0, 1); of m ids, `round(fraction * m)` are forgotten, which
      must be neither 0 nor m.
    seed: of NumPy's generator, at least 0.
    column: "author" takes a fraction of the authors, with all their rows; so
      any column of integers `[n]`.

  Raises:
    ValueError: if `fraction` is out of range or the ids are not unique.
  """
  values = _shuffled(examples, column, seed)
  validate.within("(0, 1)", fraction=fraction)
  number = round(fraction * len(values))
  if not 0 < number < len(values):
    what = "examples" if column == "id" else f"values of {column!r}"
    raise ValueError(
      f"fraction is {fraction}, which rounds to {number} of {len(values)} "
      f"{what}; it must leave at least one to forget and one to retain."
    )
  return by_column(examples, column, values[:number])


def blocks(
  examples: Examples, size: int, count: int, *, seed: int
) -> list[Request]:
  """Successive requests for disjoint random blocks of one size.

  Request `k` forgets block `k` and retains what is in none of the blocks 0 to
  `k`, as `transform.replay` needs it.

  Args:
    examples: arrays `[n, ...]` with a unique `id` per row.
    size: examples per block, at least 1.
    count: number of blocks, at least 1, with size * count < n.
    seed: of NumPy's generator, at least 0.

  Raises:
    ValueError: if `size` or `count` is out of range or the ids are not unique.
  """
  ids = _shuffled(examples, "id", seed)
  validate.at_least(1, size=size, count=count)
  if size * count >= len(ids):
    raise ValueError(
      f"size is {size} and count is {count}; their product must be below "
      f"{len(ids)}, the number of examples."
    )
  requests, remaining = [], examples
  for block in ids[: size * count].reshape(count, size):
    requests.append(by_id(remaining, block))
    remaining = requests[-1].retain
  return requests


def by_weight(examples: Examples, forget: Any) -> Request:
  """Forgets by weights over one fixed array: the form for populations.

  `forget` and `retain` of the request are the same arrays and differ in their
  `weight` alone, w = forget and w = 1 - forget, times the examples' own weight
  if they have one. All forget sets so have the same shapes, and the function
  can be jitted and vmapped over `forget`.

  Args:
    examples: arrays `[n, ...]`.
    forget: 0/1 or bool `[n]`, 1 = forget; may be traced.

  Raises:
    ValueError: if `forget` has another shape, or, where its values are known,
      other values than 0 and 1 or only one of them.
  """
  n = tree.size(examples)
  forget = jnp.asarray(forget)
  if forget.shape != (n,):
    raise ValueError(
      f"forget has shape {forget.shape}; for {n} examples it must be ({n},)."
    )
  if not isinstance(forget, jax.core.Tracer):
    values = np.unique(forget)
    if not np.array_equal(values, [0, 1]):
      raise ValueError(
        f"forget has the values {_few(values)}; they must be 0 and 1, each at "
        "least once."
      )
  forget = forget.astype(jnp.float32)
  present = jnp.asarray(examples.get("weight", 1), jnp.float32)
  return Request(
    forget={**examples, "weight": present * forget},
    retain={**examples, "weight": present * (1 - forget)},
  )


def _leaf(examples, key):
  tree.size(examples)  # raises where the rows do not agree
  if key not in examples:
    raise ValueError(
      f"examples has the keys {sorted(examples)}; {key!r} must be one of them."
    )
  return examples[key]


def _ids(examples):
  ids = np.asarray(_leaf(examples, "id"))
  duplicate = _duplicates(ids)
  if duplicate.size:
    raise ValueError(
      f"examples has the id {_few(duplicate)} more than once; ids must be "
      "unique."
    )
  return ids


def _shuffled(examples, column, seed):
  """The different values of a column, in random order."""
  known = _ids(examples) if column == "id" else _leaf(examples, column)
  return np.random.default_rng(seed).permutation(np.unique(known))


def _by_values(argument, examples, column, known, values):
  """Forgets the rows in which `known`, the column, has one of the values."""
  values = np.atleast_1d(np.asarray(values))
  if values.size and values.dtype.kind not in "iu":
    raise ValueError(
      f"{argument} has dtype {values.dtype}; it must be integers."
    )
  duplicate = _duplicates(values)
  if duplicate.size:
    raise ValueError(
      f"{argument} contains {_few(duplicate)} more than once; each {column} "
      "must be given once."
    )
  unknown = values[~np.isin(values, known)]
  if unknown.size:
    raise ValueError(
      f"{argument} contains {_few(unknown)}, which no example has; each must "
      f"be the {column} of an example: {_few(np.unique(known))}."
    )
  return _divide(argument, examples, np.isin(known, values))


def _duplicates(values):
  unique, counts = np.unique(values, return_counts=True)
  return unique[counts > 1]


def _divide(argument, examples, is_forgotten):
  number, n = int(is_forgotten.sum()), len(is_forgotten)
  if number == 0:
    raise ValueError(f"{argument} selects nothing; one example is the least.")
  if number == n:
    raise ValueError(
      f"{argument} selects all {n} examples; at least one must be retained."
    )
  return Request(
    forget=tree.take(examples, np.flatnonzero(is_forgotten)),
    retain=tree.take(examples, np.flatnonzero(~is_forgotten)),
  )


def _few(values, number=5):
  shown = ", ".join(map(str, values[:number].tolist()))
  return f"{shown}, ..." if len(values) > number else shown
