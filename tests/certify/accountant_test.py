import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junlearn.certify import calibrate
from junlearn.certify.accountant import Account, BudgetError

# sigmas at distance 1, delta, and epsilon as dp-accounting 0.6.0 gives it: the
# composition of privacy loss distributions, each rounded up to multiples of
# 1e-4.
PUBLISHED = [
  ([5.0], 1e-5, 0.7255217677394715),
  ([5.0] * 4, 1e-5, 1.5549817265111854),
  ([3.0, 7.0, 20.0], 1e-6, 1.603224231478444),
  ([40.0] * 30, 1e-5, 0.47979619824925596),
  ([1.0, 2.0], 1e-3, 3.6050549174380513),
]


@pytest.mark.parametrize(("sigmas", "delta", "epsilon"), PUBLISHED)
def test_composition_against_another_accountant(sigmas, delta, epsilon):
  account = Account(epsilon=10.0, delta=delta)
  for sigma in sigmas:
    account = account.add(1.0, sigma)
  assert account.spent_epsilon <= epsilon  # theirs is rounded up
  np.testing.assert_allclose(account.spent_epsilon, epsilon, rtol=5e-3)


def test_composition_against_simulated_likelihoods():
  """Three releases at once: the likelihood ratio's two tails."""
  pairs = [(0.3, 0.4), (1.0, 2.0), (0.1, 0.3)]
  account = Account(10.0, 1e-2)
  for pair in pairs:
    account = account.add(*pair)
  rng = np.random.default_rng(0)
  draws = rng.normal(size=(400_000, 3))
  shift = np.array([distance / sigma for distance, sigma in pairs])
  ratio = draws @ shift + shift @ shift / 2  # log p/p' under p
  epsilon = account.spent_epsilon
  found = np.mean(np.maximum(1 - np.exp(epsilon - ratio), 0))
  np.testing.assert_allclose(found, 1e-2, rtol=0.05)


@settings(max_examples=30, deadline=None)
@given(
  epsilon=st.floats(0.05, 20),
  delta=st.floats(1e-12, 1e-2),
  distance=st.floats(1e-6, 10),
  releases=st.integers(1, 5),
)
def test_that_many_releases_fit_and_no_more(epsilon, delta, distance, releases):
  account = Account(epsilon, delta)
  sigma = account.sigma(distance, releases=releases)
  each = calibrate.gaussian_epsilon(delta, distance, sigma)
  if each > 0:  # the noise that `certified` would use
    sigma = calibrate.gaussian_sigma(each, delta, distance)
  for _ in range(releases):
    account = account.add(distance, sigma)
  assert account.spent_epsilon <= epsilon
  assert account.spent_epsilon >= epsilon * (1 - 1e-5)
  with pytest.raises(BudgetError, match="retrain now"):
    account.add(distance, sigma)


def test_one_release_spends_what_certified_spends():
  account = Account(1.0, 1e-5)
  sigma = calibrate.gaussian_sigma(1.0, 1e-5, 0.3)
  np.testing.assert_allclose(account.sigma(0.3), sigma, rtol=1e-6)
  spent = account.add(0.3, sigma)
  np.testing.assert_allclose(spent.spent_epsilon, 1.0, rtol=1e-7)
  assert account.releases == ()  # the first account is as it was


def test_an_exact_model_costs_nothing():
  account = Account(1.0, 1e-5).add(0.0, 1.0)
  assert account.spent == 0 and account.spent_epsilon == 0
  assert account.left == Account(1.0, 1e-5).left


def test_a_spent_budget_refuses():
  account = Account(1.0, 1e-5)
  account = account.add(account.left, 1.0)
  assert account.left == 0
  with pytest.raises(BudgetError, match=r"after 1 releases .*: retrain now"):
    account.sigma(0.1)
  with pytest.raises(BudgetError, match="retrain now"):
    account.add(1e-3, 1.0)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: Account(0.0, 1e-5).left, "epsilon is 0.0"),
    (lambda: Account(1.0, 0.0).left, "delta is 0.0"),
    (lambda: Account(1.0, 1e-5).add(-1.0, 1.0), "distance is -1.0"),
    (lambda: Account(1.0, 1e-5).add(1.0, 0.0), "sigma is 0.0"),
    (lambda: Account(1.0, 1e-5).sigma(0.0), "distance is 0.0"),
    (lambda: Account(1.0, 1e-5).sigma(1.0, releases=0), "releases is 0"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
