"""What a net remembers of a table, and what the worked example leaves of it."""

import numpy as np

from experiments.run.claim import Claim
from experiments.run.session import Session
from experiments.tabular.recipe import Recipe
from experiments.tabular.study import Study


def run(workdir, seeds):
  """The claims, of medians over seeds, and no table behind them."""
  study, method, found = Study(Recipe()), "grad_difference", []
  shown = ("forget_accuracy", "test_accuracy")
  with Session(workdir, folder="tabular") as study.session:
    for seed in range(seeds):
      case = study.case(*study.tasks(seed), seed)
      before = study.audit("original", case.original, case)
      after = study.audit(method, study.unlearn(method, case), case)
      models = (before, after, case.target)
      found.append([[each.metrics[n] for n in shown] for each in models])
  (before, kept), (after, left), (target, _) = np.median(found, axis=0).tolist()
  distance = abs(after - target) / abs(before - target)
  measured = [
    ("1", "forget accuracy memorized", ">=", 0.05, before - target),
    ("2", "its distance to retraining, after / before", "<=", 0.5, distance),
    ("3", "test accuracy lost", "<=", 0.03, kept - left),
  ]
  yield [Claim("tabular", n, "table", *rest) for n, *rest in measured], []
