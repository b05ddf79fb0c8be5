"""Rows of results -> each method's distance to retraining, paired by seed.

A method is compared with the retrained model *of the same seed*, so that what
the seeds have in common (data split, initial weights) cancels:

    gap_s = method_s - retrain_s        distance = mean_s |gap_s|

The arrow tells which way the method's value must go to meet retraining's. It
is "=" where the 95 % Student interval of the mean gap,

    mean(gap) ± t_{0.975, n-1} std(gap) / sqrt(n),

contains 0: the seeds at hand do not tell the two apart, which is no proof that
they are equal. With one seed there is no interval, and the arrow is the sign
of that seed's gap.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from junlearn.report.metric import Metric, finite

REFERENCES = ("original", "retrain")
RISE, FALL, LEVEL = "↑", "↓", "="


class PerSeed(NamedTuple):
  """The finite values of one quantity, by seed."""

  by_seed: dict[int, float]

  @property
  def num_seeds(self) -> int:
    """How many seeds have a finite value."""
    return len(self.by_seed)

  @property
  def mean(self) -> float:
    """Mean over seeds; NaN without any."""
    return (
      float(np.mean([*self.by_seed.values()])) if self.num_seeds else math.nan
    )

  @property
  def std(self) -> float:
    """Sample standard deviation over seeds; NaN for fewer than two."""
    if self.num_seeds < 2:
      return math.nan
    return float(np.std([*self.by_seed.values()], ddof=1))

  @property
  def interval(self) -> tuple[float, float]:
    """95 % Student interval of the mean; NaNs for fewer than two seeds."""
    if self.num_seeds < 2:
      return math.nan, math.nan
    quantile = special.stdtrit(self.num_seeds - 1, 0.975)
    half = float(quantile) * self.std / math.sqrt(self.num_seeds)
    return self.mean - half, self.mean + half

  @property
  def sign(self) -> int:
    """Sign of the mean, 0 where the interval holds 0 (or without values)."""
    low, high = self.interval if self.num_seeds > 1 else (self.mean, self.mean)
    return int(low > 0) - int(high < 0)

  def minus(self, other: "PerSeed") -> "PerSeed":
    """Differences over the seeds that both have.

    Differences at the level of float64 rounding are taken as zero.
    """
    pairs = {
      seed: (value, other.by_seed[seed])
      for seed, value in self.by_seed.items()
      if seed in other.by_seed
    }
    return PerSeed(
      {
        seed: 0.0 if math.isclose(a, b, rel_tol=1e-12) else a - b
        for seed, (a, b) in pairs.items()
      }
    )


class Entry(NamedTuple):
  """One method under one metric.

  Attributes:
    value: the raw values.
    gap: value minus the retrained model's of the same seed; empty for
      retraining itself, for metrics that are not compared, and where no seed
      has both.
  """

  value: PerSeed
  gap: PerSeed

  @property
  def distance(self) -> PerSeed:
    """Absolute gaps."""
    return PerSeed({seed: abs(gap) for seed, gap in self.gap.by_seed.items()})

  @property
  def arrow(self) -> str:
    """Which way the value must go to meet retraining's; "" if unknown."""
    return (
      {-1: RISE, 0: LEVEL, 1: FALL}[self.gap.sign] if self.gap.num_seeds else ""
    )


class Summary(NamedTuple):
  """What the page says about a set of runs.

  Attributes:
    metrics: in the order of the columns.
    methods: the references first, then in order of appearance.
    seeds: all seeds, sorted.
    entries: `entries[method][metric name]`.
    average: average gap by method, in points: the mean of distance / span over
      the metrics, times 100. A seed counts if it has all of these metrics; a
      method without such a seed has no average and is not ranked.
  """

  metrics: tuple[Metric, ...]
  methods: tuple[str, ...]
  seeds: tuple[int, ...]
  entries: dict[str, dict[str, Entry]]
  average: dict[str, PerSeed]

  @property
  def candidates(self) -> tuple[str, ...]:
    """The methods that are not references."""
    return tuple(m for m in self.methods if m not in REFERENCES)

  @property
  def averaged(self) -> tuple[Metric, ...]:
    """The metrics that the average gap is taken over."""
    return tuple(m for m in self.metrics if m.compare and m.span is not None)

  @property
  def ranking(self) -> tuple[str, ...]:
    """The candidates that have an average gap, the closest first."""
    ranked = [m for m in self.candidates if m in self.average]
    return tuple(sorted(ranked, key=lambda m: self.average[m].mean))

  def closest(self, metric: str) -> frozenset[str]:
    """The candidates at the least distance to retraining; ties are kept."""
    distances = {
      method: entry.distance.mean
      for method in self.candidates
      if (entry := self.entries[method][metric]).gap.num_seeds
    }
    least = min(distances.values(), default=math.nan)
    return frozenset(m for m, d in distances.items() if d == least)


