"""What is measured of a certified classifier, and what each number means."""

from collections.abc import Mapping

import numpy as np

from experiments.classification.metrics import ACCURACIES
from experiments.release import attack, page
from junlearn.audit import signals, utility
from junlearn.report import Metric

METRICS = (
  *ACCURACIES,
  Metric(
    "attack_auc",
    "Attack AUC",
    help="How well the confidence tells forgotten from test records.",
    forgetting=-1,
    chance=0.5,
  ),
  Metric(
    "distance",
    "Distance",
    help="Distance to the params of retraining, noise included.",
    compare=False,
    digits=4,
  ),
)

NOT_PROVEN = (
  "A certificate covers the released params alone: not how long the deletion "
  "took nor whether it came to a release, and nothing that was given out "
  "before it.",
  "It compares with the optimum without the records, reached by any training, "
  "and the same noise, on what it lists as stated: with features, that their "
  "net has seen none of the records.",
  "Records that are not asked for are not protected: the guarantee is about "
  "those that were deleted.",
  page.BUDGET,
  page.EACH,
  page.PAGE,
)


def measure(
  logits: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, float]:
  """Utility, and how well confidence tells forgotten from test records.

  Args:
    logits: `[n, classes]` of the parts `forget`, `retain` and `test`.
    labels: `[n]` of each.
  """
  return {
    **{
      f"{part}_accuracy": utility.accuracy(found, labels[part])
      for part, found in logits.items()
    },
    "attack_auc": attack.auc(
      *(
        signals.confidence(logits[part], labels[part])
        for part in ("forget", "test")
      )
    ),
  }
