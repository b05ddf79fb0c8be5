"""Gaps to retraining against hand-computed tables."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junlearn.audit import gap

# SalUn, Table 1, random 10 %: the published average gaps are of these rows.
RETRAIN = {"ua": 5.24, "ra": 100.0, "ta": 94.26, "mia": 12.88}
PUBLISHED = {
  3.78: {"ua": 0.63, "ra": 99.88, "ta": 94.06, "mia": 2.70},
  7.15: {"ua": 7.61, "ra": 99.67, "ta": 92.83, "mia": 37.36},
  1.15: {"ua": 2.85, "ra": 99.62, "ta": 93.93, "mia": 14.39},
}

fractions = st.floats(0, 1)
tables = st.fixed_dictionaries({"forget": fractions, "test": fractions})
seeds = st.lists(fractions, min_size=1, max_size=5)


@pytest.mark.parametrize(("published", "metrics"), PUBLISHED.items())
def test_average_gap_reproduces_published_rows(published, metrics):
  assert gap.average_gap(metrics, RETRAIN, RETRAIN) == (
    pytest.approx(published, abs=0.006)
  )


def test_signed_gaps_and_tug_of_war_by_hand():
  method = {"forget": 0.9, "retain": 0.8, "test": 0.5, "mia": 3.0}
  retrain = {"forget": 0.7, "retain": 1.0, "test": 0.5, "mia": 5.0}
  keys = ("forget", "retain", "test")
  assert gap.signed_gaps(method, retrain, keys) == (
    pytest.approx({"forget": 0.2, "retain": -0.2, "test": 0.0})
  )
  assert gap.tug_of_war(method, retrain, keys) == pytest.approx(0.8 * 0.8)
  assert gap.average_gap(method, retrain, iter(keys)) == pytest.approx(0.4 / 3)


@settings(deadline=None)
@given(a=tables, b=tables)
def test_gap_laws(a, b):
  keys = tuple(a)
  assert gap.average_gap(a, a, keys) == 0
  assert gap.tug_of_war(a, a, keys) == 1
  assert gap.average_gap(a, b, keys) == gap.average_gap(b, a, keys)
  assert 0 <= gap.tug_of_war(a, b, keys) <= 1


@pytest.mark.parametrize(
  ("values", "retrain", "arrow"),
  [
    ([0.8, 0.8, 0.8], [0.9, 0.91, 0.92], "↑"),
    ([1.0, 1.0], [0.9, 0.91, 0.92], "↓"),
    ([0.9, 0.9], [0.9, 0.91, 0.92], "="),
    ([0.1, 0.1, 0.1], [0.1], "="),
    ([0.1], [0.2], "↑"),
  ],
)
def test_arrows(values, retrain, arrow):
  assert gap.verdict(values, retrain).arrow == arrow


@settings(deadline=None)
@given(values=seeds, retrain=seeds)
def test_verdict_laws(values, retrain):
  there, back = gap.verdict(values, retrain), gap.verdict(retrain, retrain)
  assert back.arrow == "="
  assert there.gap == there.value - there.retrain
  assert there.value == np.mean(values)
  if len(values) > 1:
    assert there.spread == np.std(values, ddof=1)
  # Moving the way of the arrow, by less than the gap, comes closer.
  step = {"↑": 0.5, "↓": -0.5, "=": 0.0}[there.arrow] * abs(there.gap)
  moved = gap.verdict([v + step for v in values], retrain)
  assert abs(moved.gap) <= abs(there.gap) + 1e-12


def test_equal_methods_are_rarely_told_apart():
  """The band of two standard deviations against the t distribution."""
  rng = np.random.default_rng(0)
  draws, seeds_each = 4000, 5
  told_apart = np.mean(
    [
      gap.verdict(*rng.normal(size=(2, seeds_each))).arrow != "="
      for _ in range(draws)
    ]
  )
  # gap / s_retrain has sqrt(2/5) times Student's t with 4 degrees of freedom.
  expected = 0.0341
  standard_error = math.sqrt(expected * (1 - expected) / draws)
  assert abs(told_apart - expected) < 4 * standard_error


def test_bad_input():
  with pytest.raises(ValueError, match="keys is empty"):
    gap.average_gap({}, {}, ())
  with pytest.raises(ValueError, match="retrain lacks 'a'"):
    gap.average_gap({"a": 1.0}, {"b": 1.0}, ["a"])
  with pytest.raises(ValueError, match=r"metrics\['a'\] is nan"):
    gap.signed_gaps({"a": math.nan}, {"a": 1.0}, ["a"])
  with pytest.raises(ValueError, match=r"accuracies\['a'\] is 95.0"):
    gap.tug_of_war({"a": 95.0}, {"a": 0.9}, ["a"])
  with pytest.raises(ValueError, match=r"values is \[\]"):
    gap.verdict([], [1.0])
  with pytest.raises(ValueError, match="width is -1"):
    gap.verdict([1.0], [1.0], width=-1)
