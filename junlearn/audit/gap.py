"""The distance to retraining: how close a method comes, and from which side.

The goal of unlearning is the retrained model's value of every metric, neither
the largest nor the smallest. A metric that overshoots it (over-forgetting) is
a failure too, so gaps keep their sign and arrows point at the retrained value.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Metrics = Mapping[str, float]


class Verdict(NamedTuple):
  """One metric of a method beside retraining's, over seeds.

  Attributes:
    value: the method's mean.
    spread: the method's sample standard deviation; 0 for one seed.
    retrain: retraining's mean.
    retrain_spread: retraining's sample standard deviation; 0 for one seed.
    gap: value - retrain.
    arrow: which way the value must move to come closer to retraining's: "↑",
      "↓", or "=" if it cannot be told from retraining by its mean.
  """

  value: float
  spread: float
  retrain: float
  retrain_spread: float
  gap: float
  arrow: str


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


def verdict(
  values: Sequence[float], retrain: Sequence[float], *, width: float = 2.0
) -> Verdict:
  """Compares a metric's mean over seeds with retraining's.

  The arrow is "=" where |gap| <= width * retrain_spread. With one retrained
  model the spread is 0, and only an equal value is "=": retrain more seeds.

  Args:
    values: the method's value for each seed, at least one.
    retrain: retraining's value for each seed, at least one.
    width: half-width of the band around retraining's mean, in its sample
      standard deviations, >= 0.

  Raises:
    ValueError: if a list is empty or has a non-finite value, or width < 0.
  """
  if not width >= 0:
    raise ValueError(f"width is {width}; it must be at least 0.")
  value, spread = _mean_and_spread("values", values)
  target, target_spread = _mean_and_spread("retrain", retrain)
  gap = value - target
  # The means of equal numbers may differ in their last bits.
  rounding = 1e-12 * max(abs(value), abs(target))
  if abs(gap) <= width * target_spread + rounding:
    arrow = "="
  else:
    arrow = "↑" if gap < 0 else "↓"
  return Verdict(value, spread, target, target_spread, gap, arrow)


def _value(metrics, name, key):
  if key not in metrics:
    raise ValueError(f"{name} lacks {key!r}; it has {sorted(metrics)}.")
  if not math.isfinite(metrics[key]):
    raise ValueError(f"{name}[{key!r}] is {metrics[key]}; it must be finite.")
  return metrics[key]


def _mean_and_spread(name, values):
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size or not np.isfinite(values).all():
    raise ValueError(
      f"{name} is {values.tolist()}; it must be a list of finite numbers, one "
      "for each seed."
    )
  spread = np.std(values, ddof=1) if values.size > 1 else 0.0
  return float(np.mean(values)), float(spread)
