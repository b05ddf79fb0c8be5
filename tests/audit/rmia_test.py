"""RMIA against the N x N definition, and on members it must find."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from junlearn.audit import rmia


def naive_scores(target, q, gamma):
  scores = []
  for x in range(len(target)):
    others = [z for z in range(len(target)) if z != x]
    # Cross-multiplied: exact for the small integers of the tests.
    won = [target[x] * q[z] > gamma * target[z] * q[x] for z in others]
    scores.append(np.mean(won))
  return np.array(scores)


def population(seed, models=16, n=400, effect=1.0):
  """Signals of models on a balanced membership; row 0 is the target."""
  rng = np.random.default_rng(seed)
  membership = rmia.balanced_membership(seed, models, n)
  difficulty = rng.normal(scale=2.0, size=n)
  noise = 0.5 * rng.normal(size=(models, n))
  log_odds = difficulty + effect * membership + noise
  return 1 / (1 + np.exp(-log_odds)), membership


def test_online_by_hand():
  # q = 1/2 everywhere, LR = 4/5, 8/5, 2/5, 1/5.
  target = np.array([0.4, 0.8, 0.2, 0.1])
  references = np.array([[0.25] * 4, [0.75] * 4])
  scores = rmia.online(target, references, gamma=2.0)
  np.testing.assert_allclose(scores, [1 / 3, 2 / 3, 0, 0])
  scores = rmia.online(target, references, gamma=1.0)
  np.testing.assert_allclose(scores, [2 / 3, 1, 1 / 3, 0])


@settings(deadline=None)
@given(
  target=st.lists(st.integers(0, 8), min_size=2, max_size=12),
  gamma=st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]),
  data=st.data(),
)
def test_online_is_the_definition(target, gamma, data):
  n = len(target)
  power_of_two = st.integers(-2, 2).map(lambda k: 2.0**k)
  q = data.draw(st.lists(power_of_two, min_size=n, max_size=n))
  target, q = np.array(target, float), np.array(q)
  references = np.stack([q / 2, 3 * q / 2])
  np.testing.assert_allclose(
    rmia.online(target, references, gamma=gamma),
    naive_scores(target, q, gamma),
  )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_score_never_decreases_in_the_likelihood_ratio(gamma):
  signal, _ = population(5)
  order = np.argsort(signal[0] / signal[1:].mean(axis=0))
  scores = rmia.online(signal[0], signal[1:], gamma=gamma)
  assert (np.diff(scores[order]) >= 0).all()


def auc_of(seed, effect):
  signal, membership = population(seed, effect=effect)
  scores = rmia.online(signal[0], signal[2:], gamma=1.0)
  return metrics.roc_auc_score(membership[0], scores)


def test_null_attack_is_a_coin():
  draws, n = 40, 400
  auc = np.mean([auc_of(seed, 0.0) for seed in range(draws)])
  # Variance of the Mann-Whitney statistic, n/2 members and n/2 others.
  standard_error = math.sqrt((n + 1) / (12 * (n / 2) ** 2) / draws)
  assert abs(auc - 0.5) < 3 * standard_error


def test_members_are_found_beyond_the_difficulty_of_examples():
  signal, membership = population(0, effect=1.0)
  by_signal = metrics.roc_auc_score(membership[0], signal[0])
  assert auc_of(0, 1.0) > by_signal + 0.1


@settings(deadline=None)
@given(
  seed=st.integers(0, 100),
  pairs=st.integers(1, 6),
  half=st.integers(1, 10),
)
def test_membership_is_balanced_in_both_directions(seed, pairs, half):
  membership = rmia.balanced_membership(seed, 2 * pairs, 2 * half)
  assert membership.dtype == bool
  np.testing.assert_array_equal(membership.sum(axis=0), pairs)
  np.testing.assert_array_equal(membership.sum(axis=1), half)
  np.testing.assert_array_equal(
    membership, rmia.balanced_membership(seed, 2 * pairs, 2 * half)
  )


def test_membership_of_different_pairs_is_independent():
  n, pairs = 20, 2000
  first = rmia.balanced_membership(0, 2 * pairs, n)[::2]
  # Each example is IN the first model of a pair with probability 1/2.
  assert abs(first.mean(axis=0) - 0.5).max() < 4 * 0.5 / math.sqrt(pairs)
  # Two given examples share a side with probability (n/2 - 1) / (n - 1).
  together = np.mean(first[:, 0] == first[:, 1])
  expected = (n / 2 - 1) / (n - 1)
  assert abs(together - expected) < 3 * 0.5 / math.sqrt(pairs)


def test_large_populations_need_no_square_matrix():
  rng = np.random.default_rng(0)
  n = 200_000  # n x n floats would be 320 GB
  scores = rmia.online(rng.random(n), 0.1 + rng.random((2, n)))
  assert scores.shape == (n,)


@pytest.mark.parametrize(
  ("target", "references", "message"),
  [
    ([0.5], [[0.5]], r"target has shape \(1,\)"),
    ([0.5, 0.5], [0.5, 0.5], r"references has shape \(2,\)"),
    ([0.5, 0.5], np.zeros((0, 2)), "at least one model"),
    ([0.5, 0.5], [[0.5, 0.5, 0.5]], r"must be \[models, 2\]"),
    ([0.5, np.nan], [[0.5, 0.5]], "target has NaN"),
    ([0.5, 0.5], [[0.5, -0.5]], "references has NaN, infinite or negative"),
    ([0.5, 0.5], [[0.5, 0.0]], "references are 0 in all models for 1"),
  ],
)
def test_bad_signals(target, references, message):
  with pytest.raises(ValueError, match=message):
    rmia.online(target, references)


def test_bad_options():
  signal = np.full((2, 4), 0.5)
  with pytest.raises(ValueError, match="gamma is 0"):
    rmia.online(signal[0], signal, gamma=0)
  with pytest.raises(ValueError, match="models is 3; it must be even"):
    rmia.balanced_membership(0, 3, 4)
  with pytest.raises(ValueError, match="n is 5; it must be even"):
    rmia.balanced_membership(0, 4, 5)
