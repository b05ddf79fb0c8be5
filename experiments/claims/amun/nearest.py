"""Claim 1 of AMUN: the nearest adversarial example is near and easy to find."""

import numpy as np
from scipy.spatial import distance

from experiments.claims.amun.comparison import Found
from experiments.classification.study import Study
from junlearn import adversarial


def claims(study: Study, found: Found) -> list[tuple]:
  """Claim 1.

  The numbers are means over seeds; the medians are over the examples that were
  classified correctly.
  """
  searches = [
    adversarial.nearest_adversarial(study.model, epsilon=epsilon)
    for epsilon in (0.04, 0.02)
  ]
  train, measured = study.dataset.train, []
  for case in found.cases:
    forget = case.task.request.forget
    nearest, halved = (
      search(case.original.params, forget) for search in searches
    )
    apart = distance.cdist(
      forget["input"].reshape(len(forget["id"]), -1),
      train["input"].reshape(len(train["id"]), -1),
    )
    apart[forget["label"][:, None] == train["label"]] = np.inf
    correct = np.asarray(nearest.distance) > 0
    median = float(np.median(nearest.distance[correct]))
    measured.append(
      [
        1 - float(np.mean(nearest.failed)),
        float(np.median(apart.min(axis=1)[correct])) / median,
        abs(float(np.median(halved.distance[correct])) / median - 1),
      ]
    )
  flipped, ratio, change = np.mean(measured, axis=0).tolist()
  return [
    ("1a", "fraction of D_f that flips", ">=", 0.99, flipped),
    ("1b", "other-class neighbor / adversarial distance", ">=", 3, ratio),
    ("1c", "change of the median when epsilon is halved", "<", 0.1, change),
  ]
