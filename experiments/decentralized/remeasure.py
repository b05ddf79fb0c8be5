"""What a run of `experiments.decentralized` kept, to be verified."""

from pathlib import Path

import numpy as np

from experiments.decentralized.__main__ import promised, releases, study
from experiments.decentralized.methods import METHODS
from experiments.decentralized.study import Study
from experiments.decentralized.tasks import Network
from experiments.release.plain import Training
from experiments.release.reader import Reader

__all__ = ["promised", "reader", "releases"]


def reader(folder: Path) -> Reader[Network]:
  """Of a folder, whose flags are set.

  Raises:
    ValueError: if a flag does not fit.
  """
  return Reader(folder, study(), training)


def training(study: Study, method: str, task: Network) -> Training:
  """How the clients would retrain."""
  return Training(
    mixing=np.asarray(task.after.mixing),
    step_size=task.after.step_size,
    l2=task.after.l2,
    local_steps=task.after.local_steps,
    weighting=task.after.weighting,
    form=METHODS[method],
    tolerance=study.recipe.tolerance,
  )
