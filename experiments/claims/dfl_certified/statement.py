"""How the claims of this system are measured and stated."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.run.claim import Claim

# The claims of a module, and the lines of the table behind them.
Measured = tuple[list[Claim], list[str]]

# Setting -> column -> values, one for each seed.
Rows = Mapping[Any, Mapping[str, list[float]]]


def empty() -> Rows:
  """Rows that columns are added to by naming them."""
  return collections.defaultdict(lambda: collections.defaultdict(list))


def column(rows: Rows, *names: str) -> np.ndarray:
  """The values of some columns in all settings, one after the other."""
  return np.concatenate([row[name] for row in rows.values() for name in names])


def claim(
  number: str,
  quantity: str,
  comparison: str,
  threshold: float,
  measured: float,
) -> Claim:
  """A claim of this system, on digits."""
  return Claim(
    *("dfl_certified", number, "digits", quantity, comparison),
    *(float(threshold), float(measured)),
  )
