"""Tables of LUNE's runs."""

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from experiments.claims.lune.runs import EVERY, FORGOTTEN, Found, Run
from experiments.run.tables import table

# Request -> rank -> the runs of all seeds.
OfRanks = Mapping[str, Mapping[int, Sequence[Run]]]


def methods(found: Found) -> list[str]:
  """One table for each request: a row a method."""
  title = (
    f"at the first evaluation, every {EVERY} steps, with held-out accuracy "
    f"<= {FORGOTTEN:g}"
  )
  return _each(found, title, "method")


def ranks(found: OfRanks) -> list[str]:
  """One table for each request: a row a rank."""
  return _each(found, "LUNE by rank", "rank")


def relearning(curves: Mapping[str, np.ndarray]) -> list[str]:
  """Accuracy on hidden facts along the attack."""
  rows = {
    (name,): {
      f"{found[0, i, 0]:g} steps": found[:, i, 1] for i in range(found.shape[1])
    }
    for name, found in curves.items()
  }
  title = (
    "fraction: accuracy on the other half of the facts, after relearning one "
    "paraphrase of half of them"
  )
  return table(title, rows, key=("method",))


def _each(
  found: Mapping[str, Mapping[Hashable, Sequence[Run]]], title: str, key: str
) -> list[str]:
  lines = []
  for request, groups in found.items():
    rows = {(name,): _columns(runs) for name, runs in groups.items()}
    lines += table(f"{request}: {title}", rows, key=(key,))
  return lines


def _columns(runs: Sequence[Run]) -> dict[str, list[float]]:
  """When a method has forgotten, and the end; NaN where it has not."""
  return {
    "learning rate": [run.rate for run in runs],
    "forgotten": [float(run.forgotten is not None) for run in runs],
    **{
      label: [getattr(run.forgotten, name, math.nan) for run in runs]
      for name, label in (
        ("steps", "steps"),
        ("heldout", "held-out accuracy"),
        ("replaced", "replaced"),
        ("retain", "retained"),
      )
    },
    "retained after all steps": [run.last.retain for run in runs],
    "ms a step": [
      1000 * run.outcome.seconds / run.last.steps if run.outcome else math.nan
      for run in runs
    ],
  }
