"""What is measured of a network's models, and what each number means."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.release import attack, page
from junlearn.audit import signals, utility
from junlearn.report import Metric

METRICS = (
  Metric(
    "forget_accuracy",
    "Forget accuracy",
    "%",
    100,
    "Accuracy on the records to be forgotten, mean over clients.",
    forgetting=-1,
  ),
  Metric(
    "test_accuracy",
    "Test accuracy",
    "%",
    100,
    "Accuracy on records that nobody was trained on, mean over clients.",
  ),
  Metric(
    "worst_test_accuracy",
    "Worst client's test accuracy",
    "%",
    100,
    "Test accuracy of the client where it is lowest.",
    span=None,
  ),
  Metric(
    "attack_auc",
    "Attack AUC",
    help="How well the confidence tells forgotten from test records, mean over "
    "clients.",
    forgetting=-1,
    chance=0.5,
  ),
  Metric(
    "worst_attack_auc",
    "Worst client's attack AUC",
    help="Attack AUC of the client where it is highest.",
    span=None,
    forgetting=-1,
    chance=0.5,
  ),
  Metric(
    "distance",
    "Distance",
    help="Frobenius distance of all clients' models to the retrained ones, "
    "noise included.",
    compare=False,
    digits=4,
  ),
  Metric(
    "communication_rounds",
    "Communication rounds",
    help="How often clients communicate with their neighbors.",
    compare=False,
    digits=0,
  ),
)

NOT_PROVEN = (
  "A certificate covers the released models, not the time or the number of "
  "steps taken, and not what was sent before: neighbors may still hold models "
  "from before the deletion.",
  "It compares with training by the same rounds and the same noise without the "
  "records (consensus: with the minimizer of the mean risk), on what it lists "
  "as stated.",
  page.BUDGET,
  page.EACH,
  page.PAGE,
  "finetune carries no certificate.",
)


def measure(
  logits: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, float]:
  """Utility and attack, over the clients.

  The attack tells forgotten from test records by the confidence in the true
  class; its AUC is the exact fraction of pairs that it orders.

  Args:
    logits: `[clients, n, classes]` of the parts `forget`, `retain` and `test`.
    labels: `[n]` of each.
  """
  accuracy = {
    part: [utility.accuracy(one, labels[part]) for one in of_clients]
    for part, of_clients in logits.items()
  }
  auc = [
    attack.auc(
      signals.confidence(forget, labels["forget"]),
      signals.confidence(test, labels["test"]),
    )
    for forget, test in zip(logits["forget"], logits["test"], strict=True)
  ]
  return {
    **{f"{part}_accuracy": float(np.mean(a)) for part, a in accuracy.items()},
    "worst_test_accuracy": float(np.min(accuracy["test"])),
    "attack_auc": float(np.mean(auc)),
    "worst_attack_auc": float(np.max(auc)),
  }


def distances(params: Any, reference: Any) -> np.ndarray:
  """|x_i - reference_i| of each client."""
  squares = [
    np.sum(np.square(np.asarray(a) - np.asarray(b)).reshape(len(a), -1), 1)
    for a, b in zip(
      jax.tree.leaves(params), jax.tree.leaves(reference), strict=True
    )
  ]
  return np.sqrt(np.sum(squares, axis=0))


def distance(params: Any, reference: Any) -> float:
  """|X - reference|_F."""
  return float(np.linalg.norm(distances(params, reference)))
