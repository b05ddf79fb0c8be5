"""A data set of forty random images of three classes."""

import numpy as np

from junlearn.data import Dataset


def examples(n, first, side=3):
  rng = np.random.default_rng(first)
  return {
    "input": rng.uniform(size=(n, side, side, 1)).astype(np.float32),
    "label": rng.integers(3, size=n).astype(np.int32),
    "id": np.arange(first, first + n, dtype=np.int32),
  }


def toy():
  return Dataset(examples(40, 0), examples(20, 40), 3, "toy")
