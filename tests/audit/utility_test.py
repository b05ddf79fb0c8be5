"""Utility metrics against SciPy and hand-computed values."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from junlearn.audit import utility

LABELS = np.array([0, 1, 1, 0, 2, 2])
LOGITS = np.eye(3)[[0, 1, 2, 0, 2, 0]]

samples = hnp.arrays(
  np.float64, st.integers(1, 20), elements=st.integers(-5, 5).map(float)
)


def naive_ks(a, b):
  points = np.concatenate([a, b])
  return max(abs(np.mean(a <= t) - np.mean(b <= t)) for t in points)


def test_accuracy_by_hand():
  assert utility.accuracy(LOGITS, LABELS) == 4 / 6
  both = np.stack([LOGITS, np.eye(3)[LABELS]])
  assert utility.accuracy(both, LABELS) == pytest.approx(5 / 6)


@settings(deadline=None)
@given(a=samples, b=samples)
def test_ks_distance_is_the_definition(a, b):
  distance = utility.ks_distance(a, b)
  assert distance == pytest.approx(naive_ks(a, b))
  assert distance == utility.ks_distance(b, a)
  assert distance == pytest.approx(utility.ks_distance(a**3, b**3))
  assert utility.ks_distance(a, a) == 0


def test_ks_distance_is_scipys():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=80), rng.normal(0.5, size=60)
  expected = stats.ks_2samp(a, b).statistic
  assert utility.ks_distance(a, b) == pytest.approx(expected)


def test_ks_distance_has_its_quoted_critical_value():
  """About 5 % of null draws exceed it, within three standard errors."""
  rng = np.random.default_rng(0)
  n, m, draws = 400, 300, 1000
  critical = 1.36 * math.sqrt(1 / n + 1 / m)
  exceeded = np.mean(
    [
      utility.ks_distance(rng.normal(size=n), rng.normal(size=m)) > critical
      for _ in range(draws)
    ]
  )
  assert abs(exceeded - 0.05) < 3 * math.sqrt(0.05 * 0.95 / draws)


def test_ks_pvalue_is_the_share_of_orders_with_that_distance():
  a, b = np.array([0.1, 0.4, 0.5, 2.0]), np.array([0.3, 1.0, 3.0])

  def distance(rows):
    steps = np.where(np.isin(np.arange(7), rows), 1 / 4, -1 / 3)
    return np.abs(np.cumsum(steps)).max()

  own = distance(stats.rankdata(np.concatenate([a, b]))[:4] - 1)
  orders = [distance(rows) for rows in itertools.combinations(range(7), 4)]
  expected = np.mean(np.array(orders) >= own - 1e-9)
  assert 0 < expected < 1
  assert utility.ks_pvalue(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("n", [4, 5, 7, 60])
def test_ks_pvalue_of_the_nearest_samples_is_1(n):
  # Of some n SciPy finds 1 + 2e-16 and falls back to an approximation.
  assert utility.ks_pvalue(np.arange(n), np.arange(n) + 0.5) == pytest.approx(1)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (400, 400), (400, 300), (1, 5)])
def test_ks_pvalue_of_separated_samples(n, m):
  pvalue = utility.ks_pvalue(np.arange(n), np.arange(m) + 1e4)
  assert pvalue == pytest.approx(2 / math.comb(n + m, n))


def test_activation_distance_vanishes_at_the_retrained_model_only():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(100, 4))
  labels = rng.integers(4, size=100)
  assert utility.activation_distance(logits, logits, labels) == 0
  assert utility.activation_distance(5 * logits, logits, labels) > 0.2


def test_activation_distance_and_zrf_of_opposite_models():
  sure = np.array([[900.0, 0.0], [0.0, 900.0]])
  labels = np.array([0, 1])
  distance = utility.activation_distance(sure, -sure, labels)
  assert distance == pytest.approx(math.sqrt(2))
  assert utility.zero_retrain_forgetting(sure, -sure, labels) == (
    pytest.approx(0)
  )
  assert utility.zero_retrain_forgetting(sure, sure, labels) == 1


def test_zrf_by_hand():
  # p = (1/2, 1/2), q = (1, 0): JS = 3/4 log2(4/3) + 1/4 bits less 1/2.
  p, q = np.zeros((1, 2)), np.array([[900.0, 0.0]])
  entropy_of_mean = 0.75 * math.log2(4 / 3) + 0.25 * 2
  zrf = utility.zero_retrain_forgetting(p, q, np.array([0]))
  assert zrf == pytest.approx(1 - (entropy_of_mean - 0.5))


def test_bad_input():
  with pytest.raises(ValueError, match="a has 1 NaN or infinite"):
    utility.ks_distance([1.0, np.nan], [1.0])
  with pytest.raises(ValueError, match=r"b has shape \(0,\)"):
    utility.ks_distance([1.0], [])
  with pytest.raises(ValueError, match="they must agree"):
    utility.activation_distance(LOGITS, np.zeros((6, 4)), LABELS)
