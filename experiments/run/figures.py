"""Figures that the pages of several modalities share."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from experiments.run.findings import REFERENCES, Findings
from junlearn import report


def attack(
  findings: Findings, members: str, others: str, **options: Any
) -> Any:
  """ROC curves of an attack's scores, all seeds together.

  Args:
    findings: with the scores of every model.
    members: array of the scores of what was to be forgotten.
    others: the same of what no model was trained on.
    **options: of `report.roc`.
  """

  def curve(method):
    scores = [findings.pooled(method, name) for name in (members, others)]
    truth = np.repeat([1, 0], [len(part) for part in scores])
    fpr, tpr, _ = sklearn_metrics.roc_curve(truth, np.concatenate(scores))
    return report.Roc(method, fpr, tpr)

  curves = [curve(method) for method in findings.methods]
  return report.roc(curves, **options)


def distributions(findings: Findings, name: str, **options: Any) -> Any:
  """One array of every model, all seeds together; None where it is missing."""
  methods = findings.methods
  if not all(name in findings.first(method) for method in methods):
    return None
  return report.distributions(
    [report.Values(m, findings.pooled(m, name)) for m in methods], **options
  )


def progress(
  findings: Findings,
  levels: tuple[str, str],
  *,
  x: Callable[[np.ndarray], np.ndarray] = lambda steps: steps,
  **options: Any,
) -> Any:
  """Two measures along the steps of every method, first seed.

  Args:
    findings: with the `curve` of every method: steps and the two measures.
    levels: the same two metrics of the original and the retrained model, which
      are drawn as levels.
    x: of the steps, where they are not drawn as they are.
    **options: of `report.trajectories`.
  """

  def level(method):
    found = findings.metrics(method)
    return report.Curve(method, [0], *([found[name]] for name in levels))

  def history(method):
    curve = findings.first(method)["curve"]
    return report.Curve(method, x(curve[:, 0]), curve[:, 1], curve[:, 2])

  return report.trajectories(
    [*map(level, REFERENCES), *map(history, findings.unlearned)], **options
  )
