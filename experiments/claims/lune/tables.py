"""Tables of LUNE's runs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.claims.lune.runs import EVERY, FORGOTTEN, Found, Point, Run
from experiments.run.table import row


def _head(title: str, columns: Sequence[str]) -> list[str]:
  return [f"## {title}", "", row(columns), f"|{'---|' * len(columns)}"]


def _spread(values: Sequence[float]) -> str:
  """Mean and standard deviation of what there is."""
  values = [value for value in values if not math.isnan(value)]
  if not values:
    return "-"
  return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _cells(runs: Sequence[Run]) -> list[str]:
  """Columns of one method: when it has forgotten, and at the end."""
  at = [run.forgotten for run in runs if run.forgotten]
  done = [run for run in runs if run.outcome]
  return [
    f"{runs[0].rate:g}",
    f"{len(at)} of {len(runs)}",
    *(_spread([getattr(p, name) for p in at]) for name in Point._fields),
    _spread([run.last.retain for run in runs]),
    _spread([1000 * run.outcome.seconds / run.last.steps for run in done]),
  ]


_COLUMNS = (
  "learning rate", "forgotten in seeds", "steps", "held-out accuracy",
  "replaced", "retained", "retained after all steps", "ms a step",
)  # fmt: skip


def methods(found: Found) -> list[str]:
  """One table for each request: a row a method."""
  lines = []
  for request in found:
    lines += _head(
      f"{request}: at the first look with held-out accuracy <= {FORGOTTEN:g}, "
      f"looked at every {EVERY} steps; mean ± deviation over seeds",
      ["method", *_COLUMNS],
    )
    for name, runs in found[request].items():
      lines.append(row([name, *_cells(runs)]))
    lines.append("")
  return lines


def ranks(found: Mapping[str, Mapping[int, Sequence[Run]]]) -> list[str]:
  """One table for each request: a row a rank."""
  lines = []
  for request in found:
    lines += _head(f"{request}: LUNE by rank", ["rank", *_COLUMNS])
    for rank, runs in found[request].items():
      lines.append(row([rank, *_cells(runs)]))
    lines.append("")
  return lines


def relearning(curves: Mapping[str, np.ndarray]) -> list[str]:
  """Accuracy on hidden facts along the attack."""
  steps = next(iter(curves.values()))[0, :, 0].astype(int)
  lines = _head(
    "fraction: accuracy on the other half of the facts, after relearning one "
    "phrasing of half of them",
    ["method", *(f"{step} steps" for step in steps)],
  )
  for name, found in curves.items():
    lines.append(
      row([name, *(_spread(found[:, i, 1]) for i in range(len(steps)))])
    )
  return [*lines, ""]