def by_method(
  rows: Iterable[Mapping[str, Any]],
) -> dict[str, dict[int, Mapping[str, Any]]]:
  """Rows by method, the references first, and by seed.

  Raises:
    ValueError: if a method has two rows of the same seed.
  """
  table: dict[str, dict[int, Mapping[str, Any]]] = {
    reference: {} for reference in REFERENCES
  }
  for row in rows:
    method, seed = row["method"], row["seed"]
    if seed in table.setdefault(method, {}):
      raise ValueError(
        f"rows: method {method!r} has two rows of seed {seed!r}; "
        "each (method, seed) is allowed once."
      )
    table[method][seed] = row
  return {method: runs for method, runs in table.items() if runs}


def quantity(runs: Mapping[int, Mapping[str, Any]], *path: str) -> PerSeed:
  """The finite values that the rows hold under nested keys."""
  values = {}
  for seed, row in sorted(runs.items()):
    leaf: Any = row
    for key in path:
      leaf = leaf.get(key) if isinstance(leaf, Mapping) else None
    if math.isfinite(value := finite(leaf)):
      values[seed] = value
  return PerSeed(values)


def _average(entries: Mapping[str, Entry], metrics: Sequence[Metric]):
  fractions = [
    {s: d / m.span for s, d in entries[m.name].distance.by_seed.items()}
    for m in metrics
    if m.span is not None
  ]
  common = set.intersection(*map(set, fractions)) if fractions else set()
  return PerSeed(
    {
      seed: 100 * float(np.mean([part[seed] for part in fractions]))
      for seed in sorted(common)
    }
  )


def _check(metrics: Sequence[Metric]) -> None:
  for metric in metrics:
    if metric.span is not None and not metric.span > 0:
      raise ValueError(
        f"metrics: span of {metric.name!r} is {metric.span}; it must be "
        "positive, or None."
      )
    if metric.forgetting not in (-1, 0, 1):
      raise ValueError(
        f"metrics: forgetting of {metric.name!r} is {metric.forgetting}; it "
        "must be -1, 0 or 1."
      )


def summarize(
  rows: Iterable[Mapping[str, Any]], metrics: Iterable[Metric]
) -> Summary:
  """Summarizes rows of `results.jsonl`.

  Args:
    rows: dicts with `method`, `seed` and `metrics` ({name: number}); numbers
      that are missing or not finite are left out.
    metrics: what to report.

  Returns:
    Spread over seeds and paired distance to retraining of every method.

  Raises:
    ValueError: if a method has two rows of the same seed, or a metric's span
      or direction of forgetting is not one that is allowed.
  """
  metrics, table = tuple(metrics), by_method(rows)
  _check(metrics)
  nothing = PerSeed({})
  entries: dict[str, dict[str, Entry]] = {}
  for method, runs in table.items():
    entries[method] = {}
    for metric in metrics:
      value = quantity(runs, "metrics", metric.name)
      target = quantity(table.get("retrain", {}), "metrics", metric.name)
      compared = metric.compare and method != "retrain"
      gap = value.minus(target) if compared else nothing
      entries[method][metric.name] = Entry(value, gap)
  summary = Summary(
    metrics,
    methods=tuple(table),
    seeds=tuple(sorted({seed for runs in table.values() for seed in runs})),
    entries=entries,
    average={},
  )
  averages = {m: _average(entries[m], summary.averaged) for m in table}
  return summary._replace(
    average={m: average for m, average in averages.items() if average.num_seeds}
  )
