"""Every method of feature unlearning at its best rate, on every seed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.feature.study import Study
from experiments.feature.tasks import Task
from experiments.run import tables, tuning
from experiments.run.session import Outcome
from experiments.run.study import Case

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1)
TUNING_SEEDS = (1000, 1001, 1002, 1003)
# Higher is better for these, lower for all others.
_HIGH = (
  "test_accuracy", "recovered", "unbiased_accuracy", "biased_accuracy",
  "other_sensitivity",
)  # fmt: skip
_METHODS = {"ferrari": "ferrari", "finetune": "finetune"}
_SHARED = {"ferrari, shared noise": "ferrari"}


class Found(NamedTuple):
  """What came of a comparison.

  Attributes:
    cases: one a seed.
    rates: learning rate of each method.
    outcomes: of each method, one a seed.
    metrics: of each method and both references, one a seed.
  """

  cases: Sequence[Case[Task]]
  rates: Mapping[str, float]
  outcomes: Mapping[str, Sequence[Outcome]]
  metrics: Mapping[str, Sequence[Mapping[str, float]]]

  def values(self, method: str, metric: str) -> np.ndarray:
    """A metric on every seed."""
    return np.array([metrics[metric] for metrics in self.metrics[method]])

  def median(self, method: str, metric: str) -> float:
    """Its median over seeds."""
    return float(np.median(self.values(method, metric)))

  def left(self, method: str, metric: str) -> float:
    """Median over seeds of a metric over that of the original."""
    ratio = self.values(method, metric) / self.values("original", metric)
    return float(np.median(ratio))

  def lost(self, metric: str) -> float:
    """Median over seeds of the points that Ferrari costs."""
    before = self.values("original", metric)
    return 100 * float(np.median(before - self.values("ferrari", metric)))


def methods(scenario: str) -> dict[str, str]:
  """Those of the experiment, and a variant of Ferrari for colors."""
  return _METHODS | _SHARED if scenario == "bias" else _METHODS


def compare(study: Study, seeds: int) -> Found:
  """Every method at its rate, on every seed."""
  variants = methods(study.name)
  rates = _tune(study, variants)
  cases = [study.case(*study.tasks(seed), seed) for seed in range(seeds)]
  outcomes = {
    method: [_unlearn(study, case, method, rates[method]) for case in cases]
    for method in variants
  }
  everything = {
    "original": [case.original for case in cases],
    "retrain": [case.retrained for case in cases],
    **outcomes,
  }
  metrics = {
    method: [
      study.audit(method, outcome, case).metrics | outcome.notes
      for outcome, case in zip(group, cases, strict=True)
    ]
    for method, group in everything.items()
  }
  return Found(cases, rates, outcomes, metrics)


def _tune(study: Study, variants: Sequence[str]) -> dict[str, float]:
  """The rate of each method with the least mean distance to retraining."""
  cases = [study.case(*study.tasks(seed), seed) for seed in TUNING_SEEDS]

  def best(method):
    def distance(rate, case):
      outcome = _unlearn(study, case, method, rate)
      metrics = study.audit(method, outcome, case).metrics
      return sum(
        abs(metrics[m] - case.target.metrics[m])
        for m in study.scenario.compared
      )

    return tuning.best(distance, RATES, cases)

  return {method: best(method) for method in variants}


def _unlearn(study, case, method, rate) -> Outcome:
  options = {"shared_axes": (0, 1)} if method in _SHARED else {}
  base = methods(study.name)[method]
  return study.apply(base, case, rate, name=f"{method}-{rate:g}", **options)


def table(study: Study, found: Found) -> list[str]:
  """Markdown: median and worst seed of every model."""
  metrics = list(found.metrics["original"][0])
  lines = tables.section(
    f"{study.name}: median (worst seed)", ["method", "learning rate", *metrics]
  )
  for method in found.metrics:
    rate = f"{found.rates[method]:g}" if method in found.rates else ""
    cells = [method, rate]
    for metric in metrics:
      values = found.values(method, metric)
      worst = values.min() if metric in _HIGH else values.max()
      cells.append(f"{np.median(values):.3f} ({worst:.3f})")
    lines.append(tables.row(cells))
  return [*lines, ""]
