"""What a run of `experiments.classification --certify` kept, to be verified."""

from pathlib import Path

import numpy as np

from experiments.classification.__main__ import (
  certified_study,
  promised,
  releases,
)
from experiments.classification.certified import RETRAIN_ERROR, Study, Task
from experiments.release.plain import Training
from experiments.release.reader import Reader

__all__ = ["promised", "reader", "releases"]


def reader(folder: Path) -> Reader[Task]:
  """Of a folder, whose flags are set.

  Raises:
    ValueError: if a flag does not fit.
  """
  return Reader(folder, certified_study(), training)


def training(study: Study, method: str, task: Task) -> Training:
  """A network of one client, whose rounds are steps of length 1."""
  del method, task
  return Training(
    mixing=np.ones((1, 1)),
    step_size=1.0,
    l2=study.l2,
    local_steps=1,
    weighting="uniform",
    form="stacked",
    tolerance=RETRAIN_ERROR * study.l2,
  )
