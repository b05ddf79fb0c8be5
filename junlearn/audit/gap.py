"""The distance to retraining: how close a method comes, and from which side.

The goal of unlearning is the retrained model's value of every metric, neither
the largest nor the smallest. A metric that overshoots it (over-forgetting) is
a failure too, so gaps keep their sign.
"""

import math
from collections.abc import Iterable, Mapping

Metrics = Mapping[str, float]


def signed_gaps(
  metrics: Metrics, retrain: Metrics, keys: Iterable[str]
) -> dict[str, float]:
  """Signed gap, method - retrain, for every key.

  Raises:
    ValueError: if there is no key, or a value is missing or not finite.
  """
  keys = tuple(keys)
  if not keys:
    raise ValueError("keys is empty; name at least one metric.")
  return {
    key: _value(metrics, "metrics", key) - _value(retrain, "retrain", key)
    for key in keys
  }


def average_gap(
  metrics: Metrics, retrain: Metrics, keys: Iterable[str]
) -> float:
  """Average gap, mean over keys of |method - retrain|; 0 is retraining.

  Args:
    metrics: the method's values.
    retrain: retraining's values, in the same units.
    keys: the metrics that count; usually forget, retain and test accuracy and
      one attack.

  Raises:
    ValueError: if there is no key, or a value is missing or not finite.

  Source: Fan et al., SalUn (arXiv 2310.12508).
  """
  gaps = signed_gaps(metrics, retrain, keys)
  return math.fsum(map(abs, gaps.values())) / len(gaps)


def tug_of_war(
  accuracies: Metrics, retrain: Metrics, keys: Iterable[str]
) -> float:
  """ToW, product over keys of (1 - |method - retrain|); 1 is retraining.

  Args:
    accuracies: the method's values, as fractions in [0, 1].
    retrain: retraining's values, as fractions in [0, 1].
    keys: the forget, retain and test accuracy.

  Raises:
    ValueError: if there is no key, or a value is missing or not a fraction.

  Source: Zhao et al., RUM (arXiv 2406.01257).
  """
  keys = tuple(keys)
  gaps = signed_gaps(accuracies, retrain, keys)
  for name, values in (("accuracies", accuracies), ("retrain", retrain)):
    for key in keys:
      if not 0 <= values[key] <= 1:
        raise ValueError(
          f"{name}[{key!r}] is {values[key]}; it must be a fraction in [0, 1]."
        )
  return math.prod(1 - abs(gap) for gap in gaps.values())


def _value(metrics, name, key):
  if key not in metrics:
    raise ValueError(f"{name} lacks {key!r}; it has {sorted(metrics)}.")
  if not math.isfinite(metrics[key]):
    raise ValueError(f"{name}[{key!r}] is {metrics[key]}; it must be finite.")
  return metrics[key]
