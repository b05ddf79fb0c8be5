"""Successive requests, each answered by a release of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from junlearn.certify import premises


def successive(ids: Sequence[int], number: int) -> list[Any]:
  """The ids that each of so many requests names, those before it included.

  Raises:
    ValueError: if there are more requests than ids.
  """
  if number > len(ids):
    raise ValueError(
      f"{number} requests were asked for; with {len(ids)} records to forget "
      "there are as many at most."
    )
  ends = np.cumsum([len(part) for part in np.array_split(ids, number)])
  return [ids[:end] for end in ends]


def present_ids(examples: Any) -> list[int | str]:
  """The ids of the records that are there, of one client or of all."""
  return premises.present_ids(examples, axes=np.ndim(examples["id"]))
