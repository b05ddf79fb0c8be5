import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from junlearn.certify import calibrate
from junlearn.certify.accountant import Account, BudgetError, Release

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


def test_a_spent_budget_refuses():
  account = Account(1.0, 1e-5)
  account = account.add(account.left, 1.0)
  assert account.left == 0
  with pytest.raises(BudgetError, match=r"after 1 release: retrain now"):
    account.sigma(0.1)
  with pytest.raises(BudgetError, match=r"leaves 0\.0 after 1 release: retr"):
    account.add(1e-3, 1.0)


def test_a_first_release_beyond_the_budget_is_not_called_spent():
  account = Account(1e-12, 1e-15)
  with pytest.raises(BudgetError) as error:
    account.add(5e-10, 2.0)
  text = str(error.value)
  assert "distance 5e-10 at sigma 2.0 has a distance / sigma of 2.5e-10" in text
  assert "budget of epsilon 1e-12 at delta 1e-15" in text
  assert f"leaves {account.left} after no releases" in text
  assert "spent" not in text and " 0.0 " not in text


@pytest.mark.parametrize("epsilon", [1e-300, 1e-12, 1e308])
def test_what_is_left_of_the_smallest_and_largest_budgets(epsilon):
  account = Account(epsilon, 1e-300)
  whole = account.left
  np.testing.assert_allclose(
    whole, 1 / calibrate.gaussian_sigma(epsilon, 1e-300, 1.0)
  )
  account = account.add(0.6 * whole, 1.0)
  np.testing.assert_allclose(account.left, 0.8 * whole)  # Pythagoras


def test_what_is_not_a_number_is_not_left():
  account = Account(1.0, 1e-5, (Release(float("nan"), 1.0),))
  with pytest.raises(BudgetError):
    account.add(1e-9, 1.0)
  with pytest.raises(BudgetError):
    account.sigma(1e-9)


def play(rng, retrained, account, ratio, rounds, *, anew):
  """Log-likelihood ratios of an analyst whose noise depends on what he saw.

  Who was lucky takes all that is left in one release, or, with `anew`, all of
  a budget that he begins anew; the others keep some for later.
  """
  if rounds == 0 or not len(ratio):
    return ratio
  lucky = ratio > 0.3
  parts = []
  for chosen, is_lucky in ((ratio[lucky], True), (ratio[~lucky], False)):
    current = account
    if is_lucky and anew:
      current = Account(account.epsilon, account.delta)
    if current.left < 1e-3:
      parts.append(chosen)
      continue
    all_at_once = is_lucky or rounds == 1
    sigma = current.sigma(0.7, releases=1 if all_at_once else 2 * rounds)
    mu = 0.7 / sigma
    mean = -(mu**2) / 2 if retrained else mu**2 / 2
    chosen = chosen + rng.normal(mean, mu, len(chosen))
    after = current.add(0.7, sigma)
    parts.append(play(rng, retrained, after, chosen, rounds - 1, anew=anew))
  return np.concatenate(parts)


def measured_delta(account, *, anew):
  """`P(ratio > epsilon) - e^epsilon P'(ratio > epsilon)`, between bounds.

  Each probability by Clopper and Pearson, wrong once in 1000.
  """
  rng = np.random.default_rng(0)
  bounds = []
  for retrained in (False, True):
    ratio = play(rng, retrained, account, np.zeros(10**6), 4, anew=anew)
    found = int(np.sum(ratio > account.epsilon))
    test = stats.binomtest(found, ratio.size)
    bounds.append(test.proportion_ci(0.999, method="exact"))
  scale = np.exp(account.epsilon)
  low = bounds[0].low - scale * bounds[1].high
  return low, bounds[0].high - scale * bounds[1].low


def test_noise_may_depend_on_earlier_releases_within_the_budget():
  """The filter's theorem, with equality: every path fills the budget."""
  low, high = measured_delta(Account(0.5, 0.1), anew=False)
  assert low <= 0.1 <= high
  assert high - low <= 0.01


def test_a_budget_begun_anew_after_lucky_releases_is_not_covered():
  low, _ = measured_delta(Account(0.5, 0.1), anew=True)
  assert low > 0.12


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: Account(0.0, 1e-5).left, r"epsilon is 0\.0"),
    (lambda: Account(1.0, 0.0).left, r"delta is 0\.0"),
    (lambda: Account(1.0, 1e-5).add(-1.0, 1.0), r"distance is -1\.0"),
    (lambda: Account(1.0, 1e-5).add(0.0, 1.0), r"distance is 0\.0"),
    (lambda: Account(1.0, 1e-5).add(1.0, 0.0), r"sigma is 0\.0"),
    (lambda: Account(1.0, 1e-5).sigma(1e308), r"distance is 1e\+308"),
    (lambda: Account(1.0, 1e-5).sigma(0.0), r"distance is 0\.0"),
    (lambda: Account(1.0, 1e-5).sigma(1.0, releases=0), "releases is 0"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
