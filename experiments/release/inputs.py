"""Inputs of certified classifiers, whose norms have a known bound."""

from collections.abc import Mapping
from typing import Any

import numpy as np

PIXELS = (
  "The inputs are the pixels of each record, scaled to norm 1 by the record "
  "alone, so that no other record has a part in them."
)


def unit_norm(examples: Mapping[str, Any]) -> dict[str, Any]:
  """The examples with flat float64 inputs of Euclidean norm 1.

  A bound on the norm that holds for every record that could be asked for is
  part of a certificate's assumptions.
  """
  x = np.asarray(examples["input"], np.float64)
  x = x.reshape(len(x), -1)
  norm = np.linalg.norm(x, axis=1, keepdims=True)
  return {**examples, "input": x / np.where(norm > 0, norm, 1)}
